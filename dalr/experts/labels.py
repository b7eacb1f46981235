"""Labelling: every expert's scores, calibrated and joined into soft labels, and a table of them.

Legend: A experts · P pairs.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from dalr.config import Config
from dalr.data.columns import plain_name
from dalr.data.fetch import cache_root
from dalr.errors import DalrError, DataError, one_line
from dalr.experts.aggregation import AggregationConfig, aggregate, agreement_weights, soft_labels
from dalr.experts.calibration import CalibrationConfig, calibrate
from dalr.experts.judges import ExpertConfig, build_judge, checked, judge_key
from dalr.experts.pairs import JudgedConfig, JudgedPairs
from dalr.files import made_once, write_json
from dalr.progress import ProgressSink

Floats = npt.NDArray[np.float64]


class LabelConfig(Config):
    """The data's columns, the experts by name, and how their scores become labels."""

    data: JudgedConfig = JudgedConfig()
    experts: dict[str, ExpertConfig] = Field(min_length=1)
    calibration: CalibrationConfig = CalibrationConfig()
    aggregation: AggregationConfig = AggregationConfig()
    cache: str | None = None

    @model_validator(mode="after")
    def _names(self) -> "LabelConfig":
        for name in self.experts:
            if not name.replace("_", "").replace("-", "").isalnum():
                raise ValueError(f"experts: '{name}' is to be a column's name; use letters, digits, - and _")
        return self


@dataclass(frozen=True)
class Labels:
    """Soft labels of P pairs.

    Attributes:
        names: of the A experts.
        raw_AP: their scores, NaN where one has none.
        calibrated_AP: the same in 0 … 1, and the mean of the others' where one has none.
        label_P: soft labels in 0 … 1.
        weight_P: by the experts' agreement, in 0 … 1.
        reused: experts whose scores the cache held.
    """

    names: list[str]
    raw_AP: Floats
    calibrated_AP: Floats
    label_P: Floats
    weight_P: Floats
    reused: list[str] = field(default_factory=list)


def label_pairs(pairs: JudgedPairs, config: LabelConfig, progress: ProgressSink | None = None) -> Labels:
    """Let every expert judge the pairs, and make labels of what they say.

    An expert that fails does not keep the others from finishing: their scores are in the cache when DalrError names
    those that failed, with the reason of each. Raises DataError where labels are too few for a calibration.
    """
    raw: dict[str, Floats] = {}
    failed: dict[str, str] = {}
    reused: list[str] = []
    for number, (name, expert) in enumerate(config.experts.items()):
        try:
            raw[name], known = expert_scores(expert, pairs, config.cache)
            reused += [name] if known else []
        except DalrError as error:
            failed[name] = str(error)
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {one_line(error)}"
        if progress is not None:
            progress(number + 1, len(config.experts))
    if failed:
        told = "; ".join(f"experts.{name}: {reason}" for name, reason in failed.items())
        kept = f" (the scores of {', '.join(raw)} are kept)" if raw else ""
        raise DataError(f"{told}{kept}")
    pair_P = pairs.numbers()
    calibrated_AP = np.full((len(raw), len(pairs)), np.nan)
    for row_P, (name, expert) in zip(calibrated_AP, config.experts.items(), strict=True):
        said = np.flatnonzero(~np.isnan(raw[name]))
        label = None if pairs.label is None else pairs.label[said]
        try:
            row_P[said] = calibrate(raw[name][said], label, expert.calibration or config.calibration, pair_P[said])
        except DataError as error:
            raise DataError(f"experts.{name}: {error}") from None
    calibrated_AP = filled(calibrated_AP, pairs)
    weights_A = np.array([expert.weight for expert in config.experts.values()])
    joined_P = aggregate(calibrated_AP, config.aggregation, weights_A, pairs.label)
    return Labels(
        list(config.experts),
        np.stack(list(raw.values())),
        calibrated_AP,
        soft_labels(joined_P, pairs.label, config.aggregation.hard_share),
        agreement_weights(
            calibrated_AP, config.aggregation.disagreement, weights_A if config.aggregation.rule == "weighted" else None
        ),
        reused,
    )


