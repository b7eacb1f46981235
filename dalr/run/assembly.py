"""From a RunConfig to everything a run needs: data read, model and method built, evaluation chosen."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from dalr.data.faults import shuffle_captions
from dalr.data.groups import carve_dev
from dalr.data.manifest import BadRow, DataConfig, Manifest
from dalr.data.scored_pairs import ScoredPairs, ScoresConfig, read_scored_pairs
from dalr.errors import ConfigError, DataError
from dalr.evaluation.leaks import LeakCheck
from dalr.evaluation.parts import Part, retrieval_evaluator
from dalr.evaluation.retrieval import FIGURES
from dalr.evaluation.sts import FILES, pairs_dev, sts_dev_evaluator
from dalr.files import hash_file, hash_json
from dalr.model import DualEncoder
from dalr.objectives import Kind, Objective, Rows
from dalr.progress import ProgressSink
from dalr.run.config import DataSection, RunConfig
from dalr.run.texts import read_texts, sentence_rows
from dalr.schedule import Restarts
from dalr.train_config import TrainConfig
from dalr.trainer import TrainData
from dalr.training_data import (
    TrainingData,
    add_teachers,
    caption_rows,
    pair_rows,
    pair_weights,
    photo_keys,
    standardise_heads,
    taught_objective,
    teacher_fingerprints,
)

logger = logging.getLogger(__name__)


Data = TypeVar("Data", bound=TrainData)


@dataclass(frozen=True)
class Plan(Generic[Data]):
    """Everything a run needs, read and built; `save` writes what belongs beside the model into the run folder."""

    model: DualEncoder
    objective: Objective
    data: Data
    train_config: TrainConfig
    evaluate: Callable[[DualEncoder], dict[str, float]] | None
    val: Manifest | None
    inputs: dict[str, str]
    train_rows: int
    bad: list[BadRow]
    leaks: dict[str, Any] | None = None
    save: Callable[[Path], None] | None = None
    restarts: Restarts | None = None


def assemble(config: RunConfig, embedding: ProgressSink | None = None) -> Plan[TrainingData]:
    """Read the data, build model, objective and evaluation; the same config gives the same plan."""
    data = config.data
    train, dev, val = load_parts(data, config.train.seed)
    check = LeakCheck.load(config.leaks)
    texts = read_texts(data, check)
    if train is not None and check is not None:
        train = train.select(np.flatnonzero(check.kept_texts([text or "" for text in train.texts])))
    captioned = [text for text in train.texts if text] if train is not None else []
    if train is not None and not captioned and not texts:
        named = ", ".join(f"'{name}'" for name in train.columns) or "none"
        raise DataError(f"{train.source}: no row has a text; name its column with data.text (columns left: {named})")
    torch.manual_seed(config.train.seed)
    model = DualEncoder.build(config.model, corpus=[*captioned, *texts.everything()])
    inputs = {"model": hash_json([model.fingerprint("text"), model.fingerprint("image") if model.image else ""])}

    cache = Path(data.cache) if data.cache else None
    build = partial(pair_rows, model=model, cache=cache, progress=embedding)
    needs = set(config.objective.kinds)
    rows: dict[Kind, Rows] = {}
    if train is not None and "pairs" in needs:
        train, rows["pairs"] = build(train)
    elif train is not None and texts and (data.mix or {}).get("pairs"):
        # Of the rows that have a photo which can be read, so that all methods have the same batches.
        train, paired = build(train) if model.image else caption_rows(train, model, cache=cache, progress=embedding)
        rows["pairs"] = replace(paired, image=None)
    if "text" in needs and (texts or "pairs" not in needs):
        rows["text"] = sentence_rows(texts, data, train, model, cache, embedding)
    if not rows:
        raise ConfigError(f"data.train: the objective {config.objective.name} trains on pairs; name a manifest")
    teachers = [teacher for teacher in config.teachers if teacher.side in config.objective.taught_sides]
    said: dict[Kind, Sequence[str]] = {"text": texts.anchors() or captioned} if "text" in rows else {}
    if "pairs" in rows and train is not None:
        said["pairs"] = [text or "" for text in train.texts]
    rows = add_teachers(teachers, rows, said, train if config.objective.uses_images else None, cache)
    for kind, share in (data.mix or {}).items():
        if share and kind not in rows:
            wanted = "data.corpus, data.triplets or data.scores" if kind == "text" else "a manifest in data.train"
            raise ConfigError(f"data.mix: there is nothing to make steps of {kind} of; name {wanted}")
    inputs |= {"data.train": train.fingerprint() if train else "", "texts": texts.fingerprint()}
    if "pairs" in rows and train is not None:
        inputs["photos"] = hash_json(rows["pairs"].photo_keys)
    inputs |= teacher_fingerprints(teachers, rows)
    standardise_heads(model, rows)
    weights = pair_weights(config.noise, rows.get("pairs")) if config.objective.pair_weights else None
    torch.manual_seed(config.train.seed)
    objective = taught_objective(config.objective, model, rows, teachers, weights)
    pictures = model.image is not None and config.objective.uses_images
    if val is not None and pictures and not len(val.pairs()):
        raise DataError(f"data.val: {val.source}: no row has both an image and a text to measure retrieval on")
    selecting = Part(*build(dev)) if dev is not None and pictures and config.evaluation.retrieval else None
    measures = choose_measures(selecting, config.evaluation.sts, config.evaluation.pairs)
    inputs |= {"data.val": val.fingerprint() if val else "", "evaluation": measures.fingerprint}
    train_config = measures.selecting(config.train)
    stream = TrainingData(
        rows,
        mix={str(kind): share for kind, share in data.mix.items()} if data.mix else None,
        batch_size=train_config.batch_size // train_config.accumulate,
        seed=config.train.seed,
        fingerprint=inputs["data.train"] + inputs["texts"],
    )
    count = sum(len(part) for part in rows.values())
    bad = [*(train.bad if train is not None else []), *texts.bad]
    leaks = check.report.as_json() if check is not None else None
    shown = val if pictures else None
    return Plan(model, objective, stream, train_config, measures.evaluate, shown, inputs, count, bad, leaks)


@dataclass(frozen=True)
class Measures:
    """What is measured while training: None where nothing is, the names of its figures, and a hash of what it reads."""

    evaluate: Callable[[DualEncoder], dict[str, float]] | None
    names: list[str]
    fingerprint: str

    def selecting(
        self, train: TrainConfig, remedy: str = "name data.val, evaluation.sts or evaluation.pairs"
    ) -> TrainConfig:
        """`train` with the metric that selects the best weights: where it names none, the first that is measured.

        Raises ConfigError for a metric that is not; `remedy` says how anything would be.
        """
        train = train.model_copy(update={"metric": train.metric or next(iter(self.names), None)})
        train.check_measured(self.names, remedy)
        return train


def choose_measures(dev: Part | None, sts: str | None, pairs: Mapping[str, ScoresConfig] | None = None) -> Measures:
    """The STS-B dev part of the folder `sts`, files of scored pairs by name, and retrieval on a part."""
    measures: list[Callable[[DualEncoder], dict[str, float]]] = []
    names: list[str] = []
    read: list[str] = []
    if sts:
        measures.append(sts_dev_evaluator(sts))
        names.append("sts_dev")
        read.append(hash_file(Path(sts) / FILES["STSB-dev"]))
    for name, source in (pairs or {}).items():
        scored, bad = read_scored_pairs(source.path, low=source.low, high=source.high)
        if bad:
            logger.warning(
                "evaluation.pairs.%s: %d rows left out; the first, %s: %s", name, len(bad), bad[0].where, bad[0].reason
            )
        measures.append(partial(named_pairs, name=name, pairs=scored))
        names += [f"{name}.spearman", f"{name}.pearson"]
        read.append(hash_file(source.path))
    if dev is not None:
        measures.append(retrieval_evaluator(dev))
        names += FIGURES
        read.append(dev.manifest.fingerprint())

    def evaluate(model: DualEncoder) -> dict[str, float]:
        return {name: value for measure in measures for name, value in measure(model).items()}

    return Measures(evaluate if measures else None, names, hash_json(read) if read else "")


def named_pairs(model: DualEncoder, name: str, pairs: ScoredPairs) -> dict[str, float]:
    """The correlations on one file of scored pairs, as `NAME.spearman` and `NAME.pearson`."""
    return {f"{name}.{measure}": value for measure, value in pairs_dev(model, pairs).items()}


def load_part(source: str | Path, columns: DataConfig, split: str, *, shared: bool) -> Manifest:
    """The rows of `split`, or all of a source that does not tell parts apart (a file for each part).

    Raises DataError where train and val are `shared`, that is in one source, and it does not tell them apart, and for a
    source that has parts, but not this one.
    """
    manifest = Manifest.load(source, columns)
    parts = {value for value in manifest.split or [] if value}
    if not shared and len(parts) < 2 and not manifest.split_rows(split):
        return manifest
    return manifest.part(split)


def one_source(train: str | Path | None, val: str | Path | None) -> bool:
    """Whether both name one file or folder, however they are written."""
    if train is None or val is None:
        return False
    return str(train) == str(val) or (Path(train).exists() and Path(val).exists() and Path(train).samefile(val))


def load_parts(data: DataSection, seed: int) -> tuple[Manifest | None, Manifest | None, Manifest | None]:
    """(train, dev, val) manifests; dev is carved from train by group, or is val where nothing is carved."""
    shared = one_source(data.train, data.val)
    train = load_part(data.train, data, data.train_split, shared=shared) if data.train else None
    val = load_part(data.val, data, data.val_split, shared=shared) if data.val else None
    if train is None:
        return None, val, val
    dev = val
    if data.dev:
        train_rows, dev_rows = carve_dev(train.ids(photo_keys(train)), data.dev, seed)
        train, dev = train.select(train_rows), train.select(dev_rows)
    if data.shuffle_captions:
        # What is measured keeps its own captions.
        train = shuffle_captions(train, data.shuffle_captions, seed)
    return train, dev, val
