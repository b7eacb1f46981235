"""Experts: whatever gives a pair a number for how well its two sides fit.

A new kind is a class with `fingerprint` and `score`, a name in `Kind`, and a line in `build_judge`.

Legend: P pairs.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from dalr.config import Config, nearest
from dalr.data.annotated import number_in
from dalr.data.scored_pairs import check_range
from dalr.encoders.pooling import PoolingMode
from dalr.errors import ConfigError, DataError, ModelError
from dalr.evaluation.sentences import cosines
from dalr.experts.calibration import CalibrationConfig
from dalr.experts.pairs import JudgedPairs
from dalr.features import embed_images, embed_texts
from dalr.files import hash_json
from dalr.lexical import BM25Index, fit_tfidf
from dalr.training_data import photo_keys

Floats = npt.NDArray[np.float64]
Kind = Literal["text", "image_text", "bm25", "tfidf", "characters", "cross_encoder", "column"]


class ExpertConfig(Config):
    """One expert.

    - `text`: the cosine of two texts by the encoder `name`, each under its own prompt (`prompt`, `partner_prompt`)
    - `image_text`: the cosine of a photo and its caption by the pair of encoders `name`
    - `cross_encoder`: what the classifier `name` of transformers says of the pair: the probability of `class_name` (by
      default its last class), or the sigmoid of its only output
    - `bm25`, `tfidf`, `characters`: words or character n-grams (3 to 5, within words) that the two texts share; BM25 is
      the mean of both directions
    - `column`: the scores of people in a column of the data, from `low` to `high`, which become 0 and 1; a pair whose
      cell is blank has none

    `pooling` of a `text` encoder is how its tokens become one vector (as `model.text.pooling`); None is as its folder
    says, else the mean. `max_length` is in tokens; None is the encoder's own, of a cross-encoder 256. `weight` is its
    share in a weighted aggregation; `calibration` takes the place of the common one.
    """

    kind: Kind
    name: str | None = None
    prompt: str | None = None
    partner_prompt: str | None = None
    pooling: PoolingMode | list[PoolingMode] | None = None
    class_name: str | None = None
    max_length: int | None = Field(default=None, ge=8)
    column: str | None = None
    low: float = 0.0
    high: float = 1.0
    weight: float = Field(default=1.0, ge=0)
    calibration: CalibrationConfig | None = None

    @model_validator(mode="after")
    def _range(self) -> "ExpertConfig":
        check_range(self.low, self.high)
        return self

    @model_validator(mode="after")
    def _pools(self) -> "ExpertConfig":
        if self.pooling is not None and self.kind != "text":
            raise ValueError(f"pooling: is for experts of kind text, and this one is of kind {self.kind}; leave it out")
        return self


class Judge(Protocol):
    """What an expert is."""

    def fingerprint(self) -> Any:
        """What decides its scores beside the pairs, as JSON values."""
        ...

    def score(self, pairs: JudgedPairs) -> npt.NDArray[Any]:
        """(P,) numbers, higher where the two sides fit better, on any scale; NaN where people said nothing."""
        ...


def build_judge(config: ExpertConfig, cache: str | Path | None = None) -> Judge:
    """The expert that `config` describes; its embeddings are kept in the feature cache.

    Raises ConfigError for what it lacks, and what loading its model raises.
    """
    if config.kind in ("text", "image_text", "cross_encoder") and config.name is None:
        raise ConfigError(f"name: an expert of kind {config.kind} needs one, an encoder's name or folder")
    if config.kind == "column" and config.column is None:
        raise ConfigError("column: an expert of kind column needs the name of one")
    if config.kind == "text":
        return TextJudge(config, cache)
    if config.kind == "image_text":
        return ImageTextJudge(config, cache)
    if config.kind == "cross_encoder":
        return CrossEncoderJudge(config)
    if config.kind == "column":
        return ColumnJudge(config)
    return LexicalJudge(config.kind)


class TextJudge:
    """Cosine of the two texts by one encoder."""

    def __init__(self, config: ExpertConfig, cache: str | Path | None) -> None:
        from dalr.encoders import TextConfig, build_text_encoder

        self.config, self.cache = config, cache
        self.encoder = build_text_encoder(
            TextConfig(name=str(config.name), pooling=config.pooling, max_length=config.max_length)
        )

    def fingerprint(self) -> Any:
        return [self.encoder.fingerprint(), self.config.prompt, self.config.partner_prompt]

    def score(self, pairs: JudgedPairs) -> npt.NDArray[Any]:
        first, second = pairs.texts()
        prompts = self.config.prompt, self.config.partner_prompt
        sides = [
            embed_texts(side, self.encoder, self.cache, prompt=prompt)[:]
            for side, prompt in zip((first, second), prompts, strict=True)
        ]
        return cosines(*sides)


class ImageTextJudge:
    """Cosine of photo and caption in the shared space of a pair of encoders."""

    def __init__(self, config: ExpertConfig, cache: str | Path | None) -> None:
        from dalr.model import DualEncoder

        self.config, self.cache = config, cache
        self.model = DualEncoder.from_pretrained(str(config.name))
        if self.model.text is None or self.model.image is None:
            raise ModelError(f"{config.name}: has no image and text tower; an expert of kind image_text needs both")

    def fingerprint(self) -> Any:
        return [self.model.fingerprint("text"), self.model.fingerprint("image")]

    def score(self, pairs: JudgedPairs) -> npt.NDArray[Any]:
        if pairs.images is None:
            raise DataError("judges photos with captions, and these are pairs of texts")
        model, manifest = self.model, pairs.images
        assert model.text is not None
        assert model.image is not None
        text = embed_texts(pairs.first, model.text, self.cache)[:]
        rows, bad = embed_images(
            range(len(manifest)), model.image, manifest.open_image, self.cache, keys=photo_keys(manifest)
        )
        if bad:
            raise DataError(f"{manifest.where(bad[0].position)}: {bad[0].reason}; repair the photo or drop the row")
        return cosines(model.project_features("text", text), model.project_features("image", rows))


class CrossEncoderJudge:
    """What a sequence classifier says of the two texts, read together."""

    BATCH = 32

    def __init__(self, config: ExpertConfig) -> None:
        from transformers import AutoModelForSequenceClassification

        from dalr.encoders import resolve_name
        from dalr.encoders.transformers_models import load_config, read_model
        from dalr.encoders.transformers_text import load_tokenizer
        from dalr.files import hash_tensors

        found = resolve_name(str(config.name))
        if found.folder is None:
            raise ModelError(f"{config.name}: not a folder or hub name of a classifier of transformers")
        self.config = config
        self.model, missing = read_model(AutoModelForSequenceClassification, found.folder, load_config(found.folder))
        if missing:
            raise ModelError(
                f"{config.name}: has no trained classifier (it lacks '{missing[0]}'); name a cross-encoder's folder"
            )
        self.model.eval()
        self.tokenizer = load_tokenizer(found.folder)
        self.weights = hash_tensors(self.model.state_dict())
        self.place = self._place()
        self.max_length = config.max_length or 256

    def fingerprint(self) -> Any:
        return [self.weights, self.place, self.max_length]

    def score(self, pairs: JudgedPairs) -> npt.NDArray[Any]:
        import torch

        first, second = pairs.texts()
        order = np.argsort([len(a) + len(b) for a, b in zip(first, second, strict=True)], kind="stable")
        scores = np.zeros(len(pairs))
        with torch.inference_mode():
            for start in range(0, len(order), self.BATCH):
                rows = order[start : start + self.BATCH]
                sides = [[side[row] for row in rows] for side in (first, second)]
                tokens = self.tokenizer(
                    *sides, padding=True, truncation=True, max_length=self.max_length, return_tensors="pt"
                )
                logits = self.model(**tokens).logits.float()
                said = logits[:, 0].sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)[:, self.place]
                scores[rows] = said.numpy()
        return scores

    def _place(self) -> int:
        """The class whose probability is the score."""
        names = {str(name).lower(): int(number) for number, name in self.model.config.id2label.items()}
        wanted = self.config.class_name
        if wanted is None:
            return max(names.values())
        if wanted.lower() not in names:
            raise ConfigError(
                f"class_name: '{wanted}' is no class of {self.config.name}; {nearest(wanted, list(names))}"
            )
        return names[wanted.lower()]


class LexicalJudge:
    """Words or character n-grams that two texts share; idf is taken over all texts of the data."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def fingerprint(self) -> Any:
        return self.kind

    def score(self, pairs: JudgedPairs) -> npt.NDArray[Any]:
        first, second = pairs.texts()
        if self.kind == "bm25":
            numbers = np.arange(len(pairs))
            forth, back = BM25Index(second).pair_scores(first, numbers), BM25Index(first).pair_scores(second, numbers)
            return np.asarray((forth + back) / 2)
        vectors = fit_tfidf((*first, *second), characters=self.kind == "characters")
        a, b = (vectors.transform(side) for side in (first, second))
        return np.asarray(a.multiply(b).sum(axis=1)).ravel()


