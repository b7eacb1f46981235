"""Several tasks on one text tower: each has its head, a step is about one task, the average is minBERT's.

Legend: B rows · H text width · C classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from dalr import losses
from dalr.config import Config, parse_config
from dalr.data.scored_pairs import ScoredPairs
from dalr.encoders.parts_on_disk import read_record, write_parts
from dalr.encoders.tower import load_weights, save_weights
from dalr.errors import ConfigError, ModelError
from dalr.evaluation.sts import pairs_dev
from dalr.model import DualEncoder
from dalr.objectives import Batch, Kind, LossParts, Objective, Rows
from dalr.objectives.batch import TextInput
from dalr.simcse.tasks import TaskConfig, TaskName, TaskPart
from dalr.train_config import TrainConfig
from dalr.training_data import text_column

HEADS_FILE, TASKS_FILE = "task_heads.safetensors", "tasks.json"
BLOCK = 4096


Sampling = Literal["round_robin", "size"]


class TasksConfig(Config):
    """Tasks by name, trained jointly (one: singly). `round_robin` gives every task as many steps, `size` as its rows
    ask for."""

    tasks: dict[TaskName, TaskConfig] = Field(min_length=1)
    sampling: Sampling = "round_robin"

    @property
    def figures(self) -> list[str]:
        """What `evaluate_tasks` gives, by name."""
        kinds = {name: "pearson" if task.kind == "scores" else "accuracy" for name, task in self.tasks.items()}
        return [*(f"{name}.{measure}" for name, measure in kinds.items()), "average"]

    def selecting(self, train: TrainConfig) -> TrainConfig:
        """The training config with the average of the tasks as metric where it names none.

        Raises ConfigError for a metric or guard that the tasks do not measure.
        """
        train = train.model_copy(update={"metric": train.metric or "average"})
        train.check_measured(self.figures, "name a task")
        return train

    def mix(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Steps of each task in one round: one, or in proportion to its rows (the smallest task has one)."""
        if self.sampling == "round_robin":
            return dict.fromkeys(sizes, 1)
        return {name: max(1, round(size / min(sizes.values()))) for name, size in sizes.items()}


