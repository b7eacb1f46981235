"""What `dalr bench train` runs: a config's training beside the bare loop."""

from collections.abc import Callable
from functools import partial

import torch

from dalr.config import parse_config
from dalr.errors import ConfigError
from dalr.objectives import Features, ObjectiveConfig
from dalr.run.assembly import Progress, assemble
from dalr.run.config import RunConfig
from dalr.trainer import Trainer


def heads_benchmark(
    config: RunConfig, steps: int, embedding: Progress | None = None
) -> tuple[Callable[[], float], dict[str, Callable[[], float]]]:
    """What `dalr bench train` times: the bare loop, and ours as `clip` and with the config's own objective.

    Raises ConfigError where a tower is in training: the bare loop reads cached features.
    """
    import tempfile

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

    def ours(settings: RunConfig) -> float:
        plan = assemble(settings)
        with tempfile.TemporaryDirectory() as out:
            return Trainer(plan.model, plan.objective, plan.data, plan.train_config, out=out).fit().seconds

    return bare, {name: partial(ours, settings) for name, settings in plans.items()}
