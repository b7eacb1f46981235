"""From a manifest and a model to numbered batches: features for frozen towers, tokens and pixels for the others."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dalr.data.groups import group_ids
from dalr.data.manifest import Manifest
from dalr.data.streams import MixedStreams, Stream, bits_for, process_slice
from dalr.encoders import ImageEncoder
from dalr.errors import DataError
from dalr.features import StoredRows, embed_images, embed_texts, image_keys
from dalr.files import hash_tensors
from dalr.model import DualEncoder, Table
from dalr.noise import NoiseConfig, PairWeights, build_pair_weights
from dalr.objectives import (
    AlignmentObjective,
    Batch,
    Features,
    Kind,
    ObjectiveConfig,
    Pixels,
    Rows,
    ScoredTexts,
    Tokens,
    build_objective,
)
from dalr.objectives.batch import Column
from dalr.progress import ProgressSink
from dalr.teachers import AttributeRows, TeacherConfig, read_pair_scores, teacher_rows

logger = logging.getLogger(__name__)
SAMPLE_ROWS, SAMPLE_BATCH = 2048, 64


class TrainingData:
    """Global batch `t` as a pure function of the seed, the rows and the batch size (see `data.streams`).

    Args:
        rows: the training sets by kind: `pairs`, `text` or both.
        batch_size: rows of a global batch.
        seed: of order and augmentation.
        fingerprint: of the data; another one gives another order.
        mix: whole numbers by kind, how many steps of each; None is one of each.
    """

    def __init__(
        self,
        rows: dict[Kind, Rows],
        *,
        batch_size: int,
        seed: int,
        fingerprint: str,
        mix: Mapping[Kind, int] | None = None,
    ) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self.seed = seed
        streams = {kind: Stream(len(part), batch_size, seed, f"{fingerprint}/{kind}") for kind, part in rows.items()}
        ratio = {kind: (mix or {}).get(kind, 0 if mix else 1) for kind in rows}
        self.stream = MixedStreams(streams, ratio)
        # An epoch is one pass over the pairs where there are any, with the text steps mixed in between; of several
        # tasks, over the one whose pass takes longest.
        self.drawn: list[Kind] = [kind for kind in rows if ratio[kind]]
        main: Kind = (
            "pairs" if "pairs" in self.drawn else max(self.drawn, key=lambda kind: len(rows[kind]) / ratio[kind])
        )
        self.batches_per_epoch = len(rows[main]) / batch_size * sum(ratio.values()) / ratio[main]
        self.prefetch = any(not isinstance(column, Features) for part in rows.values() for column in _columns(part))

    def warn_of_large_batches(self, accumulate: int) -> None:
        """Say of which rows a batch takes some more than once; `accumulate` batches are one of `train.batch_size`."""
        for kind in self.drawn:
            count = len(self.rows[kind])
            if count < self.batch_size:
                logger.warning(
                    "a batch of %d is more than the %d rows of %s: rows repeat in it and contrast less; set "
                    "train.batch_size to at most %d",
                    *(self.batch_size, count, kind, count * accumulate),
                )

    def batch(self, t: int, rank: int = 0, world: int = 1) -> Batch:
        """The rows of global batch `t` that process `rank` of `world` computes."""
        kind = self.stream.kind(t)
        seeds = bits_for("rows", self.seed, t).random_raw(self.batch_size) >> np.uint64(1)
        chosen = process_slice(self.stream.rows(t), rank, world)
        return self.rows[kind].batch(kind, chosen, process_slice(seeds.astype(np.int64), rank, world))


def _columns(rows: Rows) -> list[Column]:
    return [column for column in (rows.text, rows.image, rows.positive, rows.negative) if column is not None]


def photo_keys(manifest: Manifest) -> list[str | None]:
    """The content key of each row's photo; None where there is none that can be read."""
    sources: list[Any] = []
    for row in range(len(manifest)):
        try:
            sources.append(manifest.image_source(row))
        except DataError:
            sources.append(None)
    return image_keys(sources)


def text_column(
    texts: Sequence[str],
    model: DualEncoder,
    cache: Path | None,
    progress: ProgressSink | None,
    prompt: str | None = None,
) -> Column:
    """Features where the text tower is frozen, else tokens; `prompt` as `encode_text` takes it."""
    assert model.text is not None
    if model.text.train_mode == "frozen":
        return Features(embed_texts(texts, model.text, cache, progress, prompt))
    return Tokens(model.text.tokenize(list(texts), prompt), partial(model.text.collate, prompt=prompt))


