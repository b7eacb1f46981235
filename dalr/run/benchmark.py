"""What `dalr bench train` and `language` run: a config's training beside plain code."""

import tempfile
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from dalr.antlm.config import LanguageConfig
from dalr.antlm.objective import LanguageModelling
from dalr.config import Config, parse_config
from dalr.errors import ConfigError
from dalr.lm import LanguageModel
from dalr.objectives import Features, Objective, ObjectiveConfig
from dalr.run.assembly import Plan, Progress, assemble
from dalr.run.config import RunConfig
from dalr.run.language import assemble_language
from dalr.trainer import Trainer

Settings = TypeVar("Settings", bound=Config)


def heads_benchmark(
    config: RunConfig, steps: int, embedding: Progress | None = None
) -> tuple[Callable[[], float], dict[str, Callable[[], float]]]:
    """What `dalr bench train` times: the bare loop, and ours as `clip` and with the config's own objective.

    Raises ConfigError where a tower is in training: the bare loop reads cached features.
    """
    from dalr.bench.train import bare_loop

    clip = config.model_copy(update={"objective": parse_config(ObjectiveConfig, {"name": "clip"}, "bench")})
    plans = {"clip": clip, "own": config}
    rows = assemble(config, embedding).data.rows["pairs"]
    if not (isinstance(rows.text, Features) and isinstance(rows.image, Features)):
        raise ConfigError("bench train: both towers must be frozen; set model.text.train and model.image.train")
    text, image = (torch.from_numpy(column.array[:]) for column in (rows.text, rows.image))
    head = config.model.text_head
    train = config.train

    def bare() -> float:
        hidden = head.hidden if head.kind == "mlp" else None
        size = train.batch_size
        return bare_loop(text, image, dim=config.model.dim, hidden=hidden, batch_size=size, steps=steps, lr=train.lr)

    return bare, {name: _timed(assemble, settings) for name, settings in plans.items()}


def language_benchmark(
    config: LanguageConfig, steps: int
) -> tuple[Callable[[], float], dict[str, Callable[[], float]], int]:
    """What `dalr bench language` times: transformers' Trainer, ours, and the tokens of a run.

    The objective is the one that the network's class is for: masked for an encoder, causal for a decoder.
    """
    from dalr.bench.language import transformers_loop

    plan = assemble_language(config)
    masked = _language_model(plan.objective).own_objective == "masked"
    schedule = f"{steps}_{'MLM' if masked else 'CLM'}"
    config = config.model_copy(update={"schedule": schedule, "unit": "step"})
    text, train = plan.data.text, config.train

    def theirs() -> float:
        model = _language_model(assemble_language(config).objective)
        return transformers_loop(
            model.network,
            model.tokenizer,
            text.ids_NL,
            text.segments_NL,
            masked=masked,
            batch_size=train.batch_size,
            steps=steps,
            lr=train.lr,
            share=config.masking.share,
        )

    tokens = round(text.tokens / len(text) * train.batch_size * steps)
    return theirs, {"ours": _timed(assemble_language, config)}, tokens


def _timed(build: Callable[[Settings], Plan[Any]], config: Settings) -> Callable[[], float]:
    """One training as `dalr train` runs it, from a fresh plan into a folder that is thrown away; gives its seconds."""

    def run() -> float:
        plan = build(config)
        with tempfile.TemporaryDirectory() as out:
            return Trainer(plan.model, plan.objective, plan.data, plan.train_config, out=out).fit().seconds

    return run


def _language_model(objective: Objective) -> LanguageModel:
    assert isinstance(objective, LanguageModelling)
    return objective.language_model
