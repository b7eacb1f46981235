"""The audit itself: every row with its findings, the probability of a mismatch, a verdict and a reason in words."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dalr.catalogue.audit.captions import Fault, caption_faults
from dalr.catalogue.audit.config import AuditConfig
from dalr.catalogue.audit.crossfit import FrozenPairs
from dalr.catalogue.audit.evidence import Judgement, judge_pairs
from dalr.catalogue.audit.pictures import picture_faults
from dalr.catalogue.audit.repeats import products, repeat_faults, same_looks
from dalr.catalogue.photos import survey_photos
from dalr.data.manifest import Manifest
from dalr.evaluation.embeddings import ProgressSink, SideFeatures, image_features, text_features
from dalr.model import DualEncoder

Verdict = Literal["wrong", "doubtful", "faulty", "ok"]
# Findings that make a row useless for training whatever its probability.
USELESS = ("empty caption", "no picture", "unreadable picture", "blank", "file name", "no words", "duplicate row")
SMALLEST = 50  # pairs; of fewer nothing can be said by comparing them


@dataclass(frozen=True)
class AuditedRow:
    """One row: what was found and what follows.

    Attributes:
        row: its number in the manifest. product: its product's number.
        findings: names; reason: all of it in words.
        probability: of a mismatch of caption and picture; None where it could not be compared.
        scores: by kind of evidence, standard deviations above random pairs.
        verdict: `wrong` (caption and picture do not fit), `doubtful` (perhaps), `faulty` (something else), or `ok`.
        better: the row whose picture the caption fits better, or None.
    """

    row: int
    product: int
    findings: list[str]
    reason: str
    probability: float | None
    scores: dict[str, float]
    verdict: Verdict
    better: int | None

    @property
    def usable(self) -> bool:
        """Whether training may see it at all."""
        return self.verdict != "wrong" and not set(self.findings) & set(USELESS)


@dataclass(frozen=True)
class AuditResult:
    """All rows, in the manifest's order. `share`: estimated share of mismatches; None without a comparison."""

    rows: list[AuditedRow]
    share: float | None
    compared: int
    notes: list[str] = field(default_factory=list)

    def counts(self) -> dict[str, Any]:
        """Rows by verdict (they add up to all) and by finding (a row may have several)."""
        verdicts = Counter(row.verdict for row in self.rows)
        findings = Counter(name for row in self.rows for name in row.findings)
        return {
            "rows": len(self.rows),
            "compared": self.compared,
            "verdicts": {name: verdicts[name] for name in ("wrong", "doubtful", "faulty", "ok")},
            "findings": dict(findings.most_common()),
            "products": len({row.product for row in self.rows}),
            "usable": sum(row.usable for row in self.rows),
        }


def audit_catalogue(
    model: DualEncoder,
    manifest: Manifest,
    config: AuditConfig | None = None,
    *,
    shared: bool = True,
    progress: ProgressSink | None = None,
    say: Callable[[str], None] | None = None,
) -> AuditResult:
    """Look at every row of a catalogue: its picture, its caption, what is there again, and whether the two fit.

    Args:
        model: with a text and an image tower.
        manifest: the catalogue; rows without a picture or a caption are judged by what they have.
        config: see `AuditConfig`.
        shared: whether the model's shared space is trained; False compares by neighbours (and folds) alone.
        progress: called with (done, total) of what is opened or embedded.
        say: told what is done next.

    Raises:
        ModelError: a tower is missing. DataError: no row has both a caption and a readable picture.
    """
    config = config or AuditConfig()
    survey = survey_photos(manifest, progress=progress)
    texts = text_features(model, manifest, progress=progress)
    images = image_features(model, manifest, progress=progress)
    assert model.text is not None
    product = products(manifest, images.keys)
    looks = same_looks(manifest, survey)
    named = [
        group or text for group, text in zip(manifest.group or [None] * len(manifest), manifest.texts, strict=True)
    ]
    faults = [
        [fault for kind in kinds for fault in kind]
        for kinds in zip(
            picture_faults(survey, named, config.pictures, looks.tolist()),
            caption_faults(
                manifest.texts, survey.keys(), config.captions, model.text.token_counts, model.text.max_length
            ),
            repeat_faults(manifest, survey, looks, product),
            strict=True,
        )
    ]
    rows = np.array(
        [row for row, keys in enumerate(zip(texts.keys, images.keys, strict=True)) if None not in keys], dtype=np.int64
    )
    notes, judgement = [], None
    if len(rows) < SMALLEST:
        notes.append(
            f"{len(rows)} rows have both a caption and a picture, too few to compare them; {SMALLEST} are needed"
        )
    else:
        pairs = _pairs(model, manifest, texts, images, rows)
        judgement = judge_pairs(pairs, [manifest.keys[row] for row in rows], config, shared, say)
    return _assemble(manifest, config, product, faults, rows, judgement, notes)