def pair_rows(
    manifest: Manifest, model: DualEncoder, *, cache: Path | None = None, progress: ProgressSink | None = None
) -> tuple[Manifest, Rows]:
    """The paired training set of a manifest, less the rows whose photo cannot be read (added to its `bad`).

    Raises DataError where the model has no image tower, or no row has both a text and a readable photo.
    """
    if model.image is None:
        raise DataError(f"{manifest.source}: holds images, but the model has no image tower; set model.image")
    manifest = manifest.select(manifest.pairs())
    keys = photo_keys(manifest)
    stored = None
    if model.image.train_mode == "frozen":
        numbers = range(len(manifest))
        stored, bad = embed_images(numbers, model.image, manifest.open_image, cache, progress, keys)
        reasons = {item.position: item.reason for item in bad}
    else:
        reasons = unreadable(manifest, progress)
    good = np.array([row for row in range(len(manifest)) if row not in reasons], dtype=np.int64)
    if not len(good):
        example = next(iter(reasons.values()), "no row has both an image and a text")
        raise DataError(f"{manifest.source}: no pair of image and text can be used ({example})")
    refused = [manifest.bad_row(row, reason) for row, reason in reasons.items()]
    kept = replace(manifest.select(good), bad=[*manifest.bad, *refused])
    texts = [text or "" for text in kept.texts]
    kept_keys = [keys[row] for row in good]
    rows = Rows(
        ids_NK=kept.ids(kept_keys),
        weight_N=kept.weight,
        photo_keys=kept_keys,
        text=text_column(texts, model, cache, progress),
        image=Features(stored.select(good)) if stored else _pixels(kept, model.image),
    )
    return kept, rows


def caption_rows(
    manifest: Manifest, model: DualEncoder, *, cache: Path | None = None, progress: ProgressSink | None = None
) -> tuple[Manifest, Rows]:
    """The pairs as a method that looks at no image sees them: their captions, in the batches that pairs would make."""
    kept = manifest.select(manifest.pairs())
    texts = [text or "" for text in kept.texts]
    keys = photo_keys(kept)
    text = text_column(texts, model, cache, progress)
    return kept, Rows(ids_NK=kept.ids(keys), weight_N=kept.weight, photo_keys=keys, text=text)


def text_rows(
    texts: Sequence[str],
    model: DualEncoder,
    *,
    cache: Path | None = None,
    progress: ProgressSink | None = None,
    prompt: str | None = None,
) -> Rows:
    """A training set of texts alone, under the encoder's default prompt or another; equal texts are one group."""
    return Rows(
        ids_NK=group_ids([None] * len(texts), texts),
        weight_N=np.ones(len(texts), dtype=np.float32),
        text=text_column(texts, model, cache, progress, prompt),
    )


def add_teachers(
    teachers: Sequence[TeacherConfig],
    rows: Mapping[Kind, Rows],
    texts: Mapping[Kind, Sequence[str]],
    manifest: Manifest | None,
    cache: Path | None,
) -> dict[Kind, Rows]:
    """The rows with these teachers' embeddings; a side without one learns from its own frozen tower, if it has it.

    Args:
        teachers: in the order in which the rows will have them.
        rows: the training sets by kind.
        texts: of each kind, its rows' texts. A teacher that is fitted to texts is fitted to all of them.
        manifest: the paired rows, for teachers that look at photos or products; None where none may be looked at.
        cache: folder of the feature cache; None is the user's own.
    """
    by_text: dict[Kind, list[Features | ScoredTexts]] = {kind: [] for kind in rows}
    by_image: dict[Kind, list[Features]] = {kind: [] for kind in rows}
    for teacher in teachers:
        if teacher.scores is not None:
            for kind, scored in _scored_texts(teacher, texts).items():
                by_text[kind].append(scored)
            continue
        for kind, table in _teacher_tables(teacher, texts, manifest, cache).items():
            (by_text if teacher.side == "text" else by_image)[kind].append(Features(table))
    return {
        kind: frozen_teachers(replace(part, text_teachers=tuple(by_text[kind]), image_teachers=tuple(by_image[kind])))
        for kind, part in rows.items()
    }


def _scored_texts(teacher: TeacherConfig, texts: Mapping[Kind, Sequence[str]]) -> dict[Kind, ScoredTexts]:
    """The texts of each kind by their numbers in one table of scores, so that a text is the same one in all kinds."""
    assert teacher.scores is not None
    try:
        number_N, scores = read_pair_scores(*teacher.scores, [text for some in texts.values() for text in some])
    except DataError as error:
        raise DataError(f"teachers: {error}") from None
    return {kind: ScoredTexts(number_N[own], scores) for kind, own in _places(texts).items()}


def _places(texts: Mapping[Kind, Sequence[str]]) -> dict[Kind, np.ndarray]:
    """Where each kind's texts stand among all of them."""
    ends = np.cumsum([len(some) for some in texts.values()])
    return {kind: np.arange(end - len(texts[kind]), end) for kind, end in zip(texts, ends, strict=True)}


