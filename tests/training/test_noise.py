"""Pair weights.

Invariants: on clean pairs every weight is and stays 1; captions moved to other rows get lower weights than the
others, before training (neighbours) and after it (the model's own estimate); rows of one group do not vouch for each
other; all that it knows lies in buffers; without frozen features the model's estimate alone finds them.

Not vacuous: the same scores on the same data without moved captions are checked to find nothing.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score

from dalr.neighbours import NeighbourAgreement, RandomPairs, Scores
from dalr.noise import NoiseConfig, PairWeights, build_pair_weights, fit_probability

SIZE, KINDS = 600, 30
CONFIG = NoiseConfig()


def catalogue(share: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Text and image features around 30 kinds of product, ids, and which captions were moved to another kind."""
    generator = np.random.default_rng(seed)
    kind = np.arange(SIZE) % KINDS
    image = generator.normal(size=(KINDS, 24))[kind] + 0.5 * generator.normal(size=(SIZE, 24))
    text = generator.normal(size=(KINDS, 16))[kind] + 0.5 * generator.normal(size=(SIZE, 16))
    caption = np.arange(SIZE)
    moved = generator.permutation(SIZE)[: round(share * SIZE)]
    caption[moved] = np.roll(moved, 1)
    ids = np.stack([np.arange(SIZE), SIZE + caption], axis=1)
    return text[caption].astype(np.float32), image.astype(np.float32), ids, kind[caption] != kind


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_neighbours_find_moved_captions(share: float) -> None:
    text, image, ids, wrong = catalogue(share)
    weights = build_pair_weights(CONFIG, text, image, ids)
    assert weights.active
    found = weights(torch.arange(SIZE)).numpy()
    assert roc_auc_score(wrong, -found) > 0.97
    assert 0 <= found.min() <= found.max() <= 1
    assert 1 - found.mean() == pytest.approx(wrong.mean(), abs=0.06)


def test_clean_pairs_keep_a_weight_of_one() -> None:
    text, image, ids, _ = catalogue(0.0)
    weights = build_pair_weights(CONFIG, text, image, ids)
    assert not weights.active
    weights.observe(torch.arange(64), torch.randn(64, 8), torch.randn(64, 8), torch.from_numpy(ids[:64]))
    weights.refit(5)
    assert bool((weights.weight_N == 1).all())


def train_batches(weights: PairWeights, wrong: np.ndarray, ids: np.ndarray, strength: float) -> None:
    """What a model half-way through training would show: pairs that fit agree, the others do not."""
    generator = torch.Generator().manual_seed(1)
    v_ND = F.normalize(torch.randn(SIZE, 32, generator=generator), dim=1)
    noise = F.normalize(torch.randn(SIZE, 32, generator=generator), dim=1)
    p_ND = F.normalize(noise + strength * torch.from_numpy(~wrong)[:, None] * v_ND, dim=1)
    for rows in torch.randperm(SIZE, generator=generator).split(100):
        weights.observe(rows, p_ND[rows], v_ND[rows], torch.from_numpy(ids)[rows])


def test_the_models_own_estimate_joins_the_neighbours() -> None:
    text, image, ids, wrong = catalogue(0.3)
    # Photos so noisy that the neighbours alone are unsure.
    image = image + np.random.default_rng(5).normal(scale=1.6, size=image.shape).astype(np.float32)
    weights = build_pair_weights(CONFIG, text, image, ids)
    assert weights.active
    before = roc_auc_score(wrong, -weights.weight_N.numpy())
    train_batches(weights, wrong, ids, strength=0.5)
    figures = weights.refit(CONFIG.start_epoch)
    after = roc_auc_score(wrong, -weights.weight_N.numpy())
    assert after > before + 0.01
    assert figures["mean_weight"] == pytest.approx(float(weights.weight_N.mean()))


def test_under_autocast_the_estimate_stays_in_float32() -> None:
    text, image, ids, wrong = catalogue(0.3)
    plain, half = (build_pair_weights(CONFIG, text, image, ids) for _ in range(2))
    assert half.active
    train_batches(plain, wrong, ids, strength=1.0)
    with torch.autocast("cpu", torch.bfloat16):
        train_batches(half, wrong, ids, strength=1.0)
    torch.testing.assert_close(half.total_N, plain.total_N)


