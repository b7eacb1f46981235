"""From a RunConfig to everything a run needs: data read, model and method built, evaluation chosen."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from dalr.data.faults import shuffle_captions
from dalr.data.groups import carve_dev
from dalr.data.manifest import BadRow, Manifest
from dalr.data.texts import read_corpus, read_triplets
from dalr.errors import ConfigError, DataError
from dalr.evaluation.parts import Part, retrieval_evaluator
from dalr.evaluation.sts import sts_dev
from dalr.files import hash_json
from dalr.model import DualEncoder
from dalr.noise import NoiseConfig, PairWeights, build_pair_weights
from dalr.objectives import AlignmentObjective, Features, Kind, ObjectiveConfig, Rows, build_objective
from dalr.run.config import DataSection, RunConfig
from dalr.trainer import TrainConfig
from dalr.training_data import TrainingData, add_teachers, pair_rows, photo_keys, text_column, text_rows

Progress = Callable[[int, int], None]
SAMPLE_ROWS, SAMPLE_BATCH = 2048, 64


@dataclass(frozen=True)
class Plan:
    """Everything a run needs, read and built."""

    model: DualEncoder
    objective: AlignmentObjective
    data: TrainingData
    train_config: TrainConfig
    evaluate: Callable[[DualEncoder], dict[str, float]] | None
    val: Manifest | None
    inputs: dict[str, str]
    train_rows: int
    bad: list[BadRow]


def assemble(config: RunConfig, embedding: Progress | None = None) -> Plan:
    """Read the data, build model, objective and evaluation; the same config gives the same plan."""
    data = config.data
    train, dev, val = load_parts(data, config.train.seed)
    corpus, bad_lines = read_corpus(data.corpus) if data.corpus else ([], [])
    triplets, bad_triplets = read_triplets(data.triplets) if data.triplets else (None, [])
    texts = [*(train.texts if train else []), *corpus, *(triplets[0] if triplets else [])]
    torch.manual_seed(config.train.seed)
    model = DualEncoder.build(config.model, corpus=[text for text in texts if text])
    inputs = {"model": hash_json([model.fingerprint("text"), model.fingerprint("image") if model.image else ""])}

    cache = Path(data.cache) if data.cache else None
    build = partial(pair_rows, model=model, cache=cache, progress=embedding)
    needs = set(config.objective.kinds)
    rows: dict[Kind, Rows] = {}
    if train is not None and "pairs" in needs:
        train, rows["pairs"] = build(train)
    if "text" in needs and (triplets or corpus or "pairs" not in needs):
        rows["text"] = sentences(train, corpus, triplets, model, cache, embedding)
    if not rows:
        raise ConfigError(f"data.train: the objective {config.objective.name} trains on pairs; name a manifest")
    if "pairs" in rows and train is not None:
        captions = [text or "" for text in train.texts]
        rows["pairs"] = add_teachers(config.teachers, rows["pairs"], captions, train, cache)
    if "text" in rows:
        rows["text"] = add_teachers(config.teachers, rows["text"], sentence_texts(train, corpus, triplets), None, cache)
    inputs |= {"data.train": train.fingerprint() if train else "", "texts": hash_json([corpus, triplets])}
    standardise_heads(model, rows)
    weights = pair_weights(config.noise, rows.get("pairs")) if config.objective.pair_weights else None
    torch.manual_seed(config.train.seed)
    objective = build_objective(config.objective, model, pair_weights=weights)
    pictures = model.image is not None
    if val is not None and pictures and not len(val.pairs()):
        raise DataError(f"data.val: {val.source}: no row has both an image and a text to measure retrieval on")
    selecting = Part(*build(dev)) if dev is not None and pictures and config.evaluation.retrieval else None
    evaluate, metric = choose_evaluation(config.objective, config.train.metric, selecting, config.evaluation.sts)
    train_config = config.train.model_copy(update={"metric": metric})
    stream = TrainingData(
        rows,
        mix=data.mix,
        batch_size=train_config.batch_size // train_config.accumulate,
        seed=config.train.seed,
        fingerprint=inputs["data.train"] + inputs["texts"],
    )
    count = sum(len(part) for part in rows.values())
    bad = [*(train.bad if train is not None else []), *bad_lines, *bad_triplets]
    return Plan(model, objective, stream, train_config, evaluate, val if pictures else None, inputs, count, bad)


def sentences(
    train: Manifest | None,
    corpus: Sequence[str],
    triplets: tuple[list[str], list[str], list[str]] | None,
    model: DualEncoder,
    cache: Path | None,
    embedding: Progress | None,
) -> Rows:
    """The text-only training set: triplets, else the corpus, else the captions of the manifest."""
    if triplets is not None:
        columns = [text_column(column, model, cache, embedding) for column in triplets[1:]]
        anchors = text_rows(triplets[0], model, cache=cache, progress=embedding)
        return replace(anchors, positive=columns[0], negative=columns[1])
    return text_rows(sentence_texts(train, corpus, triplets), model, cache=cache, progress=embedding)


def sentence_texts(
    train: Manifest | None, corpus: Sequence[str], triplets: tuple[list[str], list[str], list[str]] | None
) -> Sequence[str]:
    """The (anchor) sentences of the text-only training set, in the order of its rows."""
    if triplets is not None:
        return triplets[0]
    return corpus or [text for text in (train.texts if train else []) if text]


def pair_weights(config: NoiseConfig, rows: Rows | None) -> PairWeights | None:
    """Pair weights of the paired rows, from the teachers' embeddings where both sides have one."""
    if rows is None:
        return None
    text = rows.text_teachers[0].array if rows.text_teachers else None
    image = rows.image_teachers[0].array if rows.image_teachers else None
    return build_pair_weights(config, text, image, rows.ids_NK)