def _pairs(
    model: DualEncoder, manifest: Manifest, texts: SideFeatures, images: SideFeatures, rows: npt.NDArray[np.int64]
) -> FrozenPairs:
    ids_NK = manifest.select(rows).ids([images.keys[row] for row in rows])
    text, image = (type(side.stored)(side.stored.store, side.stored.places[rows]) for side in (texts, images))
    return FrozenPairs(model, text, image, ids_NK)


def _assemble(
    manifest: Manifest,
    config: AuditConfig,
    product: npt.NDArray[np.int64],
    faults: list[list[Fault]],
    rows: npt.NDArray[np.int64],
    judgement: Judgement | None,
    notes: list[str],
) -> AuditResult:
    place = {row: at for at, row in enumerate(rows.tolist())} if judgement is not None else {}
    strange = _outliers(judgement, config.outlier) if judgement is not None else {}
    found = []
    for row in range(len(manifest)):
        told = list(faults[row])
        probability, scores, better = None, {}, None
        at = place.get(row)
        if at is not None and judgement is not None:
            probability = float(judgement.probability[at])
            scores = {name: float(values[at]) for name, values in judgement.scores.items() if np.isfinite(values[at])}
            told += strange.get(at, [])
            if probability >= config.doubtful:
                better = int(rows[judgement.better[at]]) if judgement.better[at] >= 0 else None
                told.insert(0, ("mismatch", _mismatch(manifest, probability, scores, better)))
        verdict: Verdict = "faulty" if told else "ok"
        if probability is not None and probability >= config.doubtful:
            verdict = "wrong" if probability >= config.wrong else "doubtful"
        names = list(dict.fromkeys(name for name, _ in told))
        reason = "; ".join(words for _, words in told)
        found.append(AuditedRow(row, int(product[row]), names, reason, probability, scores, verdict, better))
    return AuditResult(found, judgement.share if judgement else None, len(place), notes)


def _mismatch(manifest: Manifest, probability: float, scores: dict[str, float], better: int | None) -> str:
    """Why a caption is thought not to fit, strongest evidence first."""
    words = {
        "neighbours": "its neighbours have other captions and pictures",
        "cosine": "caption and picture are far apart in the model's space",
        "siblings": "other pictures of this caption look different",
    }
    # Two deviations above random is little for a pair that belongs together.
    weak = sorted((value, words[name]) for name, value in scores.items() if value < 2.0)
    said = [f"{probability:.0%} likely not to fit", *(text for _, text in weak)]
    if better is not None:
        said.append(f"the caption fits the picture of {manifest.where(better)} better")
    return ", ".join(said)


def _outliers(judgement: Judgement, times: float) -> dict[int, list[Fault]]:
    found: dict[int, list[Fault]] = {}
    for what, nearness in zip(("caption", "picture"), judgement.nearness, strict=True):
        low, high = np.percentile(nearness, [25, 75])
        for at in np.flatnonzero(nearness < low - times * (high - low)).tolist():
            found.setdefault(at, []).append(("outlier", f"there is no {what} like it"))
    return found