def filled(scores_AP: Floats, pairs: JudgedPairs) -> Floats:
    """The scores with the mean of the others where an expert has none. DataError for a pair that has no score."""
    gaps_AP = np.isnan(scores_AP)
    silent = np.flatnonzero(gaps_AP.all(axis=0))
    if len(silent):
        raise DataError(
            f"{pairs.where[silent[0]]}: no expert has a score for this pair, nor for {len(silent) - 1:,} others; "
            "add an expert that scores every pair, or drop the rows"
        )
    return np.where(gaps_AP, np.nanmean(scores_AP, axis=0), scores_AP)


def expert_scores(config: ExpertConfig, pairs: JudgedPairs, cache: str | Path | None) -> tuple[Floats, bool]:
    """An expert's raw scores (P,), and whether they were there already."""
    judge = build_judge(config, cache)
    key = judge_key(judge, pairs)
    if key is None:
        return checked(judge.score(pairs), len(pairs), gaps=config.kind == "column"), False
    folder = (Path(cache) if cache is not None else cache_root()) / "experts" / key
    known = folder.is_dir()

    def make(fresh: Path) -> None:
        np.save(fresh / "scores.npy", checked(judge.score(pairs), len(pairs)), allow_pickle=False)
        write_json(fresh / "about.json", {"expert": config.model_dump(mode="json"), "pairs": len(pairs)})

    return np.load(made_once(folder, make) / "scores.npy", allow_pickle=False), known


def write_labels(path: str | Path, pairs: JudgedPairs, labels: Labels) -> None:
    """Write the pairs as Parquet, which `dalr train` takes.

    Columns: the two sides, `score` (the soft label), `weight` (the one that was there times the experts' agreement),
    `where`, `hard` (the label that was there), and of each expert `raw_NAME` and `calibrated_NAME`. Pairs of texts are
    for data.scores. A catalogue is for data.train, with its folder as data.root; a pair counts its soft label's part of
    its weight, and its id, group, split and other columns stay.
    """
    import pyarrow as pa

    weight_P = labels.weight_P if pairs.weight is None else labels.weight_P * pairs.weight
    columns: dict[str, Any] = {}
    if pairs.images is None:
        columns |= {"sentence1": pairs.first, "sentence2": pairs.second}
    else:
        photos = pairs.images
        if photos.stored is not None:
            raise DataError(
                f"{photos.source}: its photos lie in shards, which a table cannot point into; label a catalogue with "
                "image files (the experts' scores are kept)"
            )
        columns |= {"id": photos.keys} if photos.roles.id is not None else {}
        columns |= {"image": photos.images, "text": pairs.first, "group": photos.group, "split": photos.split}
        weight_P = weight_P * labels.label_P
    columns |= {"score": labels.label_P, "weight": weight_P, "where": pairs.where}
    if pairs.label is not None:
        columns["hard"] = [None if np.isnan(value) else float(value) for value in pairs.label]
    for name, raw, calibrated in zip(labels.names, labels.raw_AP, labels.calibrated_AP, strict=True):
        columns[f"raw_{name}"], columns[f"calibrated_{name}"] = pa.array(raw, from_pandas=True), calibrated
    if pairs.images is not None:
        # What a catalogue knows of its products, such as the columns that attribute teachers read.
        columns = {name: values for name, values in columns.items() if values is not None}
        taken = {plain_name(name) for name in columns}
        others = {name: values for name, values in pairs.images.columns.items() if plain_name(name) not in taken}
        columns |= {name: _of_one_type(values) for name, values in others.items()}
    _write_parquet(path, columns)


def write_held_out(path: str | Path, pairs: JudgedPairs) -> None:
    """Write pairs of texts and their hard labels as Parquet, which evaluation.pairs takes."""
    first, second = pairs.texts()
    _write_parquet(path, {"sentence1": first, "sentence2": second, "score": pairs.label, "where": pairs.where})


def _write_parquet(path: str | Path, columns: dict[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(path).with_name(f".{Path(path).name}.part")
    pq.write_table(pa.table(columns), temporary)
    temporary.replace(path)


def _of_one_type(values: list[Any]) -> list[Any]:
    """A column as Parquet can hold it: as it is where its cells are of one type, else as text."""
    kinds = {type(value) for value in values if value is not None}
    return values if len(kinds) < 2 else [None if value is None else str(value) for value in values]
