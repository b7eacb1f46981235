"""Pair weights: how likely each caption fits its picture, before training and as training goes on.

Three sources, all of which leave a weight of 1 where there is nothing to say:

1. a `weight` column of the data (applied by the objective, not here);
2. neighbour agreement (`neighbours.py`), in the frozen encoders' own spaces, which have never seen these pairs;
3. the model's own running estimate: how far each pair's cosine stands out from its row and column of the batch,
   averaged over the epochs and re-fitted every epoch.

Each score is turned into a probability by a mixture of two normals whose "does not fit" part is known: it is
fitted to the scores of pairs put together at random.

Legend: N pairs · H text width · V image width · K columns of group ids
"""

import math
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from dalr.losses import same_group
from dalr.neighbours import NeighbourAgreement, NeighbourConfig, Scores

Array = np.ndarray


class NoiseConfig(NeighbourConfig):
    """How pair weights are found (used where `objective.pair_weights` is on).

    From epoch `start_epoch` on the model's own estimate counts too. Where the neighbours find a share of bad pairs
    below `least_share`, all weights are and stay 1.
    """

    start_epoch: Annotated[int, Field(ge=1)] = 3
    least_share: Annotated[float, Field(ge=0, lt=1)] = 0.05


def fit_probability(scores: Scores, iterations: int = 100) -> tuple[Tensor, float]:
    """Probability (N,) that each pair fits, and the share of pairs that do not.

    A mixture of two normals by expectation–maximisation; that of the pairs that do not fit is held at the null's
    mean and deviation. Above the fitting pairs' mean the probability does not fall again.
    """
    own, null = scores.own_N.double(), scores.null_M.double()
    mean0, variance0 = null.mean(), null.var().clamp(min=1e-6)
    share = min(0.95, max(0.05, 2.0 * float((own < mean0).double().mean())))
    above = own > mean0 + 2 * variance0.sqrt()
    chosen = own[above] if int(above.sum()) > 9 else own
    mean1, variance1 = chosen.mean(), chosen.var().clamp(min=1e-6)
    fits = torch.ones_like(own)
    for _ in range(iterations):
        bad = math.log(max(share, 1e-4)) - 0.5 * ((own - mean0) ** 2 / variance0 + variance0.log())
        good = math.log(max(1 - share, 1e-4)) - 0.5 * ((own - mean1) ** 2 / variance1 + variance1.log())
        fits = torch.sigmoid(good - bad)
        fits = torch.where(own > mean1, torch.maximum(fits, fits.max()), fits)
        share = float(1 - fits.mean())
        total = fits.sum().clamp(min=1e-6)
        mean1 = (fits * own).sum() / total
        variance1 = ((fits * (own - mean1) ** 2).sum() / total).clamp(min=1e-6)
    return fits.float(), share


