"""`RunConfig`, the root of every training config: it composes the configs that the components own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from dalr.config import Config, load_config
from dalr.data.manifest import DataConfig
from dalr.data.scored_pairs import ScoresConfig
from dalr.evaluation.leaks import LeakConfig
from dalr.model import ModelConfig
from dalr.noise import NoiseConfig
from dalr.objectives import ObjectiveConfig
from dalr.teachers import TeacherConfig
from dalr.train_config import TrainConfig


class DataSection(DataConfig):
    """What a run reads: manifests and columns (see `DataConfig`), and what is done to the training part.

    `corpus` is a text file with one sentence a line, for text-only steps, which `mix` mixes in as whole numbers of
    steps by kind; where it names pairs, a method that looks at no image trains on their captions in the same batches.
    `triplets` is a CSV with the columns anchor, positive and negative, `scores` are files of sentence pairs with
    people's scores; a run learns from one of the three, their first texts read under `anchor_prompt`, the others under
    `partner_prompt` (the encoder's named prompts, or their text). `shuffle_captions` moves that share of the training
    captions to other rows, to measure what noise does. `dev` carves that share of train, by group, for selection, so
    that `val` only reports.
    """

    corpus: str | None = None
    scores: list[ScoresConfig] = Field(default_factory=list)
    triplets: str | None = None
    anchor_prompt: str | None = None
    partner_prompt: str | None = None
    mix: dict[Literal["pairs", "text"], Annotated[int, Field(ge=0)]] | None = None
    shuffle_captions: Annotated[float, Field(ge=0, le=1)] = 0.0
    cache: str | None = None


class EvaluationConfig(Config):
    """What is measured while training, to keep the best weights.

    `retrieval` on the dev part (`data.dev`, else `data.val`); false leaves `val` for the final report alone and keeps
    the last weights. `sts` is a folder whose STS-B dev part gives `sts_dev`; `pairs` are files of scored pairs, each
    under a name, which give `NAME.spearman` and `NAME.pearson`.
    """

    retrieval: bool = True
    sts: str | None = None
    pairs: dict[str, ScoresConfig] = Field(default_factory=dict)


class RunConfig(Config):
    """The root of every training config; each section is documented where its component lives."""

    data: DataSection = DataSection()
    model: ModelConfig
    objective: ObjectiveConfig = ObjectiveConfig()
    teachers: list[TeacherConfig] = Field(default_factory=list)
    noise: NoiseConfig = NoiseConfig()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    leaks: LeakConfig = LeakConfig()

    @model_validator(mode="after")
    def _check(self) -> "RunConfig":
        data = self.data
        texts = [name for name in ("corpus", "triplets", "scores") if getattr(data, name)]
        if not (data.train or texts):
            raise ValueError("data.train: name a manifest (or data.corpus, data.triplets, data.scores for texts alone)")
        if len(texts) > 1:
            raise ValueError(f"data.{texts[0]} and data.{texts[1]}: a run learns from one of them; make each a stage")
        if texts and "text" not in self.objective.kinds:
            raise ValueError(
                f"data.{texts[0]}: objective {self.objective.name} has no term that learns from texts alone; leave it "
                "out, or set objective.info or objective.distil_text"
            )
        if bool(self.objective.score) != bool(data.scores):
            lacking, there = (
                ("data.scores", "objective.score") if self.objective.score else ("objective.score", "data.scores")
            )
            raise ValueError(f"{there} is set and {lacking} is not: set both, or neither")
        return self


def load_run_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a training config; ConfigError names the key that is wrong."""
    return load_config(RunConfig, path, overrides)