def standardise_heads(model: DualEncoder, rows: Mapping[Kind, Rows]) -> None:
    """Fit the heads' input standardisation, where it is on and not yet set, to the features training starts from."""
    if "pairs" not in rows:
        return
    pairs = rows["pairs"]
    for head, column, tower in (
        (model.text_head, pairs.text, model.text),
        (model.image_head, pairs.image, model.image),
    ):
        if head is None or column is None or not head.config.standardise or head.fitted:
            continue
        # Of a tower in training, a sample is enough: its features will move anyway.
        share = 1 if isinstance(column, Features) else max(1, len(pairs) // SAMPLE_ROWS)
        chosen = np.arange(0, len(pairs), share)
        features = []
        with torch.inference_mode():
            for start in range(0, len(chosen), SAMPLE_BATCH):
                block = chosen[start : start + SAMPLE_BATCH]
                inputs = column.take(block, block)
                if tower is not None and not isinstance(column, Features):
                    inputs = tower(inputs)
                assert isinstance(inputs, torch.Tensor)
                features.append(inputs.numpy())
        head.fit_input(np.concatenate(features))


def choose_evaluation(
    objective: ObjectiveConfig, metric: str | None, dev: Part | None, sts: str | None
) -> tuple[Callable[[DualEncoder], dict[str, float]] | None, str | None]:
    """What is measured while training, and the metric that selects the best weights: `metric`, or the first.

    Raises ConfigError for a metric where nothing is measured.
    """
    measures: list[Callable[[DualEncoder], dict[str, float]]] = []
    default = None
    if sts:
        measures.append(partial(sts_dev, folder=Path(sts)))
        default = "sts_dev"
    if dev is not None and objective.uses_images:
        measures.append(retrieval_evaluator(dev))
        default = default or "mrr"
    if not measures:
        if metric:
            raise ConfigError(f"train.metric={metric}: nothing is measured; name data.val or evaluation.sts")
        return None, None

    def evaluate(model: DualEncoder) -> dict[str, float]:
        return {name: value for measure in measures for name, value in measure(model).items()}

    return evaluate, metric or default


def load_part(data: DataSection, source: str | None, split: str) -> Manifest | None:
    """The rows of `split` where the source has such a part, else all of them (a file for each part)."""
    if source is None:
        return None
    manifest = Manifest.load(source, data)
    if manifest.split is None or (data.train != data.val and split not in manifest.split):
        return manifest
    return manifest.part(split)


def load_parts(data: DataSection, seed: int) -> tuple[Manifest | None, Manifest | None, Manifest | None]:
    """(train, dev, val) manifests; dev is carved from train by group, or is val where nothing is carved."""
    train = load_part(data, data.train, data.train_split)
    val = load_part(data, data.val, data.val_split)
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
