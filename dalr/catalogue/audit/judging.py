"""The audit itself: every row with its findings, the probability of a mismatch, a verdict and a reason in words."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from dalr.catalogue.audit.captions import Fault, caption_faults
from dalr.catalogue.audit.config import AuditConfig
from dalr.catalogue.audit.crossfit import FrozenPairs
from dalr.catalogue.audit.evidence import Judgement, judge_more, judge_pairs
from dalr.catalogue.audit.memory import Decision, Memory, row_content
from dalr.catalogue.audit.pictures import picture_faults
from dalr.catalogue.audit.repeats import products, repeat_faults, same_looks
from dalr.catalogue.photos import survey_photos
from dalr.data.manifest import Manifest
from dalr.evaluation.embeddings import SideFeatures, image_features, text_features
from dalr.files import hash_json
from dalr.model import DualEncoder
from dalr.progress import ProgressSink

Verdict = Literal["wrong", "doubtful", "faulty", "ok"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
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
        fit: log-odds of fitting against a random pair, all evidence together; also tells apart rows of one probability.
        scores: by kind of evidence, standard deviations above random pairs.
        verdict: `wrong` (caption and picture do not fit), `doubtful` (perhaps), `faulty` (something else), or `ok`;
            what a person decided stands above what was computed.
        better: the row whose picture the caption fits better, or None.
        content: of the row, as `row_content` gives it. decision: of a person, if it was made of this content.
    """

    row: int
    product: int
    findings: list[str]
    reason: str
    probability: float | None
    fit: float | None
    scores: dict[str, float]
    verdict: Verdict
    better: int | None
    content: str
    decision: Decision | None = None

    @property
    def usable(self) -> bool:
        """Whether training may see it at all."""
        useless = set(self.findings) & set(USELESS)
        if self.decision is not None and self.decision.choice == "fix":
            useless -= {"empty caption", "file name", "no words"}
        return self.verdict != "wrong" and not useless

    @property
    def weight(self) -> float:
        """How much training should count it: what a person approved fully, else by the probability that it fits."""
        return 1.0 if self.decision is not None else 1.0 - (self.probability or 0.0)

    def under(self, decision: Decision | None) -> "AuditedRow":
        """The row as a person decided it, if the decision was made of what it says now."""
        if decision is None or decision.content != self.content:
            return self
        return replace(self, decision=decision, verdict="wrong" if decision.choice == "wrong" else "ok")


