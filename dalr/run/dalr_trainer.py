"""`DALRTrainer`: the method on a person's own manifests, from Python, in one call."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from dalr.config import parse_config
from dalr.data.manifest import DataConfig, Manifest
from dalr.errors import ConfigError
from dalr.evaluation.parts import Part
from dalr.files import hash_json
from dalr.model import DualEncoder
from dalr.noise import NoiseConfig
from dalr.objectives import Kind, ObjectiveConfig, Rows
from dalr.run.assembly import choose_measures, load_part, one_source
from dalr.teachers import TeacherConfig
from dalr.train_config import TrainConfig
from dalr.trainer import Trainer
from dalr.training_data import (
    TrainingData,
    add_teachers,
    pair_rows,
    pair_weights,
    standardise_heads,
    taught_objective,
    teacher_fingerprints,
    text_rows,
)


class DALRTrainer(Trainer):
    """`Trainer` with the DALR objective, its streams and its evaluation built from manifests.

        DALRTrainer(model, "train.csv", "val.csv", profile="catalogue", config=TrainConfig(epochs=20)).fit()

    Args:
        model: its frozen towers are run once and cached; the others learn.
        train: a manifest, or the path of one (columns are guessed; its train part where it has one).
        val: a manifest or path (its val part) that selects the best weights; None keeps the last ones.
        profile: `catalogue` for retrieval on product data, `paper` for sentence embeddings.
        corpus: sentences for text-only steps, one of them after every step on pairs.
        sts: an STS folder whose STS-B dev part selects the best weights.
        teachers: encoders whose similarities the model learns from; a frozen tower is one of its own accord.
        objective: a whole ObjectiveConfig instead of a profile.
        config, out, progress: as for `Trainer`.
    """

    def __init__(
        self,
        model: DualEncoder,
        train: Manifest | str | Path,
        val: Manifest | str | Path | None = None,
        *,
        profile: str = "catalogue",
        corpus: Sequence[str] = (),
        sts: str | Path | None = None,
        teachers: Sequence[TeacherConfig] = (),
        objective: ObjectiveConfig | None = None,
        config: TrainConfig | None = None,
        out: str | Path | None = None,
        progress: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        method = objective or parse_config(ObjectiveConfig, {"name": "dalr", "profile": profile}, "profile")
        settings = config or TrainConfig()
        columns = DataConfig()
        paths = [None if isinstance(source, Manifest) else source for source in (train, val)]
        shared = one_source(*paths)
        if not isinstance(train, Manifest):
            train = load_part(train, columns, columns.train_split, shared=shared)
        if val is not None and not isinstance(val, Manifest):
            val = load_part(val, columns, columns.val_split, shared=shared)
        train, rows = pair_rows(train, model)
        sets: dict[Kind, Rows] = {"pairs": rows}
        texts: dict[Kind, Sequence[str]] = {"pairs": [text or "" for text in train.texts]}
        inputs = {"data.train": train.fingerprint(), "photos": hash_json(rows.photo_keys)}
        if corpus:
            if "text" not in method.kinds:
                raise ConfigError(f"corpus: objective {method.name} has no term that learns from texts alone")
            inputs["corpus"] = hash_json(list(corpus))
            sets["text"], texts["text"] = text_rows(corpus, model), corpus
        teachers = [teacher for teacher in teachers if teacher.side in method.taught_sides]
        sets = add_teachers(teachers, sets, texts, train, None)
        inputs |= teacher_fingerprints(teachers, sets)
        standardise_heads(model, sets)
        weights = pair_weights(NoiseConfig(), sets["pairs"]) if method.pair_weights else None
        part = Part(*pair_rows(val, model)) if val is not None else None
        measures = choose_measures(part if method.uses_images else None, str(sts) if sts else None)
        settings = measures.selecting(settings, "give val or sts")
        data = TrainingData(
            sets,
            batch_size=settings.batch_size // settings.accumulate,
            seed=settings.seed,
            fingerprint=inputs["data.train"] + hash_json(list(corpus)),
        )
        data.warn_of_large_batches(settings.accumulate)
        torch.manual_seed(settings.seed)
        built = taught_objective(method, model, sets, teachers, weights)
        inputs |= {"data.val": part.manifest.fingerprint() if part else "", "evaluation": measures.fingerprint}
        super().__init__(
            model, built, data, settings, out=out, evaluate=measures.evaluate, progress=progress, inputs=inputs
        )
