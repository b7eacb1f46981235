"""The config of a pipeline: sections that all stages share, and the stages, each with what it changes.

A stage becomes an ordinary training config: the shared sections, what its kind is about, and what it sets itself,
each over the one before.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field, model_validator

from dalr.config import Config, nearest
from dalr.simcse.multitask import Sampling
from dalr.simcse.tasks import TaskConfig, TaskName

StageKind = Literal["sts", "unsup", "sup", "rank", "distil", "tasks", "whiten", "centre"]
Section = dict[str, Any]
# What of the text section belongs to the encoder that a pipeline starts from, not to the model of the stage before.
START_ONLY = ("pretrained", "new", "truncate_dim")


@dataclass(frozen=True)
class Kind:
    """What a kind of stage is: the key of `data` that it reads, the sections that it sets, whether it only fits.

    One that is `fitted` to embeddings trains nothing; a kind that sets no `objective` takes none.
    """

    reads: str
    sections: Mapping[str, Section] = field(default_factory=dict)
    fitted: bool = False


KINDS: dict[str, Kind] = {
    "sts": Kind("scores", {"objective": {"name": "sts"}}),
    "unsup": Kind("corpus", {"objective": {"name": "simcse"}}),
    "sup": Kind("triplets", {"objective": {"name": "simcse"}}),
    "rank": Kind("corpus", {"objective": {"name": "rankcse"}}),
    "distil": Kind("corpus", {"objective": {"name": "distil"}}),
    "tasks": Kind(""),
    "whiten": Kind("corpus", fitted=True),
    "centre": Kind("corpus", fitted=True),
}


class StageConfig(Config):
    """One stage. `kind` is by default its name; `data`, `model`, … are sections of a training config.

    - `sts` regression on scored pairs (`data.scores`) · `unsup` SimCSE's two dropout views of a sentence
      (`data.corpus`) · `sup` entailed sentences against their contradictions (`data.triplets`)
    - `rank` RankCSE and `distil` distillation, from `teachers` on `data.corpus`
    - `tasks` the classification and regression tasks of `tasks`, mixed by `sampling`: as many steps for each, or
      (`size`) as its rows ask for
    - `whiten`, `centre` fitted to the embeddings of `data.corpus`, nothing is trained; `dim` cuts what is whitened
    """

    kind: StageKind | None = None
    data: Section = Field(default_factory=dict)
    model: Section = Field(default_factory=dict)
    objective: Section = Field(default_factory=dict)
    teachers: list[Section] = Field(default_factory=list)
    train: Section = Field(default_factory=dict)
    tasks: dict[TaskName, TaskConfig] = Field(default_factory=dict)
    sampling: Sampling = "round_robin"
    dim: int | None = Field(default=None, ge=1)


class PipelineConfig(Config):
    """A pipeline: `model.text` is the encoder it starts from, `stages` its stages by name, `order` which and in what.

    `data`, `train`, `evaluation` and `leaks` hold for every stage that does not say otherwise. `order` is by default
    all stages as they are written.
    """

    data: Section = Field(default_factory=dict)
    model: Section
    train: Section = Field(default_factory=dict)
    evaluation: Section = Field(default_factory=dict)
    leaks: Section = Field(default_factory=dict)
    stages: dict[str, StageConfig]
    order: list[str] | None = None

    @model_validator(mode="after")
    def _check(self) -> "PipelineConfig":
        if not self.names:
            raise ValueError("stages: a pipeline needs at least one stage")
        for name in self.names:
            if name not in self.stages:
                raise ValueError(f"order: there is no stage '{name}'; {nearest(name, list(self.stages))}")
            if self.stages[name].kind is None and name not in KINDS:
                raise ValueError(
                    f"stages.{name}.kind: name one of {', '.join(KINDS)} (a stage may be named by its kind)"
                )
            if self.kind(name) == "tasks" and not self.stages[name].tasks:
                raise ValueError(f"stages.{name}.tasks: a stage of kind tasks needs them")
            for section in ("objective", "teachers"):
                if getattr(self.stages[name], section) and "objective" not in KINDS[self.kind(name)].sections:
                    raise ValueError(
                        f"stages.{name}.{section}: a stage of kind {self.kind(name)} has none of its own; leave it out"
                    )
        for name in self.names[1:]:
            given = self.stages[name].model.get("text")
            if isinstance(given, Mapping) and "name" in given:
                raise ValueError(
                    f"stages.{name}.model.text.name: it goes on from the model of the stage before; leave the name out"
                )
        if len(set(self.names)) < len(self.names):
            raise ValueError("order: a stage is named twice; give the second run of it a name of its own")
        return self

    @property
    def names(self) -> list[str]:
        """The stages to run, in order."""
        return list(self.stages) if self.order is None else self.order

    def kind(self, name: str) -> str:
        """The kind of a stage."""
        return self.stages[name].kind or name

    def values(self, name: str, start: str | None = None) -> Section:
        """The training config of a stage as plain values; `start` is the model folder that it goes on from."""
        stage, kind = self.stages[name], KINDS[self.kind(name)]
        shared = {"data": self.data, "model": self.model, "train": self.train, "leaks": self.leaks}
        own = {part: getattr(stage, part) for part in ("data", "model", "objective", "train")}
        values = merged(merged({**shared, "evaluation": self.evaluation}, kind.sections), own)
        if stage.teachers:
            values["teachers"] = stage.teachers
        text = {"train": "full", **values["model"].get("text", {})}
        if start is not None:
            text = {key: value for key, value in text.items() if key not in START_ONLY} | {"name": start}
        values["model"] = {**values["model"], "text": text}
        return values


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`below` with the values of `above`, section by section; a list or a value is replaced whole."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result