@dataclass(frozen=True)
class AuditResult:
    """All rows, in the manifest's order.

    `share` is the estimated share of mismatches, None without a comparison; `compared` pairs were compared, `judged` of
    them now, the others before; `memory` is for the next audit.
    """

    rows: list[AuditedRow]
    share: float | None
    compared: int
    judged: int
    notes: list[str]
    memory: Memory | None

    def counts(self) -> dict[str, Any]:
        """Rows by verdict (they add up to all) and by finding (a row may have several)."""
        verdicts = Counter(row.verdict for row in self.rows)
        findings = Counter(name for row in self.rows for name in row.findings)
        return {
            "rows": len(self.rows),
            "compared": self.compared,
            "judged": self.judged,
            "decided": sum(row.decision is not None for row in self.rows),
            "verdicts": {name: verdicts[name] for name in VERDICTS},
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
    memory: Memory | None = None,
    decisions: Mapping[str, Decision] | None = None,
    progress: ProgressSink | None = None,
) -> AuditResult:
    """Look at every row of a catalogue: its picture, its caption, what is there again, and whether the two fit.

    Args:
        model: with a text and an image tower.
        manifest: the catalogue; rows without a picture or a caption are judged by what they have.
        config: see `AuditConfig`.
        shared: whether the model's shared space is trained; False compares by neighbours (and folds) alone.
        memory: of an earlier audit; pairs that are as they were then keep what was found of them.
        decisions: of people, by row key; one that was made of another content is stale and left out.
        progress: called with (done, total) of what is opened or embedded, then of the folds' training.

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
    groups = manifest.group or [None] * len(manifest)
    named = [group or text for group, text in zip(groups, manifest.texts, strict=True)]
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
    contents = [row_content(*keys) for keys in zip(texts.keys, images.keys, groups, strict=True)]
    audit = _Audit(manifest, config, product, faults, contents, dict(decisions or {}))
    if len(rows) < SMALLEST:
        audit.notes.append(
            f"{len(rows)} rows have both a caption and a picture, too few to compare them; {SMALLEST} are needed"
        )
        return audit.result(rows, None, 0)
    settings = config.model_dump(mode="json", include={"folds", "seed", "neighbours", "crossfit"})
    made_by = hash_json([settings, shared, model.fingerprint("text"), model.fingerprint("image")])
    pairs = _pairs(model, manifest, texts, images, rows)
    if bool(((pairs.ids_NK == pairs.ids_NK[0]) & (pairs.ids_NK >= 0)).all(0).any()):
        audit.notes.append("all rows are one product, or have one caption: there is no other to compare them with")
        return audit.result(rows, None, 0)
    keys, own = [manifest.keys[row] for row in rows], [contents[row] for row in rows]
    if memory is not None and memory.made_by == made_by:
        judgement, changed = memory.carried(own)
        if len(changed) <= config.rejudge * len(rows):
            if changed:
                judge_more(pairs, keys, config, memory.judge, judgement, np.array(changed, np.int64))
            return audit.result(rows, Memory(made_by, own, memory.judge, judgement), len(changed))
        audit.notes.append(f"{len(changed):,} of {len(rows):,} pairs are new or changed: all were judged anew")
    judge, judgement = judge_pairs(pairs, keys, config, shared, progress)
    return audit.result(rows, Memory(made_by, own, judge, judgement), len(rows))


def _pairs(
    model: DualEncoder, manifest: Manifest, texts: SideFeatures, images: SideFeatures, rows: npt.NDArray[np.int64]
) -> FrozenPairs:
    ids_NK = manifest.select(rows).ids([images.keys[row] for row in rows])
    return FrozenPairs(model, texts.stored.select(rows), images.stored.select(rows), ids_NK)


@dataclass(frozen=True)
class _Audit:
    """Everything known of the rows but whether captions and pictures fit."""

    manifest: Manifest
    config: AuditConfig
    product: npt.NDArray[np.int64]
    faults: list[list[Fault]]
    contents: list[str]
    decisions: dict[str, Decision]
    notes: list[str] = field(default_factory=list)

    def result(self, rows: npt.NDArray[np.int64], memory: Memory | None, judged: int) -> AuditResult:
        """All rows; `memory` holds what was found of the pairs of these `rows`."""
        stale = sum(
            key in self.decisions and self.decisions[key].content != content
            for key, content in zip(self.manifest.keys, self.contents, strict=True)
        )
        if stale:
            self.notes.append(f"{stale:,} decisions are of rows that have changed since, and were left out")
        place = {row: at for at, row in enumerate(rows.tolist())} if memory is not None else {}
        strange = _outliers(memory.judgement, self.config.outlier) if memory is not None else {}
        found = [
            self._row(row, memory, rows, place.get(row), strange.get(place.get(row, -1), []))
            for row in range(len(self.manifest))
        ]
        share = memory.judge.calibration.share if memory is not None else None
        return AuditResult(found, share, len(place), judged, self.notes, memory)

    def _row(
        self, row: int, memory: Memory | None, rows: npt.NDArray[np.int64], at: int | None, strange: list[Fault]
    ) -> AuditedRow:
        config, told = self.config, [*self.faults[row], *strange]
        probability, fit, scores, better = None, None, {}, None
        if at is not None and memory is not None:
            found, calibration = memory.judgement, memory.judge.calibration
            probability, fit = float(found.probability[at]), float(found.fit[at])
            raw = {name: values[at] for name, values in found.raw.items() if np.isfinite(values[at])}
            scores = {name: float(calibration.standing(name, value)) for name, value in raw.items()}
            if probability >= config.doubtful:
                better = int(rows[found.better[at]]) if found.better[at] >= 0 else None
                told.insert(0, ("mismatch", _mismatch(self.manifest, probability, scores, better)))
        verdict: Verdict = "faulty" if told else "ok"
        if probability is not None and probability >= config.doubtful:
            verdict = "wrong" if probability >= config.wrong else "doubtful"
        names = list(dict.fromkeys(name for name, _ in told))
        reason = "; ".join(words for _, words in told)
        product = int(self.product[row])
        content = self.contents[row]
        audited = AuditedRow(row, product, names, reason, probability, fit, scores, verdict, better, content)
        return audited.under(self.decisions.get(self.manifest.keys[row]))


def worst_first(rows: Iterable[AuditedRow]) -> list[AuditedRow]:
    """The likeliest mismatch first; of one probability, the row that fits worse."""
    return sorted(rows, key=lambda row: (-(row.probability or 0.0), row.fit or 0.0))


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
