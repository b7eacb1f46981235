"""The tasks of the minBERT setting and their data: classes of texts, duplicates, scored pairs; own files as well."""

from dataclasses import dataclass
from typing import Annotated, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, Field, model_validator
from torch import nn

from dalr.config import Config
from dalr.data.groups import carve_dev, connected_texts
from dalr.data.labelled_texts import read_labelled_texts
from dalr.data.records import BadRow
from dalr.data.scored_pairs import read_scored_pairs
from dalr.errors import DataError

TaskKind = Literal["classes", "duplicates", "scores"]


def _task_name(name: str) -> str:
    # A task's head is a module by its name.
    if "." in name or hasattr(nn.ModuleDict(), name):
        raise ValueError(f"a task cannot be called '{name}'; take another name, without a dot")
    return name


TaskName = Annotated[str, AfterValidator(_task_name)]


class TaskConfig(Config):
    """One task.

    - `classes`: a text has one of `classes` classes (SST-5, CFIMDB): cross-entropy, accuracy
    - `duplicates`: a pair is a paraphrase (1) or not (0) (Quora): binary cross-entropy, accuracy
    - `scores`: a pair has a score in `low` … `high` (STS): regression of the cosine, Pearson

    `dev` is a file of its own; `dev_share` carves that share from `train` instead, such that no text stands on both
    sides.
    """

    kind: TaskKind
    train: str
    dev: str | None = None
    dev_share: float | None = Field(default=None, gt=0, lt=1)
    classes: int = Field(default=2, ge=2)
    low: float = 0.0
    high: float = 5.0

    @model_validator(mode="after")
    def _has_dev(self) -> Self:
        if (self.dev is None) == (self.dev_share is None):
            raise ValueError("name either dev, a file, or dev_share, the share of train to measure on")
        return self


@dataclass(frozen=True)
class TaskPart:
    """Rows of a task: texts, their partners where it is about pairs, and the target of each."""

    first: list[str]
    second: list[str] | None
    target: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.first)

    def rows(self, chosen: npt.NDArray[np.int64]) -> "TaskPart":
        """These rows."""
        second = None if self.second is None else [self.second[row] for row in chosen]
        return TaskPart([self.first[row] for row in chosen], second, self.target[chosen])


def read_task(config: TaskConfig, seed: int) -> tuple[TaskPart, TaskPart, list[BadRow]]:
    """(train, dev, bad rows of both); the score of a pair is brought to 0 … 1.

    Raises DataError for files that cannot be read, or a class number outside 0 … classes − 1.
    """
    train, bad = _read(config, config.train)
    if config.dev is not None:
        dev, more = _read(config, config.dev)
        return train, dev, [*bad, *more]
    assert config.dev_share is not None
    groups = connected_texts(train.first, train.second or train.first)[:, None]
    train_rows, dev_rows = carve_dev(groups, config.dev_share, seed)
    return train.rows(train_rows), train.rows(dev_rows), bad


def _read(config: TaskConfig, path: str) -> tuple[TaskPart, list[BadRow]]:
    if config.kind == "classes":
        texts, labels, bad = read_labelled_texts(path)
        worst = max(labels)
        if worst >= config.classes:
            raise DataError(f"{path}: holds the class {worst}; expected 0 to {config.classes - 1}, or set classes")
        return TaskPart(texts, None, np.array(labels, dtype=np.float32)), bad
    low, high = (0.0, 1.0) if config.kind == "duplicates" else (config.low, config.high)
    pairs, bad = read_scored_pairs(path, low=low, high=high)
    return TaskPart(pairs.first, pairs.second, (np.array(pairs.score, np.float32) - low) / (high - low)), bad
