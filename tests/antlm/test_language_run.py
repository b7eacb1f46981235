"""Language modelling through `dalr train`.

Invariants: the losses fall and their kinds follow the schedule; a killed and resumed run ends bit-identical; the
folder is a text encoder for dalr, loads with AutoModel, and holds the language model with its head; an encoder goes
on from its own weights, keeps its pooling and trains into a pair; rates begin anew with phases, moments are forgotten
where asked; two processes equal one; what cannot be used exits 2 with one line.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer
from typer.testing import CliRunner

from dalr.antlm.config import LanguageConfig
from dalr.cli import app
from dalr.cli import search as _other  # noqa: F401 - a second command, so that typer keeps `train` as a subcommand
from dalr.cli import train as _registered  # noqa: F401
from dalr.config import parse_config
from dalr.lm import load_language_model
from dalr.model import DualEncoder
from dalr.run.language import assemble_language
from dalr.schedule import Restarts
from dalr.trainer import Trainer
from dalr.training_log import read_log

Settings = dict[str, Any]
Write = Callable[[Settings], Path]


def call(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["train", *arguments])
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize("preset", ["ltg-bert", "babyllama"])
def test_a_whole_run(settings: Settings, write_config: Write, tmp_path: Path, preset: str) -> None:
    settings["schedule"] = "10_CLM+20_MLM"
    settings["model"]["new"]["preset"] = preset
    out = tmp_path / "run"
    code, stdout, stderr = call(str(write_config(settings)), "--out", str(out), "--json")
    assert code == 0, stderr
    found = json.loads(stdout)
    assert found["steps"] == 30
    assert set(found["figures"]) == {"clm.perplexity", "mlm.perplexity", "mlm.accuracy"}
    card = (out / "README.md").read_text()
    assert f"`mlm.accuracy` {found['figures']['mlm.accuracy']:.2f}" in card
    assert "Nothing was measured" not in card
    losses = [event for event in read_log(out / "log.jsonl") if event["event"] == "step"]
    assert ["clm" in event for event in losses] == [True] * 10 + [False] * 20
    assert losses[9]["loss"] < losses[0]["loss"] - 0.3
    assert losses[-1]["loss"] < losses[10]["loss"]

    model = DualEncoder.from_pretrained(out)
    embedded = model.encode_text(["the river crosses", "nobody remembers"])
    assert np.isfinite(embedded).all()
    tokens = AutoTokenizer.from_pretrained(out / "text")(["the river crosses"], return_tensors="pt")
    body = AutoModel.from_pretrained(out / "text").eval()
    language_model = load_language_model(str(out))
    assert language_model.trained_for == ("causal", "masked")
    ones = torch.ones_like(tokens["input_ids"])
    with torch.inference_mode():
        states = language_model.states(tokens["input_ids"], ones, causal=False)
        torch.testing.assert_close(
            torch.nn.functional.normalize(states.mean(dim=1)), torch.from_numpy(embedded[:1]), atol=1e-5, rtol=1e-4
        )
        if preset == "ltg-bert":  # a decoder's own default mask is the causal one
            own = body(input_ids=tokens["input_ids"], attention_mask=ones).last_hidden_state
            torch.testing.assert_close(own, states, atol=1e-5, rtol=1e-4)
            AutoModelForMaskedLM.from_pretrained(out / "lm")
    training = json.loads((out / "lm" / "training.json").read_text())
    assert training["schedule"] == "10_CLM+20_MLM"
    assert json.loads((out / "run.json").read_text())["result"]["leaks"] is None
    assert training["text"]["documents"] + training["text"]["dev_documents"] == 120
    assert call(str(write_config(settings)), "--out", str(out))[0] == 0  # finished: nothing to do
    settings["schedule"] = "10_CLM+21_MLM"
    code, _, stderr = call(str(write_config(settings)), "--out", str(out))
    assert code == 2
    assert "schedule: '10_CLM+20_MLM' → '10_CLM+21_MLM'" in stderr


def test_resume_is_exact(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings |= {"schedule": "4_MIX+4_CLM+4_MLM", "rate": "phase", "optimizer": "reset"}
    settings["train"] |= {"checkpoint_every": 3, "keep": 9}
    config = parse_config(LanguageConfig, settings)

    def trained(out: Path, stop: int | None = None) -> dict[str, torch.Tensor]:
        plan = assemble_language(config)
        trainer = Trainer(plan.model, plan.objective, plan.data, plan.train_config, out=out, restarts=plan.restarts)
        if stop is not None:
            trainer.total_steps, whole = stop, trainer.total_steps
            span = Restarts.span
            monkeypatch.setattr(Restarts, "span", lambda self, step, total: span(self, step, whole))
        trainer.fit()
        monkeypatch.undo()
        return {name: value.clone() for name, value in trainer.step_module.state_dict().items()}

    whole = trained(tmp_path / "whole")
    for stop in (4, 6, 9):  # where a phase begins, and within phases
        trained(tmp_path / f"cut{stop}", stop)
        resumed = trained(tmp_path / f"cut{stop}")
        assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    assert not torch.equal(next(iter(whole.values())), next(iter(trained(tmp_path / "short", 4).values())))


def test_rates_and_moments_of_phases(settings: Settings, write_config: Write, tmp_path: Path) -> None:
    restarts = Restarts((0, 10, 50), rate=True)
    assert [restarts.span(step, 60) for step in (0, 9, 10, 49, 50, 59)] == [
        (0, 10), (0, 10), (10, 40), (10, 40), (50, 10), (50, 10),
    ]  # fmt: skip
    assert Restarts((0, 10)).span(12, 60) == (0, 60)
    settings |= {"schedule": "4_CLM+4_MLM"}
    settings["train"] |= {"schedule": "linear", "warmup": 0.0}
    rates = {}
    for rate in ("run", "phase"):
        out = tmp_path / rate
        assert call(str(write_config({**settings, "rate": rate})), "--out", str(out))[0] == 0
        rates[rate] = [event["lr"] for event in read_log(out / "log.jsonl") if event["event"] == "step"]
    assert rates["run"] == pytest.approx([0.01 * (1 - step / 8) for step in range(8)])
    assert rates["phase"] == pytest.approx([0.01 * (1 - step % 4 / 4) for step in range(8)])

    plan = assemble_language(parse_config(LanguageConfig, {**settings, "optimizer": "reset"}))
    trainer = Trainer(plan.model, plan.objective, plan.data, plan.train_config, restarts=plan.restarts)
    trainer.fit()
    assert {int(state["step"]) for state in trainer.optimizer.state.values()} == {4}  # of eight, four forgotten


def test_an_encoder_goes_on(settings: Settings, write_config: Write, minilm_dir: Path, tmp_path: Path) -> None:
    settings["model"] = {"name": str(minilm_dir)}
    settings["schedule"] = "1_CLM+1_MLM"
    settings["train"]["lr"] = 1e-5
    out = tmp_path / "adapted"
    code, _, stderr = call(str(write_config(settings)), "--out", str(out))
    assert code == 0, stderr
    texts = ["a red dress", "a garment in red", "two dogs run"]
    before, after = (DualEncoder.from_pretrained(name).encode_text(texts) for name in (minilm_dir, out))
    assert before.shape == after.shape
    cosine = (before * after).sum(axis=1)
    assert (cosine > 0.9).all()  # its pooling and weights are those it came with
    assert (cosine < 0.999999).all()  # and it has moved
    again = tmp_path / "again"
    settings["model"] = {"name": str(out)}
    assert call(str(write_config(settings)), "--out", str(again))[0] == 0
    first, second = (load_language_model(str(folder)).network.cls.predictions.bias for folder in (out, again))
    assert 0 < (first - second).abs().max() < 1e-3  # the head went on too


def test_a_fresh_head_may_learn_faster_than_the_network(settings: Settings, minilm_dir: Path) -> None:
    settings |= {"model": {"name": str(minilm_dir)}, "schedule": "2_MLM"}
    settings["train"] |= {"lr": 1e-2, "text_lr": 1e-6, "warmup": 0.0, "weight_decay": 0.0}
    plan = assemble_language(parse_config(LanguageConfig, settings))
    before = {name: value.clone() for name, value in plan.objective.state_dict().items()}
    Trainer(plan.model, plan.objective, plan.data, plan.train_config).fit()
    moved = {name: float((value - before[name]).abs().max()) for name, value in plan.objective.state_dict().items()}
    tower = {name: change for name, change in moved.items() if ".bert." in name and "pooler" not in name}
    head = {name: change for name, change in moved.items() if "transform.dense" in name}
    # Adam's steps are as long as the rate.
    assert 0 < max(tower.values()) < 3e-6
    assert min(head.values()) > 1e-3


def test_a_decoder_learns_to_look_ahead(settings: Settings, write_config: Write, tmp_path: Path) -> None:
    settings["model"]["new"]["preset"] = "babyllama"
    settings["schedule"] = "2_CLM"
    first, second = tmp_path / "causal", tmp_path / "both"
    assert call(str(write_config(settings)), "--out", str(first))[0] == 0
    settings |= {"model": {"name": str(first)}, "schedule": "1_CLM+2_MLM"}
    assert call(str(write_config(settings)), "--out", str(second))[0] == 0
    towers = [DualEncoder.from_pretrained(folder).text for folder in (first, second)]
    assert [tower.spec.attention for tower in towers if tower is not None] == ["own", "bidirectional"]
    assert load_language_model(str(first)).trained_for == ("causal",)
    assert load_language_model(str(second)).trained_for == ("causal", "masked")


def test_two_processes_equal_one(settings: Settings, write_config: Write, tmp_path: Path) -> None:
    settings |= {"schedule": "2_CLM+2_MLM"}
    settings["model"]["dropout"] = 0.0
    path = write_config(settings)
    assert call(str(path), "--out", str(tmp_path / "one"))[0] == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29531"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [*torchrun, "-m", "dalr", "train", str(path), "--out", str(tmp_path / "two")],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-2000:]
    losses = [
        [event["loss"] for event in read_log(tmp_path / name / "log.jsonl") if event["event"] == "step"]
        for name in ("one", "two")
    ]
    np.testing.assert_allclose(losses[0], losses[1], atol=1e-5)
    assert len(losses[0]) == 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schedule": "2_CLM+1_XLM"}, "schedule: '2_CLM+1_XLM': at character 7 '1_XLM' cannot be read"),
        ({"schedule": "2_CLM+0_MLM"}, "the phase '0_MLM' has length 0"),
        ({"schedule": "CLM→MLM"}, "set train.epochs or steps"),
        ({"shedule": "2_CLM"}, "did you mean 'schedule'"),
        ({"data": {"paths": ["gone.txt"]}}, "gone.txt: cannot be read"),
        ({"data": {"paths": ["STORIES"], "length": 64}}, "data.length: 64 is more than the 32 tokens of the network"),
        ({"model": {"name": "DIR", "tokenizer": {"vocab_size": 99}}}, "drop new and tokenizer, or name"),
        ({"masking": {"share": 1.5}}, "masking.share"),
        (
            {"data": {"paths": ["STORIES"], "dev": 0, "length": 16}, "train": {"metric": "mlm.accuracy"}},
            "nothing is measured; set data.dev above 0",
        ),
        ({"train": {"image_lr": 2e-5}}, "train.image_lr: a language model has no image tower"),
        ({"train": {"patience": 2}}, "train.patience: needs a train.metric"),
        ({"train": {"metric": "mlm.accurate"}}, "what is: clm.perplexity, mlm.perplexity, mlm.accuracy"),
    ],
)
def test_one_line_for_what_cannot_be(
    settings: Settings, write_config: Write, stories: Path, tmp_path: Path, change: Settings, said: str
) -> None:
    values = json.loads(json.dumps({**settings, **change}).replace("STORIES", str(stories)))
    code, _, stderr = call(str(write_config(values)), "--out", str(tmp_path / "out"))
    assert code == 2
    assert said in " ".join(stderr.split())
    assert "Traceback" not in stderr


def test_a_network_that_cannot_switch(settings: Settings, write_config: Write, tmp_path: Path) -> None:
    from transformers import DebertaV2Config, DebertaV2Model

    from dalr.encoders.new_tokenizer import TokenizerConfig, train_tokenizer

    tokenizer = train_tokenizer(["the river crosses the bridge"] * 3, TokenizerConfig(vocab_size=80), 32)
    config = DebertaV2Config(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    DebertaV2Model(config).save_pretrained(tmp_path / "deberta")
    tokenizer.save_pretrained(tmp_path / "deberta")
    settings["model"] = {"name": str(tmp_path / "deberta")}
    code, _, stderr = call(str(write_config(settings)), "--out", str(tmp_path / "out"))
    assert code == 2
    assert "the architecture 'deberta-v2' cannot switch between causal and masked" in " ".join(stderr.split())