class TaskObjective(Objective):
    """One loss a task; the batch's kind is the task's name.

    Classes: cross-entropy of a linear layer on h. Duplicates: binary cross-entropy of a linear layer on
    (u, v, |u − v|) (Reimers and Gurevych 2019). Scores: the squared error of the cosine, without a head.
    """

    def __init__(self, config: TasksConfig, width: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.config = config
        self.kinds: tuple[Kind, ...] = tuple(config.tasks)
        self.dropout = nn.Dropout(dropout)
        outputs = {name: (width, task.classes) for name, task in config.tasks.items() if task.kind == "classes"}
        outputs |= {name: (3 * width, 1) for name, task in config.tasks.items() if task.kind == "duplicates"}
        self.heads = nn.ModuleDict({name: nn.Linear(*shape) for name, shape in outputs.items()})

    def settings(self) -> Any:
        return self.config.model_dump(mode="json")

    def embed(self, model: DualEncoder, batch: Batch) -> dict[str, Tensor]:
        """`h`, and `positive` for a pair's second text: pooled states (B, H)."""
        assert batch.text is not None
        found = {"h": _pooled(model, batch.text)}
        if batch.positive is not None:
            found["positive"] = _pooled(model, batch.positive)
        return found

    def loss(self, embeddings: Mapping[str, Tensor], batch: Batch) -> LossParts:
        """The loss of the task that the batch is about."""
        task, target_B = self.config.tasks[batch.kind], batch.target_B
        assert target_B is not None
        if task.kind == "scores":
            value = losses.cosine_regression(embeddings["h"], embeddings["positive"], target_B)
        else:
            logits = self.logits(batch.kind, embeddings["h"], embeddings.get("positive"))
            if task.kind == "classes":
                value = F.cross_entropy(logits, target_B.long())
            else:
                value = F.binary_cross_entropy_with_logits(logits.squeeze(-1), target_B)
        return LossParts.of({batch.kind: value}, {batch.kind: 1.0})

    def logits(self, name: str, first_BH: Tensor, second_BH: Tensor | None = None) -> Tensor:
        """(B, C) for a task of classes, (B, 1) for one of duplicates."""
        parts = [first_BH] if second_BH is None else [first_BH, second_BH, (first_BH - second_BH).abs()]
        return self.heads[name](self.dropout(torch.cat(parts, dim=-1)))  # type: ignore[no-any-return]

    def idle_parameters(self, model: DualEncoder, kind: Kind) -> list[nn.Parameter]:
        """The heads of the other tasks."""
        return [parameter for name, head in self.heads.items() if name != kind for parameter in head.parameters()]


def task_rows(part: TaskPart, model: DualEncoder) -> Rows:
    """A task's rows for training."""
    return Rows(
        ids_NK=np.full((len(part), 1), -1, dtype=np.int64),
        weight_N=np.ones(len(part), dtype=np.float32),
        text=text_column(part.first, model, None, None),
        positive=None if part.second is None else text_column(part.second, model, None, None),
        target_N=part.target,
    )


def evaluate_tasks(model: DualEncoder, objective: TaskObjective, parts: Mapping[str, TaskPart]) -> dict[str, float]:
    """`TASK.accuracy` or `TASK.pearson` of every task, × 100, and `average`.

    The average is that of the accuracies and of (100 + r) / 2 for every correlation: with SST, paraphrases and STS
    minBERT's (SST accuracy + paraphrase accuracy + (1 + r) / 2) / 3.
    """
    figures: dict[str, float] = {}
    scores = []
    for name, part in parts.items():
        if objective.config.tasks[name].kind == "scores":
            assert part.second is not None
            pearson = pairs_dev(model, ScoredPairs(part.first, part.second, part.target.tolist()))["pearson"]
            figures[f"{name}.pearson"] = pearson
            scores.append((100.0 + pearson) / 2)
        else:
            right = predict(model, objective, name, part.first, part.second) == part.target
            figures[f"{name}.accuracy"] = round(100.0 * float(right.mean()), 4)
            scores.append(figures[f"{name}.accuracy"])
    return figures | {"average": round(float(np.mean(scores)), 4)}


def predict(
    model: DualEncoder, objective: TaskObjective, name: str, first: Sequence[str], second: Sequence[str] | None = None
) -> npt.NDArray[np.int64]:
    """The class of each text, or for a pair 1 where it is a duplicate, (N,)."""
    assert model.text is not None
    sides = [torch.from_numpy(model.text.encode(side)) for side in (first, second) if side is not None]
    was_training = objective.training
    objective.eval()
    try:
        with torch.inference_mode():
            blocks = [
                objective.logits(name, *(side[start : start + BLOCK].to(model.device) for side in sides)).cpu()
                for start in range(0, len(first), BLOCK)
            ]
    finally:
        objective.train(was_training)
    logits = torch.cat(blocks)
    found = logits.argmax(dim=1) if logits.shape[1] > 1 else (logits.squeeze(1) > 0).long()
    return found.numpy()


@dataclass(frozen=True)
class TaskModel:
    """A trained model with the heads of its tasks.

    model = TaskModel.from_pretrained("runs/minbert/stages/2-tasks")
    model.predict("sst", ["a gripping film"])
    """

    model: DualEncoder
    objective: TaskObjective

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "TaskModel":
        """Read a folder that a stage of kind `tasks` wrote; ModelError when it is none."""
        folder = Path(folder)
        if not (folder / TASKS_FILE).is_file():
            raise ModelError(f"{folder}: holds no task heads ({TASKS_FILE}); name the folder of a stage of kind tasks")
        model = DualEncoder.from_pretrained(folder)
        record = {key: value for key, value in read_record(folder, TASKS_FILE).items() if key != "files"}
        config = parse_config(TasksConfig, record, str(folder / TASKS_FILE))
        assert model.text is not None
        objective = TaskObjective(config, model.text.width)
        load_weights(objective.heads, folder / HEADS_FILE)
        return cls(model, objective.eval())

    def predict(self, task: str, first: Sequence[str], second: Sequence[str] | None = None) -> npt.NDArray[np.int64]:
        """Class numbers (N,) of texts, or 1 for each pair that is a duplicate; ConfigError for an unknown task."""
        if task not in self.objective.heads:
            known = ", ".join(self.objective.heads) or "none; a task of scores is the cosine itself"
            raise ConfigError(f"task '{task}': expected one of {known}")
        if (self.objective.config.tasks[task].kind == "duplicates") != (second is not None):
            raise ConfigError(
                f"task '{task}': a task of duplicates takes two lists of texts, one of classes a single one"
            )
        return predict(self.model, self.objective, task, first, second)


def save_heads(objective: TaskObjective, folder: Path) -> None:
    """Write the heads beside the model."""

    def write(fresh: Path) -> None:
        save_weights(fresh / HEADS_FILE, objective.heads.state_dict())

    write_parts(folder, TASKS_FILE, objective.config.model_dump(mode="json"), (HEADS_FILE,), write)


def _pooled(model: DualEncoder, text: TextInput) -> Tensor:
    if isinstance(text, Tensor):
        raise ConfigError("model.text.train: tasks train the text tower; set it to full or lora")
    assert model.text is not None
    pooled: Tensor = model.text(text)
    return pooled
