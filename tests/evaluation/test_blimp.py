"""BLiMP: minimal pairs by a language model.

Invariants: the causal score is the sum of log-probabilities place by place, the masked one a sum over copies with one
token masked (each against a plain loop), with `predicts_next` read one place before; batching changes nothing; dev and
test are a fixed tenth and the rest; a tie counts against the model; averages are over tasks; broken rows are left out
and counted; what cannot be scored, and a folder that is none, are refused by name. The real files give 67 tasks.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, LlamaConfig, LlamaForCausalLM

from dalr.encoders.new_tokenizer import TokenizerConfig, train_tokenizer
from dalr.errors import DataError, ModelError, UsageError
from dalr.evaluation.blimp import PairTask, evaluate_blimp, read_blimp, score_texts
from dalr.lm import LanguageModel

Run = Callable[..., tuple[int, str, str]]

TEXTS = ["the dogs bark at night", "the dog bark", "a dog barks", "who barks at the old bridge near the river"]
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(TEXTS * 3, TokenizerConfig(vocab_size=120), 64)


@pytest.fixture
def bert(tokenizer: Any) -> LanguageModel:
    torch.manual_seed(4)
    config = BertConfig(vocab_size=len(tokenizer), **SHAPE, max_position_embeddings=64, initializer_range=0.3)
    return LanguageModel(BertForMaskedLM(config).eval(), tokenizer).eval()


def log_probabilities(model: LanguageModel, ids: list[int], causal: bool) -> torch.Tensor:
    row = torch.tensor([ids])
    with torch.inference_mode():
        return model.logits(model.states(row, torch.ones_like(row), causal))[0].log_softmax(dim=-1)


def test_scores_against_a_loop(bert: LanguageModel, tokenizer: Any) -> None:
    causal, masked, shifted = [], [], []
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        found = log_probabilities(bert, ids, causal=True)
        causal.append(sum(float(found[place, ids[place + 1]]) for place in range(len(ids) - 1)))
        sums = [0.0, 0.0]
        for place in range(1, len(ids) - 1):
            hidden = [*ids[:place], tokenizer.mask_token_id, *ids[place + 1 :]]
            found = log_probabilities(bert, hidden, causal=False)
            sums[0] += float(found[place, ids[place]])
            sums[1] += float(found[place - 1, ids[place]])
        masked.append(sums[0])
        shifted.append(sums[1])
    assert score_texts(bert, TEXTS, "causal") == pytest.approx(causal, abs=1e-4)
    assert score_texts(bert, TEXTS, "masked") == pytest.approx(masked, abs=1e-4)
    bert.predicts_next = True
    assert score_texts(bert, TEXTS, "masked") == pytest.approx(shifted, abs=1e-4)
    assert score_texts(bert, TEXTS[:1], "causal") == pytest.approx(causal[:1], abs=1e-4)
    assert len(set(causal + masked + shifted)) == 12


def test_a_decoder_without_a_mask_token(tokenizer: Any) -> None:
    config = LlamaConfig(vocab_size=len(tokenizer), **SHAPE, pad_token_id=0, bos_token_id=2, eos_token_id=3)
    bare = train_tokenizer(TEXTS * 3, TokenizerConfig(vocab_size=120), 64)
    bare.mask_token = None
    model = LanguageModel(LlamaForCausalLM(config).eval(), bare)
    assert all(score < 0 for score in score_texts(model, TEXTS, "causal"))
    with pytest.raises(ModelError, match="has no mask token; score it causally"):
        score_texts(model, TEXTS, "masked")


def write(folder: Path, name: str, term: str, pairs: list[tuple[Any, Any]]) -> None:
    rows = [{"sentence_good": good, "sentence_bad": bad, "linguistics_term": term} for good, bad in pairs]
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_averages_and_ties(bert: LanguageModel) -> None:
    scores = dict(zip(TEXTS, score_texts(bert, TEXTS, "causal"), strict=True))
    best, second, third, worst = sorted(TEXTS, key=lambda text: -scores[text])
    tasks = [
        PairTask("a", "x", [best, second, third], [worst, third, best]),
        PairTask("b", "x", [best], [best]),
        PairTask("c", "y", [best], [second]),
    ]
    found = evaluate_blimp(bert, tasks, ["causal"])
    assert found["causal"]["tasks"] == {"a": pytest.approx(66.6667), "b": 0.0, "c": 100.0}
    assert found["causal"]["terms"] == {"x": pytest.approx(33.3333, abs=1e-3), "y": 100.0}
    assert found["causal"]["avg"] == pytest.approx(55.5556, abs=1e-3)
    assert found["pairs"] == 5


def test_parts(tmp_path: Path) -> None:
    write(tmp_path, "one", "x", [(f"good {n}", f"bad {n}") for n in range(30)])
    whole, dev, test = (read_blimp(tmp_path, part)[0][0] for part in ("all", "dev", "test"))
    assert dev.good == ["good 0", "good 10", "good 20"]
    assert sorted(dev.good + test.good) == sorted(whole.good)
    assert len(test.good) == 27
    assert read_blimp(tmp_path, "test", most=2)[0][0].bad == ["bad 1", "bad 2"]
    with pytest.raises(UsageError, match="part 'train'; expected one of all, dev, test"):
        read_blimp(tmp_path, "train")  # type: ignore[arg-type]


def test_what_is_wrong_with_files(tmp_path: Path) -> None:
    write(tmp_path, "one", "x", [("a dog barks", "a dog bark"), ("", "a dog"), (None, "x")])
    with open(tmp_path / "one.jsonl", "a") as stream:
        stream.write("{oops\n")
    tasks, dropped = read_blimp(tmp_path)
    assert dropped == 3
    assert len(tasks[0].good) == 1
    with pytest.raises(DataError, match=r"gone: holds no .jsonl file; expected the 67 files"):
        read_blimp(tmp_path / "gone")
    (tmp_path / "two.jsonl").write_text('{"sentence": "a"}\n')
    with pytest.raises(DataError, match=r"two.jsonl: has no columns sentence_good and sentence_bad; it has sentence"):
        read_blimp(tmp_path)


def test_the_command(bert: LanguageModel, tmp_path: Path, dalr: Run) -> None:
    bert.trained_for = ("causal", "masked")
    bert.save(tmp_path / "lm")
    (tmp_path / "blimp").mkdir()
    write(tmp_path / "blimp", "one", "agreement", [("a dog barks", "a dog bark")] * 2)
    call = partial(dalr, "eval", "blimp", "--model", tmp_path / "lm", "--data", tmp_path / "blimp")
    code, out, _ = call("--json")
    found = json.loads(out)
    assert code == 0
    assert set(found) == {"causal", "masked", "pairs", "part", "dropped"}
    assert found["pairs"] == 2
    code, out, _ = call("--scoring", "causal")
    assert "average of 1 tasks" in out
    assert "masked" not in out
    assert call("--scoring", "both", "--part", "dev")[0] == 0
    assert call("--scoring", "left")[0] == 2
    assert call("--part", "val")[0] == 2
    code, out, error = call("--device", "cuda:99")
    assert (code, out, len(error.splitlines())) == (2, "", 1)
    assert "--device cuda:99: cannot be used" in error


@pytest.mark.data
def test_the_real_files(data_dir: Path) -> None:
    tasks, dropped = read_blimp(data_dir / "blimp")
    assert (len(tasks), dropped) == (67, 0)
    assert {len(task.good) for task in tasks} == {1000}
    assert len({task.term for task in tasks}) == 13
