"""Heads trained on the other folds: no pair is judged by a model that saw it.

Folds are cut by group: a group's fold is a hash of its first key, so that rows of other groups do not move it.

Legend: N pairs · K folds · D shared width
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from dalr.config import Config
from dalr.data.groups import connected_components
from dalr.encoders.heads import HeadConfig
from dalr.errors import DataError
from dalr.files import hash_bytes
from dalr.model import DualEncoder, ModelConfig, Side, Table
from dalr.noise import NoiseConfig
from dalr.objectives import Features, ObjectiveConfig, Rows, build_objective
from dalr.progress import ProgressSink
from dalr.train_config import TrainConfig
from dalr.trainer import Trainer
from dalr.training_data import TrainingData, frozen_teachers, pair_weights, standardise_heads
from dalr.training_log import Event

Ints = npt.NDArray[np.int64]
SMALLEST = 200  # pairs; fewer cannot teach a head


def _head() -> HeadConfig:
    return HeadConfig(kind="mlp", hidden=1024, dropout=0.3, input_dropout=0.2, standardise=True)


class CrossfitConfig(Config):
    """What is trained on each fold: heads on the frozen towers, as `dalr train` trains them."""

    dim: int = Field(default=256, ge=1)
    text_head: HeadConfig = Field(default_factory=_head)
    image_head: HeadConfig = Field(default_factory=_head)
    objective: ObjectiveConfig = Field(default_factory=lambda: ObjectiveConfig(name="clip", pair_weights=True))
    train: TrainConfig = TrainConfig(epochs=30, batch_size=256, lr=1e-3, weight_decay=1e-4, warmup=0.05, clip_norm=None)


class Projects(Protocol):
    """What brings features into a shared space: a DualEncoder does."""

    def project_features(self, side: Side, features: Table, rows: Ints | None = None) -> np.ndarray: ...


@dataclass(frozen=True)
class FrozenPairs:
    """N pairs as the frozen towers of `model` see them."""

    model: Projects
    text: Table
    image: Table
    ids_NK: Ints

    def rows(self, chosen: Ints) -> Rows:
        """A training set of some of them, their own features as teachers."""
        text, image = (Features(side[chosen]) for side in (self.text, self.image))
        weight = np.ones(len(chosen), dtype=np.float32)
        return frozen_teachers(Rows(self.ids_NK[chosen], weight, text=text, image=image))


def cut_folds(ids_NK: Ints, keys: Sequence[str], count: int) -> Ints:
    """The fold of each of N rows, 0 to `count` − 1; rows joined by a chain of groups are in one.

    Of rows that come later a group keeps its fold, but where one of their keys comes before all of its own.

    Raises DataError where a fold would leave too few pairs to train on.
    """
    labels = connected_components(ids_NK)
    first: dict[int, str] = {}
    for label, key in zip(labels.tolist(), keys, strict=True):
        first[label] = min(first.get(label, key), key)
    fold_of = {label: int(hash_bytes(b"fold", key.encode()), 16) % count for label, key in first.items()}
    folds = np.array([fold_of[label] for label in labels.tolist()], dtype=np.int64)
    sizes = np.bincount(folds, minlength=count)
    if len(ids_NK) - sizes.max() < SMALLEST or sizes.min() < 2:
        raise DataError(
            f"crossfit: {len(ids_NK)} pairs in {len(first)} groups are too few for {count} folds; each needs "
            f"{SMALLEST} pairs outside it. Leave --crossfit out"
        )
    return folds


def train_fold(
    pairs: FrozenPairs,
    chosen: Ints,
    config: CrossfitConfig,
    noise: NoiseConfig,
    seed: int,
    progress: ProgressSink | None = None,
) -> DualEncoder:
    """The model's towers with heads trained on the chosen pairs; `progress` is called with (step, steps)."""
    torch.manual_seed(seed)
    model = _fresh(pairs.model, config)
    rows = pairs.rows(chosen)
    standardise_heads(model, {"pairs": rows})
    weights = pair_weights(noise, rows) if config.objective.pair_weights else None
    train = config.train.model_copy(update={"seed": seed, "batch_size": min(config.train.batch_size, len(chosen))})
    data = TrainingData({"pairs": rows}, batch_size=train.batch_size, seed=seed, fingerprint="crossfit")
    torch.manual_seed(seed)
    objective = build_objective(config.objective, model, pair_weights=weights)

    def report(event: Event) -> None:
        if progress is not None and event["event"] == "step":
            progress(event["step"], event["total_steps"])

    Trainer(model, objective, data, train, progress=report).fit()
    return model.eval()


def with_heads(pairs: FrozenPairs, config: CrossfitConfig, heads: dict[str, torch.Tensor]) -> DualEncoder:
    """The model with the heads of a fold."""
    model = _fresh(pairs.model, config)
    model.load_state_dict(heads, strict=False)
    return model.eval()


def _fresh(model: Projects, config: CrossfitConfig) -> DualEncoder:
    """The model's own towers under new heads."""
    assert isinstance(model, DualEncoder)
    whole = model.config
    shape = ModelConfig(
        text=whole.text, image=whole.image, dim=config.dim, text_head=config.text_head, image_head=config.image_head
    )
    return DualEncoder(shape, model.text, model.image).to(model.device)


def embed_rows(model: Projects, pairs: FrozenPairs, rows: Ints) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit vectors of these pairs in the model's shared space: (n, D) of captions and (n, D) of pictures."""
    text_ND = model.project_features("text", pairs.text, rows)
    image_ND = model.project_features("image", pairs.image, rows)
    return torch.from_numpy(text_ND), torch.from_numpy(image_ND)
