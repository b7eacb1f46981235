"""What `dalr bench train`, `language` and `audit` run."""

import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

import numpy as np
import torch

from dalr.antlm.config import LanguageConfig
from dalr.antlm.objective import LanguageModelling
from dalr.config import Config, parse_config
from dalr.errors import ConfigError
from dalr.lm import LanguageModel
from dalr.model import Side, Table
from dalr.objectives import Features, Objective, ObjectiveConfig
from dalr.progress import ProgressSink
from dalr.run.assembly import Plan, assemble
from dalr.run.config import RunConfig
from dalr.run.language import assemble_language
from dalr.trainer import Trainer

Settings = TypeVar("Settings", bound=Config)


def heads_benchmark(
    config: RunConfig, steps: int, embedding: ProgressSink | None = None
) -> tuple[Callable[[], float], dict[str, Callable[[], float]]]:
    """What `dalr bench train` times: the bare loop, and ours as `clip` and with the config's own objective.

    Raises ConfigError where a tower is in training: the bare loop reads cached features.
    """
    from dalr.bench.train import bare_loop

    config = config.model_copy(update={"train": config.train.unmeasured()})
    clip = config.model_copy(update={"objective": parse_config(ObjectiveConfig, {"name": "clip"}, "bench")})
    plans = {"clip": clip, "own": config}
    rows = assemble(config, embedding).data.rows.get("pairs")
    if rows is None:
        raise ConfigError("bench train: the config trains on no pairs of images and texts; name one that does")
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

    def of_kind(kind: str) -> LanguageConfig:
        # Whatever its own schedule and length.
        values = config.model_dump(exclude_unset=True)
        train = {key: value for key, value in values.get("train", {}).items() if key not in ("epochs", "steps")}
        return parse_config(LanguageConfig, {**values, "train": train, "schedule": f"{steps}_{kind}", "unit": "step"})

    plan = assemble_language(of_kind("CLM"))
    masked = _language_model(plan.objective).own_objective == "masked"
    timed = of_kind("MLM" if masked else "CLM")
    text, train = plan.data.text, config.train

    def theirs() -> float:
        model = _language_model(assemble_language(timed).objective)
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
    return theirs, {"ours": _timed(assemble_language, timed)}, tokens


def _timed(build: Callable[[Settings], Plan[Any]], config: Settings) -> Callable[[], float]:
    """One training as `dalr train` runs it, from a fresh plan into a folder that is thrown away; gives its seconds."""

    def run() -> float:
        plan = build(config)
        with tempfile.TemporaryDirectory() as out:
            train = plan.train_config.unmeasured()
            return Trainer(plan.model, plan.objective, plan.data, train, out=out).fit().seconds

    return run


def _language_model(objective: Objective) -> LanguageModel:
    assert isinstance(objective, LanguageModelling)
    return objective.language_model


class ReadyVectors:
    """Embeddings that lie in the shared space already."""

    def project_features(self, side: Side, features: Table, rows: np.ndarray | None = None) -> np.ndarray:
        """The vectors as they are, at unit length."""
        chosen = features[:] if rows is None else features[rows]
        return torch.nn.functional.normalize(torch.from_numpy(chosen), dim=-1).numpy()


def audit_benchmark(rows: int, width: int, share: float = 0.1, seed: int = 0) -> dict[str, Any]:
    """Judge `rows` drawn pairs of ready embeddings, a `share` of them wrong, in a fresh process of its own.

    The pairs are of as many kinds as a fiftieth of the rows, two of three with a product of their own. Returns seconds,
    peak_mb (resident, 10⁶ bytes, of the whole process), threads, and auroc of the wrong ones.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_timed_audit, rows, width, share, seed).result()


def _timed_audit(rows: int, width: int, share: float, seed: int) -> dict[str, Any]:
    from sklearn.metrics import roc_auc_score

    from dalr.catalogue.audit import AuditConfig
    from dalr.catalogue.audit.crossfit import FrozenPairs
    from dalr.catalogue.audit.evidence import judge_pairs

    draw = np.random.default_rng(seed)
    kinds = max(2, rows // 50)
    kind = draw.integers(0, kinds, rows)
    centres = draw.standard_normal((kinds, width), dtype=np.float32)
    product = np.where(np.arange(rows) % 3 == 0, (np.arange(rows) + 1) % rows, np.arange(rows))
    moved = draw.permutation(rows)[: round(share * rows)]
    source = np.arange(rows)
    source[moved] = np.roll(moved, 1)
    image = centres[kind] + draw.standard_normal((rows, width), dtype=np.float32)
    text = (centres[kind] + draw.standard_normal((rows, width), dtype=np.float32))[source]
    ids = np.stack([product[source], np.full(rows, -1)], axis=1)
    pairs = FrozenPairs(ReadyVectors(), text, image, ids)
    start = time.perf_counter()
    _, found = judge_pairs(pairs, [str(row) for row in range(rows)], AuditConfig(), shared=True)
    seconds = time.perf_counter() - start
    return {
        "rows": rows,
        "width": width,
        "threads": torch.get_num_threads(),
        "seconds": round(seconds, 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6),
        "auroc": round(float(roc_auc_score(kind[source] != kind, found.probability)), 4),
    }
