"""What speaks for and against each pair: neighbours, the shared space, other pictures of the same caption.

Legend: N pairs · K columns of group ids · D shared width
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dalr.catalogue.audit.config import AuditConfig
from dalr.catalogue.audit.crossfit import FrozenPairs, cut_folds, embed_rows, train_fold
from dalr.catalogue.audit.mismatch import Calibration, cosine_scores, sibling_scores
from dalr.neighbours import TILE, NeighbourAgreement, RandomPairs, Scores
from dalr.noise import fit_probability

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Step = Callable[[str], None]


@dataclass(frozen=True)
class Judgement:
    """What was found of N pairs.

    Attributes:
        scores: by kind of evidence, how far each pair stands above random ones, in the null's deviations; NaN for none.
        fit: log-odds that the pair belongs together.
        probability: of a mismatch.
        share: of mismatches in all.
        better: the pair whose picture fits the caption best of all others, and by how much the cosine is higher than
            that of the own; −1 where no other fits better, or there is no shared space.
        nearness: mean cosine of each caption, and of each picture, with its neighbours.
    """

    scores: dict[str, Floats]
    fit: Floats
    probability: Floats
    share: float
    better: Ints
    margin: Floats
    nearness: tuple[Floats, Floats]


def judge_pairs(
    pairs: FrozenPairs, keys: list[str], config: AuditConfig, shared: bool, say: Step | None = None
) -> Judgement:
    """Judge N pairs by all that there is.

    Args:
        pairs: features of the frozen towers.
        keys: of the rows, which decide the folds.
        config: see `AuditConfig`.
        shared: whether the model's heads are trained, so that its cosines mean something.
        say: told what is done next.
    """
    say = say or (lambda _: None)
    size = len(pairs.ids_NK)
    ids_NK = torch.from_numpy(pairs.ids_NK)
    text_NH, image_NV = (torch.from_numpy(side[:]) for side in (pairs.text, pairs.image))
    folds = cut_folds(pairs.ids_NK, keys, config.folds) if config.folds > 1 else np.zeros(size, np.int64)
    generator = torch.Generator().manual_seed(config.seed)
    random = RandomPairs.draw(ids_NK, generator, torch.from_numpy(folds))
    near = RandomPairs.near(text_NH, ids_NK, generator, torch.from_numpy(folds))
    null = random.and_also(near)

    say("neighbours")
    agreement = NeighbourAgreement(text_NH, image_NV, ids_NK, config.neighbours, pairs=null)
    found = agreement.scores()
    for _ in range(config.neighbours.passes - 1):
        fits, _ = fit_probability(Scores(found.own_N, found.null_M[: len(random)]))
        found = agreement.scores(fits.clamp(min=0.02))
    evidence = {"neighbours": found}
    # The pictures of one caption, or of one product where the catalogue names products.
    first, second = pairs.ids_NK.T
    captions = np.where(second >= 0, second, first + second.max(initial=-1) + 1)
    siblings = sibling_scores(image_NV, captions, null, seed=config.seed)
    if bool(torch.isfinite(siblings.own_N).any()):
        evidence["siblings"] = siblings
    better, margin = np.full(size, -1, np.int64), np.zeros(size)
    if shared or config.folds > 1:
        evidence["cosine"], better, margin = _cosines(pairs, folds, null, config, say)
    calibration = Calibration.fit(evidence, len(random))
    fit, probability = calibration.judge({name: scores.own_N for name, scores in evidence.items()})
    return Judgement(
        {name: scores.standardised().own_N.double().numpy() for name, scores in evidence.items()},
        fit,
        probability,
        calibration.share,
        better,
        margin,
        tuple(side.double().numpy() for side in agreement.nearness()),  # type: ignore[arg-type]
    )


def _cosines(
    pairs: FrozenPairs, folds: Ints, null: RandomPairs, config: AuditConfig, say: Step
) -> tuple[Scores, Ints, Floats]:
    """Standing of the cosines, and the better partners; with folds each by a model that did not see it."""
    size = len(folds)
    own, random = torch.zeros(size), torch.zeros(len(null))
    better, margin = np.full(size, -1, np.int64), np.zeros(size)
    fold_of = torch.from_numpy(folds)
    for fold in range(config.folds):
        rows = np.flatnonzero(folds == fold)
        model = pairs.model
        if config.folds > 1:
            say(f"fold {fold + 1} of {config.folds}")
            model = train_fold(pairs, np.flatnonzero(folds != fold), config.crossfit, config.neighbours, config.seed)
        text_ND, image_ND = embed_rows(model, pairs, np.arange(size))
        chosen = fold_of[null.picture_M] == fold
        place = torch.full((size,), -1)
        place[rows] = torch.arange(len(rows))
        within = RandomPairs(place[null.picture_M[chosen]], place[null.caption_M[chosen]])
        scores = cosine_scores(text_ND[rows], image_ND[rows], within)
        own[rows], random[chosen] = scores.own_N, scores.null_M
        better[rows], margin[rows] = _better(text_ND, image_ND, pairs.ids_NK, rows)
    return Scores(own, random), better, margin


def _better(text_ND: Tensor, image_ND: Tensor, ids_NK: Ints, rows: Ints) -> tuple[Ints, Floats]:
    """For each of these rows the row of another group whose picture fits its caption better, or −1."""
    from dalr.losses import same_group

    ids = torch.from_numpy(ids_NK)
    best, margin = [], []
    for block in torch.split(torch.from_numpy(rows), TILE):
        cosine = text_ND[block] @ image_ND.T
        own = (text_ND[block] * image_ND[block]).sum(1)
        highest = cosine.masked_fill_(same_group(ids[block], ids), -2.0).max(dim=1)
        over = highest.values - own
        best.append(torch.where(over > 0, highest.indices, -1))
        margin.append(over.clamp(min=0))
    return torch.cat(best).numpy(), torch.cat(margin).double().numpy()