class PairWeights(nn.Module):
    """A weight in [0, 1] for each training pair; everything it knows is in its buffers, and so in a checkpoint.

    Args:
        size: N.
        config: see `NoiseConfig`.
        prior: neighbour agreement of the pairs, or None where a side has no frozen features.
    """

    weight_N: Tensor
    prior_N: Tensor
    total_N: Tensor
    seen_N: Tensor
    null_3: Tensor

    def __init__(self, size: int, config: NoiseConfig, prior: Scores | None = None) -> None:
        super().__init__()
        self.config = config
        known = prior.standardised() if prior is not None else None
        fits, share = fit_probability(known) if known is not None else (torch.ones(size), 1.0)
        self.has_prior = known is not None
        # On clean data the neighbours find (almost) nothing, and then nothing is ever weighed down.
        self.active = share >= config.least_share
        self.register_buffer("weight_N", fits if self.active else torch.ones(size))
        self.register_buffer("prior_N", known.own_N.float() if known is not None else torch.zeros(size))
        self.register_buffer("total_N", torch.zeros(size))
        self.register_buffer("seen_N", torch.zeros(size))
        self.register_buffer("null_3", torch.zeros(3))

    def forward(self, index_B: Tensor) -> Tensor:
        """Weights of these rows, (B,)."""
        return self.weight_N[index_B]

    @torch.no_grad()
    def observe(self, index_B: Tensor, p_BD: Tensor, v_BD: Tensor, ids_BK: Tensor) -> None:
        """Note how far each pair's cosine stands out from those of its row and its column in the batch."""
        if not self.active or len(index_B) < 8:
            return
        with torch.autocast(p_BD.device.type, enabled=False):
            cosine_BB = F.normalize(p_BD.float(), dim=1) @ F.normalize(v_BD.float(), dim=1).T
        other_BB = ~same_group(ids_BK, ids_BK)
        other_BB.fill_diagonal_(False)
        standing_BB = torch.zeros_like(cosine_BB)
        for dim in (0, 1):
            count = other_BB.sum(dim, keepdim=True).clamp(min=2)
            mean = (cosine_BB * other_BB).sum(dim, keepdim=True) / count
            variance = ((cosine_BB - mean).square() * other_BB).sum(dim, keepdim=True) / count
            standing_BB += 0.5 * (cosine_BB - mean) / variance.clamp(min=1e-6).sqrt()
        self.total_N.index_add_(0, index_B, standing_BB.diagonal())
        self.seen_N.index_add_(0, index_B, torch.ones(len(index_B), device=index_B.device))
        others = standing_BB[other_BB]
        self.null_3 += torch.stack([others.sum(), others.square().sum(), others.new_tensor(float(len(others)))])

    def refit(self, epoch: int) -> dict[str, float]:
        """New weights from neighbours and the running estimate; returns `mean_weight` and `noise_share`."""
        if self.active and epoch >= self.config.start_epoch and bool(self.seen_N.any()):
            seen = self.seen_N > 0
            own = (self.total_N / self.seen_N.clamp(min=1))[seen]
            fits = _joint(self.prior_N[seen], own, self.weight_N[seen]) if self.has_prior else self._alone(own)
            self.weight_N[seen] = fits
        return {"mean_weight": float(self.weight_N.mean()), "noise_share": float(1 - self.weight_N.mean())}

    def _alone(self, own_N: Tensor) -> Tensor:
        """Without neighbours: the null is what mismatched pairs of the batches scored."""
        mean = self.null_3[0] / self.null_3[2]
        deviation = (self.null_3[1] / self.null_3[2] - mean.square()).clamp(min=1e-6).sqrt()
        # Two points carry the null's mean and variance, which is all that the fit reads.
        null = torch.stack([mean - deviation, mean + deviation]).repeat(500)
        fits, share = fit_probability(Scores(own_N, null))
        return fits if share >= self.config.least_share else torch.ones_like(fits)


def _joint(prior_N: Tensor, own_N: Tensor, weight_N: Tensor) -> Tensor:
    """Probability of the better of two normals over (neighbours' score, own score), started from these weights."""
    from sklearn.mixture import GaussianMixture

    points = torch.stack([prior_N, own_N], dim=1).double().cpu().numpy()
    start = weight_N.double().cpu().numpy().clip(0.01, 0.99)
    means, precisions = [], []
    for share in (1 - start, start):
        mean = np.average(points, axis=0, weights=share)
        covariance = np.cov(points.T, aweights=share) + 1e-6 * np.eye(2)
        means.append(mean)
        precisions.append(np.linalg.inv(covariance))
    model = GaussianMixture(
        2,
        weights_init=[1 - start.mean(), start.mean()],
        means_init=np.stack(means),
        precisions_init=np.stack(precisions),
        reg_covar=1e-4,
        random_state=0,
    ).fit(points)
    better = int(np.argmax(model.means_[:, 1]))
    fits = model.predict_proba(points)[:, better]
    # The wider normal wins far out on every side; beyond the better one's centre that must not count against a pair.
    beyond = (points >= model.means_[better]).all(axis=1)
    fits[beyond] = fits.max()
    return torch.from_numpy(fits).to(weight_N.device, weight_N.dtype)


def build_pair_weights(config: NoiseConfig, text_NH: Any, image_NV: Any, ids_NK: Array) -> PairWeights:
    """Pair weights of N training pairs from their frozen features; either side may be None (no neighbours then)."""
    size = len(ids_NK)
    if text_NH is None or image_NV is None or size <= config.neighbours:
        return PairWeights(size, config)
    rows = np.arange(size)
    text, image = (torch.from_numpy(np.asarray(side[rows], dtype=np.float32)) for side in (text_NH, image_NV))
    ids = torch.from_numpy(ids_NK)
    agreement = NeighbourAgreement(text, image, ids, config)
    return PairWeights(size, config, agreement.settled(lambda scores: fit_probability(scores)[0]))
