"""A trainer of heads on frozen random towers, over the coloured squares."""

from pathlib import Path
from typing import Any

import torch

from dalr.data.manifest import DataConfig, Manifest
from dalr.model import DualEncoder, ModelConfig
from dalr.objectives import ObjectiveConfig, build_objective
from dalr.train_config import TrainConfig
from dalr.trainer import Trainer
from dalr.training_data import TrainingData


def build(config: ModelConfig, squares: Path) -> DualEncoder:
    torch.manual_seed(0)
    texts = [text or "" for text in Manifest.load(squares / "train.csv", DataConfig()).texts]
    return DualEncoder.build(config, corpus=texts)


def trainer_of(
    squares: Path, frozen: Any, out: Path | None = None, evaluate: Any = None, objective: Any = None, **settings: Any
) -> Trainer:
    model = build(frozen[0], squares)
    config = TrainConfig(**{"steps": 30, "batch_size": 16, "log_every": 1, "lr": 3e-3, **settings})
    rows = config.batch_size // config.accumulate
    data = TrainingData({"pairs": frozen[1]}, batch_size=rows, seed=config.seed, fingerprint="squares")
    torch.manual_seed(1)
    built = build_objective(ObjectiveConfig.model_validate(objective or {"name": "clip"}), model)
    return Trainer(model, built, data, config, out=out, evaluate=evaluate)