def test_the_model_alone_finds_them_where_nothing_is_frozen() -> None:
    _, _, ids, wrong = catalogue(0.3)
    weights = PairWeights(SIZE, CONFIG)
    assert bool((weights.weight_N == 1).all())
    train_batches(weights, wrong, ids, strength=1.0)
    weights.refit(CONFIG.start_epoch - 1)
    assert bool((weights.weight_N == 1).all()), "too early to judge"
    weights.refit(CONFIG.start_epoch)
    assert roc_auc_score(wrong, -weights.weight_N.numpy()) > 0.95
    clean = PairWeights(SIZE, CONFIG)
    train_batches(clean, np.zeros(SIZE, dtype=bool), ids, strength=1.5)
    clean.refit(CONFIG.start_epoch)
    assert float(clean.weight_N.mean()) > 0.97


def test_everything_known_is_in_the_state() -> None:
    text, image, ids, wrong = catalogue(0.3)
    first = build_pair_weights(CONFIG, text, image, ids)
    train_batches(first, wrong, ids, 1.0)
    second = build_pair_weights(CONFIG, text, image, ids)
    second.load_state_dict(first.state_dict())
    first.refit(9)
    second.refit(9)
    assert torch.equal(first.weight_N, second.weight_N)


def test_a_group_does_not_vouch_for_itself() -> None:
    text, image, ids, _ = catalogue(0.0)
    # Ten rows with one caption and one group of photos that have nothing to do with it.
    odd = np.arange(10)
    image[odd] = image[odd[0]] + 0.01 * np.random.default_rng(0).normal(size=(10, 24))
    text[odd] = -text[odd[0]]
    ids[odd, 0] = ids[0, 0]
    agreement = NeighbourAgreement(*(torch.from_numpy(x) for x in (text, image, ids)), CONFIG)
    scores = agreement.scores().standardised()
    assert scores.own_N[:10].max() < scores.own_N[10:].median()


def test_the_null_is_pairs_put_together_at_random() -> None:
    text, image, ids, _ = catalogue(0.0)
    tensors = [torch.from_numpy(x) for x in (text, image, ids)]
    agreement = NeighbourAgreement(*tensors, CONFIG)
    pairs = agreement.pairs
    assert not bool(
        ((tensors[2][pairs.picture_M] == tensors[2][pairs.caption_M]) & (tensors[2][pairs.picture_M] >= 0)).any()
    )
    # A catalogue whose captions are really moved so scores what the null says of these pairs.
    moved = RandomPairs.draw(tensors[2], torch.Generator().manual_seed(1), count=1)
    scores = agreement.scores()
    alone = NeighbourAgreement(*tensors, CONFIG, pairs=moved).scores()
    assert torch.equal(alone.own_N, scores.own_N)
    assert float(alone.null_M.std()) == pytest.approx(float(scores.null_M.std()), rel=0.15)
    folds = torch.arange(len(text)) % 3
    within = RandomPairs.draw(tensors[2], torch.Generator().manual_seed(1), folds)
    assert torch.equal(folds[within.picture_M], folds[within.caption_M])


def test_the_nearest_are_those_of_all_pairs_but_the_group() -> None:
    text, image, ids, _ = catalogue(0.2)
    ids[::3, 0], ids[::5, 1] = 7, -1
    tensors = [torch.from_numpy(x) for x in (text, image, ids)]
    agreement = NeighbourAgreement(*tensors, CONFIG)
    cosine = agreement.image_NV @ agreement.image_NV.T
    same = ((tensors[2][:, None] == tensors[2][None]) & (tensors[2][:, None] >= 0)).any(-1)
    cosine[same | torch.eye(len(text), dtype=torch.bool)] = -1e4
    expected = cosine.topk(CONFIG.neighbours, dim=1).values.mean(1)
    torch.testing.assert_close(agreement.nearness()[1], expected)


def test_some_rows_alone_score_as_among_all() -> None:
    text, image, ids, _ = catalogue(0.2)
    tensors = [torch.from_numpy(x) for x in (text, image, ids)]
    rows = torch.tensor([3, 40, 7])
    weights = torch.rand(len(text), generator=torch.Generator().manual_seed(0))
    every = NeighbourAgreement(*tensors, CONFIG).scores(weights).own_N
    some = NeighbourAgreement(*tensors, CONFIG, rows=rows).scores(weights)
    torch.testing.assert_close(some.own_N, every[rows])
    assert len(some.null_M) == 0


def test_the_mixture_finds_the_share_and_never_falls() -> None:
    generator = torch.Generator().manual_seed(0)
    null = torch.randn(5000, generator=generator)
    own = torch.cat([torch.randn(300, generator=generator), 4 + 0.7 * torch.randn(700, generator=generator)])
    fits, share = fit_probability(Scores(own, null))
    assert share == pytest.approx(0.3, abs=0.03)
    order = own.argsort()
    above = order[own[order] > 1]
    assert bool((fits[above].diff() >= -1e-6).all())
    assert fit_probability(Scores(4 + torch.randn(500, generator=generator), null))[1] < 0.01