class ColumnJudge:
    """The scores that people gave, in a column of the data."""

    def __init__(self, config: ExpertConfig) -> None:
        self.config = config

    def fingerprint(self) -> Any:
        # The scores are no part of the pairs' fingerprint, and cost nothing to read again.
        return None

    def score(self, pairs: JudgedPairs) -> npt.NDArray[Any]:
        config = self.config
        column = str(config.column)
        if column not in pairs.cells:
            raise DataError(f"there is no column '{column}'; {nearest(column, list(pairs.cells))}")
        scores = np.full(len(pairs), np.nan)
        for row, cell in enumerate(pairs.cells[column]):
            if cell is None or not str(cell).strip():
                continue
            try:
                score = number_in(cell, "score")
            except ValueError as error:
                raise DataError(f"{pairs.where[row]}: {error}; mend it, or leave the cell blank") from None
            if not config.low <= score <= config.high:
                raise DataError(
                    f"{pairs.where[row]}: the score {score:g} is outside the range {config.low:g} to "
                    f"{config.high:g}; mend it, or set the expert's low and high"
                )
            scores[row] = (score - config.low) / (config.high - config.low)
        if np.isnan(scores).all():
            raise DataError(f"the column '{column}' is blank throughout")
        return scores


def judge_key(judge: Judge, pairs: JudgedPairs) -> str | None:
    """What tells these scores from any others, as 32 hex digits; None for scores that are read, not computed."""
    fingerprint = judge.fingerprint()
    return None if fingerprint is None else hash_json([fingerprint, pairs.fingerprint()])


def checked(scores: Sequence[float] | npt.NDArray[Any], size: int, *, gaps: bool = False) -> Floats:
    """An expert's scores as float64 (P,). DataError for another length, a number that is none (NaN is right where
    there may be `gaps`), or the same one throughout."""
    found = np.asarray(scores, dtype=np.float64)
    if found.shape != (size,):
        raise DataError(f"gave {found.shape} scores for {size} pairs; expected one a pair")
    broken = np.flatnonzero(~np.isfinite(found) & ~(gaps & np.isnan(found)))
    if len(broken):
        raise DataError(f"gave {len(broken)} scores that are no numbers, the first for pair {broken[0] + 1}")
    known = found[~np.isnan(found)]
    if np.ptp(known) == 0:
        raise DataError(f"gave every pair the same score, {known[0]:g}, which says nothing; leave it out")
    return found