def _teacher_tables(
    teacher: TeacherConfig, texts: Mapping[Kind, Sequence[str]], manifest: Manifest | None, cache: Path | None
) -> dict[Kind, Table]:
    """What a teacher says of the rows of each kind that it can judge."""
    if teacher.columns and teacher.side == "text" and (manifest is None or "text" in texts):
        raise DataError(
            f"teachers: {teacher.name} knows products, and some batches are texts alone; set its side to image, or "
            "leave out the texts (data.corpus, data.mix)"
        )
    if teacher.columns or teacher.side == "image":
        if manifest is None:
            return {}
        if teacher.columns:
            return {"pairs": AttributeRows.of(manifest, teacher.columns)}
        keys = photo_keys(manifest)
        return {"pairs": teacher_rows(teacher, range(len(manifest)), cache, open_image=manifest.open_image, keys=keys)}
    whole = teacher_rows(teacher, [text for some in texts.values() for text in some], cache)
    chosen = _places(texts).items()
    return {kind: whole.select(own) if isinstance(whole, StoredRows) else whole[own] for kind, own in chosen}


def teacher_fingerprints(teachers: Sequence[TeacherConfig], rows: Mapping[Kind, Rows]) -> dict[str, str]:
    """What made each teacher's rows beside the texts and photos that they are of, by its name."""
    found: dict[str, str] = {}
    for part in rows.values():
        for side, columns in (("text", part.text_teachers), ("image", part.image_teachers)):
            named = [teacher for teacher in teachers if teacher.side == side]
            for teacher, column in zip(named, columns, strict=False):
                if isinstance(column, ScoredTexts):
                    found[f"teachers.{teacher.name}"] = hash_tensors(column.scores.tensors())
                elif isinstance(column.array, StoredRows):
                    found[f"teachers.{teacher.name}"] = column.array.store.spec.fingerprint
                elif isinstance(column.array, AttributeRows):
                    found[f"teachers.{teacher.name}"] = column.array.fingerprint()
    return found


def taught_objective(
    config: ObjectiveConfig,
    model: DualEncoder,
    rows: Mapping[Kind, Rows],
    teachers: Sequence[TeacherConfig],
    weights: PairWeights | None,
) -> AlignmentObjective:
    """The objective for rows that have these teachers: told how wide and how weighty they are."""
    first = np.zeros(1, np.int64)
    text = next(iter(rows.values())).text_teachers
    shares: dict[str, list[float]] = {
        side: [teacher.weight for teacher in teachers if teacher.side == side]
        for side in {teacher.side for teacher in teachers}
    }
    widths = [int(teacher.take(first, first).shape[1]) for teacher in text if isinstance(teacher, Features)]
    scores = {place: teacher.scores for place, teacher in enumerate(text) if isinstance(teacher, ScoredTexts)}
    return build_objective(
        config, model, pair_weights=weights, teacher_widths=widths, teacher_weights=shares, teacher_scores=scores
    )


def frozen_teachers(rows: Rows) -> Rows:
    """The rows with the cached features of their own frozen towers as teachers, where no other is named."""
    text = (rows.text,) if isinstance(rows.text, Features) else ()
    image = (rows.image,) if isinstance(rows.image, Features) else ()
    return replace(rows, text_teachers=rows.text_teachers or text, image_teachers=rows.image_teachers or image)


def pair_weights(config: NoiseConfig, rows: Rows | None) -> PairWeights | None:
    """Pair weights of the paired rows, from each side's first encoder (a teacher, or the frozen tower itself)."""
    if rows is None:
        return None
    text = _first_encoder((*rows.text_teachers, rows.text))
    image = _first_encoder((*rows.image_teachers, rows.image))
    return build_pair_weights(config, text, image, rows.ids_NK)


def _first_encoder(columns: Sequence[Column | None]) -> Table | None:
    """The first embeddings among them; attributes say nothing of whether this caption fits this photo."""
    embeddings = (column.array for column in columns if isinstance(column, Features))
    return next((rows for rows in embeddings if not isinstance(rows, AttributeRows)), None)


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


def unreadable(manifest: Manifest, progress: ProgressSink | None = None) -> dict[int, str]:
    """The reason by row of photos that do not decode; an image tower in training would meet them in mid-run."""
    from concurrent.futures import ThreadPoolExecutor

    def check(row: int) -> str | None:
        try:
            manifest.open_image(row)
        except DataError as error:
            return str(error)
        return None

    reasons: dict[int, str] = {}
    with ThreadPoolExecutor() as pool:
        for row, reason in enumerate(pool.map(check, range(len(manifest)))):
            if reason is not None:
                reasons[row] = reason
            if progress is not None:
                progress(row + 1, len(manifest))
    return reasons


def _pixels(manifest: Manifest, encoder: ImageEncoder) -> Pixels:
    return Pixels(lambda row, seed: encoder.augment(manifest.open_image(row), seed))
