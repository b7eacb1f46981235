"""What a step of language modelling sees, and its loss.

Invariants: a causal place is labelled with the next token of its text, a masked one with itself, with `predicts_next`
the place before it; nothing is labelled across texts or in padding; batch `t` is a pure function of its number, and the
slices of processes make up the whole; what a step hides does not hang on what the step before hid; MIX has its share of
causal rows; the loss is the mean over all predicted places (against transformers' own loss), and its parts are weighted
by theirs.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dalr.antlm.batches import Labeller, LanguageData
from dalr.antlm.documents import CorpusConfig, prepare_documents
from dalr.antlm.masking import MaskingConfig, Vocabulary
from dalr.antlm.objective import IGNORED, LanguageModelling, row_losses
from dalr.antlm.packing import pack_text
from dalr.antlm.presets import NetworkConfig, build_network
from dalr.antlm.schedule import parse_schedule, timeline
from dalr.encoders.new_tokenizer import TokenizerConfig, train_tokenizer
from dalr.lm import LanguageModel
from tests.antlm.conftest import story


@pytest.fixture
def tokenizer() -> Any:
    return train_tokenizer([story(n) for n in range(120)], TokenizerConfig(vocab_size=300), 64)


@pytest.fixture
def data(stories: Path, tokenizer: Any) -> LanguageData:
    documents = prepare_documents(CorpusConfig(paths=[str(stories)], dev=0))
    text = pack_text(documents, "train", tokenizer, 32, "sentence")
    plan = timeline(parse_schedule("2_CLM+3_MLM+2_MIX"), "step", 10)
    labeller = Labeller(Vocabulary.of(tokenizer), MaskingConfig(), predicts_next=True)
    return LanguageData(text, batch_size=8, seed=5, timeline=plan, labeller=labeller, mix_causal=0.25)


def tokens_of(batch: Any) -> dict[str, torch.Tensor]:
    assert isinstance(batch.text, dict)
    return batch.text


def test_labels(data: LanguageData) -> None:
    for step, kind in ((0, "CLM"), (2, "MLM"), (5, "MIX")):
        batch = data.batch(step)
        assert batch.kind == kind
        tokens = tokens_of(batch)
        ids = torch.from_numpy(data.text.ids_NL[batch.index_B.numpy()].astype(np.int64))
        segments, labels, causal = tokens["segments"], tokens["labels"], tokens["causal"]
        assert causal.sum() == {"CLM": 8, "MLM": 0, "MIX": 2}[kind]
        same = torch.zeros_like(ids, dtype=torch.bool)
        same[:, :-1] = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] > 0)
        following = torch.roll(ids, -1, dims=1)
        assert torch.equal(labels[causal], torch.where(same, following, IGNORED)[causal])
        assert torch.equal(tokens["input_ids"][causal], ids[causal])
        said = labels[~causal] != IGNORED
        assert torch.equal(labels[~causal][said], following[~causal][said])  # by the place before
        assert (~said | same[~causal]).all()
        if kind != "CLM":
            assert 0.1 < said.sum() / (segments[~causal] > 0).sum() < 0.16
            changed = tokens["input_ids"][~causal] != ids[~causal]
            assert (~changed[:, 1:] | said[:, :-1]).all()  # what is hidden is asked for
            assert changed.any()


def test_labels_of_the_place_itself(data: LanguageData, tokenizer: Any) -> None:
    labeller = Labeller(Vocabulary.of(tokenizer), MaskingConfig())
    ids, segments = (side[:8].astype(np.int64) for side in (data.text.ids_NL, data.text.segments_NL))
    found = labeller.tokens(ids, segments, np.zeros(8, dtype=bool), 0.15, np.random.default_rng(0))
    said = found["labels"].numpy() != IGNORED
    assert np.array_equal(found["labels"].numpy()[said], ids[said])
    assert said.any()
    assert not said[segments == 0].any()


def test_batches_are_functions_of_their_number(data: LanguageData) -> None:
    for step in (1, 3, 6):
        first, again = tokens_of(data.batch(step)), tokens_of(data.batch(step))
        halves = [tokens_of(data.batch(step, rank, 2)) for rank in (0, 1)]
        for name, value in first.items():
            assert torch.equal(value, again[name])
            assert torch.equal(value, torch.cat([half[name] for half in halves]))
    assert not torch.equal(tokens_of(data.batch(3))["input_ids"], tokens_of(data.batch(4))["input_ids"])


def test_a_step_hides_without_regard_to_the_step_before(data: LanguageData) -> None:
    plan = timeline(parse_schedule("1_MLM"), "step", 200)
    batches = LanguageData(data.text, batch_size=8, seed=5, timeline=plan, labeller=data.labeller, mix_causal=0)
    hidden = torch.stack([tokens_of(batches.batch(step))["labels"] != IGNORED for step in range(200)])
    share = hidden.float().mean(dim=0)
    again = (hidden[1:] & hidden[:-1]).sum() / hidden[:-1].sum()
    # Of two steps that know nothing of each other it is what each place is hidden at all, weighted by itself.
    assert again == pytest.approx(float((share**2).sum() / share.sum()), rel=0.05)


@pytest.mark.parametrize("preset", ["ltg-bert", "babyllama"])
def test_the_loss(data: LanguageData, tokenizer: Any, preset: str) -> None:
    torch.manual_seed(1)
    config = NetworkConfig(preset=preset, layers=1, width=16, heads=2, dropout=0)
    model = LanguageModel(build_network(config, tokenizer, 32), tokenizer).eval()
    objective = LanguageModelling(model)
    batch = data.batch(5)
    tokens = tokens_of(batch)
    parts = objective(None, batch)
    with torch.no_grad():
        logits = model.logits(model.states(tokens["input_ids"], tokens["segments"], tokens["causal"]))
    flat = logits.flatten(0, 1), tokens["labels"].flatten()
    torch.testing.assert_close(parts.total, F.cross_entropy(*flat, ignore_index=IGNORED), atol=1e-5, rtol=1e-5)
    causal = tokens["causal"]
    for name, some in (("clm", causal), ("mlm", ~causal)):
        own = F.cross_entropy(logits[some].flatten(0, 1), tokens["labels"][some].flatten(), ignore_index=IGNORED)
        torch.testing.assert_close(parts.parts[name], own, atol=1e-5, rtol=1e-5)
        assert parts.weights[name] == pytest.approx(
            float((tokens["labels"][some] != IGNORED).sum() / (tokens["labels"] != IGNORED).sum())
        )
    parts.total.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    with torch.no_grad():
        nll, count, right = row_losses(model, tokens)
    assert torch.equal(count, (tokens["labels"] != IGNORED).sum(dim=1).float())
    assert 0 <= float(right.sum()) < float(count.sum())
    assert float(nll.sum() / count.sum()) == pytest.approx(parts.total.item(), rel=1e-5)
