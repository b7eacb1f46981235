"""What speaks for and against each pair: neighbours, the shared space, other pictures of the same caption.

Legend: N pairs · K columns of group ids · D shared width
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dalr.catalogue.audit.config import AuditConfig
from dalr.catalogue.audit.crossfit import FrozenPairs, cut_folds, embed_rows, train_fold, with_heads
from dalr.catalogue.audit.mismatch import Calibration, cosine_scores, sibling_scores
from dalr.losses import same_group
from dalr.neighbours import LEAST_SAY, NeighbourAgreement, RandomPairs, Scores
from dalr.noise import fit_probability
from dalr.progress import ProgressSink

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
BLOCK_ELEMENTS = 2**24


@dataclass(frozen=True)
class Judgement:
    """What was found of N pairs.

    Attributes:
        raw: by kind of evidence, a score a pair (higher fits better); NaN for none.
        fit: log-odds that the pair belongs together.
        probability: of a mismatch.
        better: of a pair that may be wrong, the other whose picture fits the caption best; −1 where none fits better
            than its own, or there is no shared space.
        nearness: (2, N), mean cosine of each caption, and of each picture, with its neighbours.
    """

    raw: dict[str, Floats]
    fit: Floats
    probability: Floats
    better: Ints
    nearness: Floats

    @classmethod
    def empty(cls, size: int, kinds: Iterable[str]) -> "Judgement":
        """Of pairs that are still to be judged."""
        raw = {name: np.full(size, np.nan) for name in kinds}
        return cls(raw, np.zeros(size), np.zeros(size), np.full(size, -1, np.int64), np.zeros((2, size)))

    def put(self, rows: Ints, found: "Judgement") -> None:
        """Take over what was found of these rows."""
        for name, values in found.raw.items():
            self.raw[name][rows] = values
        self.fit[rows], self.probability[rows], self.better[rows] = found.fit, found.probability, found.better
        self.nearness[:, rows] = found.nearness


@dataclass(frozen=True)
class Judge:
    """What judges pairs of one catalogue: the calibration, and the heads of each fold (none: the model's own)."""

    calibration: Calibration
    heads: list[dict[str, Tensor]]

    @property
    def kinds(self) -> list[str]:
        """The kinds of evidence."""
        return list(self.calibration.odds)


def judge_pairs(
    pairs: FrozenPairs, keys: Sequence[str], config: AuditConfig, shared: bool, progress: ProgressSink | None = None
) -> tuple[Judge, Judgement]:
    """Judge N pairs by all that there is.

    Args:
        pairs: features of the frozen towers.
        keys: of the rows, which decide the folds.
        config: see `AuditConfig`.
        shared: whether the model's heads are trained, so that its cosines mean something.
        progress: called with (done, total) steps of training the folds' heads.

    Returns:
        What can judge further pairs of this catalogue, and what was found.
    """
    text_NH, image_NV, ids_NK, folds_N = _tensors(pairs, keys, config)
    generator = torch.Generator().manual_seed(config.seed)
    null = RandomPairs.draw(ids_NK, generator, folds_N)
    agreement = NeighbourAgreement(text_NH, image_NV, ids_NK, config.neighbours, pairs=null)
    evidence = {"neighbours": agreement.settled(lambda scores: fit_probability(scores)[0])}
    siblings = sibling_scores(image_NV, _captions(pairs.ids_NK), null, seed=config.seed)
    if bool(torch.isfinite(siblings.own_N).any()):
        evidence["siblings"] = siblings
    heads: list[dict[str, Tensor]] = []
    if config.folds > 1:
        for fold in range(config.folds):
            others = np.flatnonzero(folds_N.numpy() != fold)

            def report(step: int, steps: int, fold: int = fold) -> None:
                if progress is not None:
                    progress(fold * steps + step, config.folds * steps)

            trained = train_fold(pairs, others, config.crossfit, config.neighbours, config.seed, report)
            heads.append(trained.head_state())
    if shared or heads:
        evidence["cosine"] = _cosines(pairs, folds_N, null, config, heads, torch.arange(len(ids_NK)))
    judge = Judge(Calibration.fit(evidence), heads)
    return judge, _judged(pairs, folds_N, config, judge, evidence, agreement)


def judge_more(
    pairs: FrozenPairs, keys: Sequence[str], config: AuditConfig, judge: Judge, before: Judgement, rows: Ints
) -> None:
    """Judge some rows of N pairs by what judged the others, and put what is found into `before`.

    The rows' folds are those of their groups (see `cut_folds`), so that no head judges what it was trained on but where
    a new row moved its group; rows that are new have a full say among the neighbours.
    """
    text_NH, image_NV, ids_NK, folds_N = _tensors(pairs, keys, config)
    chosen = torch.from_numpy(rows)
    none = RandomPairs.none()
    weight_N = torch.from_numpy(1 - before.probability).float().clamp(min=LEAST_SAY)
    weight_N[chosen] = 1.0
    agreement = NeighbourAgreement(text_NH, image_NV, ids_NK, config.neighbours, rows=chosen)
    evidence = {"neighbours": agreement.scores(weight_N)}
    if "siblings" in judge.kinds:
        evidence["siblings"] = sibling_scores(image_NV, _captions(pairs.ids_NK), none, chosen, config.seed)
    if "cosine" in judge.kinds:
        evidence["cosine"] = _cosines(pairs, folds_N, none, config, judge.heads, chosen)
    before.put(rows, _judged(pairs, folds_N, config, judge, evidence, agreement))


def _tensors(pairs: FrozenPairs, keys: Sequence[str], config: AuditConfig) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features of both sides, group ids, and the fold of each row (0 where there are none)."""
    text_NH, image_NV = (torch.from_numpy(side[:]) for side in (pairs.text, pairs.image))
    folds = cut_folds(pairs.ids_NK, keys, config.folds) if config.folds > 1 else np.zeros(len(keys), np.int64)
    return text_NH, image_NV, torch.from_numpy(pairs.ids_NK), torch.from_numpy(folds)


def _captions(ids_NK: Ints) -> Ints:
    """What has several pictures: the caption, or the product where the catalogue names products."""
    first, second = ids_NK.T
    found: Ints = np.where(second >= 0, second, first + second.max(initial=-1) + 1)
    return found


def _judged(
    pairs: FrozenPairs,
    folds_N: Tensor,
    config: AuditConfig,
    judge: Judge,
    evidence: dict[str, Scores],
    agreement: NeighbourAgreement,
) -> Judgement:
    """What the evidence comes to, and the better partners of the rows that may be wrong."""
    fit, probability = judge.calibration.judge({name: scores.own_N for name, scores in evidence.items()})
    raw = {name: scores.own_N.double().numpy() for name, scores in evidence.items()}
    better = np.full(len(fit), -1, np.int64)
    if "cosine" in evidence:
        suspect = torch.from_numpy(np.flatnonzero(probability >= config.doubtful))
        for chosen, text_ND, image_ND in _embedded(pairs, folds_N, config, judge.heads, agreement.rows_R[suspect]):
            better[suspect[chosen].numpy()] = _better(
                text_ND, image_ND, pairs.ids_NK, agreement.rows_R[suspect[chosen]]
            )
    return Judgement(raw, fit, probability, better, torch.stack(agreement.nearness()).double().numpy())


def _embedded(
    pairs: FrozenPairs, folds_N: Tensor, config: AuditConfig, heads: list[dict[str, Tensor]], rows_R: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(places in `rows_R`, all captions, all pictures) by fold, as the heads see them that did not see these rows."""
    for fold in range(config.folds if heads else 1):
        chosen = torch.nonzero(folds_N[rows_R] == fold).flatten()
        if len(chosen):
            model = with_heads(pairs, config.crossfit, heads[fold]) if heads else pairs.model
            yield chosen, *embed_rows(model, pairs, np.arange(len(folds_N)))


def _cosines(
    pairs: FrozenPairs,
    folds_N: Tensor,
    null: RandomPairs,
    config: AuditConfig,
    heads: list[dict[str, Tensor]],
    rows_R: Tensor,
) -> Scores:
    """How the cosines of these rows, and of the random pairs, stand among those of their fold."""
    own, random = torch.zeros(len(rows_R)), torch.zeros(len(null))
    for chosen, text_ND, image_ND in _embedded(pairs, folds_N, config, heads, rows_R):
        fold = folds_N[rows_R[chosen[0]]]
        within = torch.nonzero(folds_N == fold).flatten()
        place = torch.full((len(folds_N),), -1)
        place[within] = torch.arange(len(within))
        drawn = folds_N[null.picture_M] == fold
        local = RandomPairs(place[null.picture_M[drawn]], place[null.caption_M[drawn]])
        scores = cosine_scores(text_ND[within], image_ND[within], local, place[rows_R[chosen]])
        own[chosen], random[drawn] = scores.own_N, scores.null_M
    return Scores(own, random)


def _better(text_ND: Tensor, image_ND: Tensor, ids_NK: Ints, rows_R: Tensor) -> Ints:
    """For each of these rows the row of another group whose picture fits its caption better, or −1."""
    ids = torch.from_numpy(ids_NK)
    found = []
    for block in torch.split(rows_R, max(1, BLOCK_ELEMENTS // len(ids))):
        cosine = text_ND[block] @ image_ND.T
        own = (text_ND[block] * image_ND[block]).sum(1)
        highest = cosine.masked_fill_(same_group(ids[block], ids), -2.0).max(dim=1)
        found.append(torch.where(highest.values > own, highest.indices, -1))
    return torch.cat(found).numpy()
