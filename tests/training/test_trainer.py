"""The training loop.

Invariants: the loop lowers the loss and keeps the best weights, not the last; accumulation averages micro-batches;
EMA weights are what is evaluated and kept; early stop stops; evaluation does not disturb training (the losses are the
same with and without it); a training example's order and its augmentation hang on the seed alone; a frozen tower's
weights do not move and no image is opened while it trains; a loss that is not finite ends the run with a reason.
"""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_trainer import trainer_of

from dalr.errors import ConfigError, DalrError
from dalr.evaluation.parts import retrieval_evaluator
from dalr.files import hash_tensors
from dalr.model import DualEncoder
from dalr.schedule import learning_rate_factor
from dalr.train_config import TrainConfig
from dalr.training_data import TrainingData
from dalr.training_log import read_log


def losses(out: Path) -> list[float]:
    return [event["loss"] for event in read_log(out / "log.jsonl") if event["event"] == "step"]


def test_it_learns_keeps_the_best_and_leaves_frozen_towers_alone(squares: Path, frozen: Any, tmp_path: Path) -> None:
    evaluate = retrieval_evaluator(frozen[2])
    trainer = trainer_of(squares, frozen, tmp_path, evaluate, metric="mrr", steps=60)
    towers = [hash_tensors(tower.state_dict()) for tower in (trainer.model.text, trainer.model.image) if tower]
    before = evaluate(trainer.model)["mrr"]
    result = trainer.fit()
    events = [event for event in read_log(tmp_path / "log.jsonl") if event["event"] == "evaluation"]
    assert result.best == max(event["mrr"] for event in events) > before + 5
    assert evaluate(trainer.model)["mrr"] == pytest.approx(result.best)
    assert np.mean(losses(tmp_path)[-5:]) < np.mean(losses(tmp_path)[:5])
    assert towers == [hash_tensors(tower.state_dict()) for tower in (trainer.model.text, trainer.model.image) if tower]


def test_a_step_on_features_opens_no_image(squares: Path, frozen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from dalr.data import manifest

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("an image was opened")

    monkeypatch.setattr(manifest, "open_image", refuse)
    assert trainer_of(squares, frozen).fit().steps == 30


def test_evaluation_does_not_disturb_training(squares: Path, frozen: Any, tmp_path: Path) -> None:
    def noisy(model: DualEncoder) -> Mapping[str, float]:
        torch.rand(7)
        np.random.default_rng().random()
        return {"mrr": 1.0}

    trainer_of(squares, frozen, tmp_path / "without").fit()
    trainer_of(squares, frozen, tmp_path / "with", noisy, metric="mrr", evaluate_every=2).fit()
    assert losses(tmp_path / "without") == losses(tmp_path / "with")


def test_seeds_decide(squares: Path, frozen: Any, tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        trainer_of(squares, frozen, tmp_path / name, seed=seed).fit()
    assert losses(tmp_path / "a") == losses(tmp_path / "b") != losses(tmp_path / "c")


def test_accumulation_averages_micro_batches(squares: Path, frozen: Any) -> None:
    gradients = []
    for accumulate in (1, 2):
        trainer = trainer_of(squares, frozen, steps=1, accumulate=accumulate, clip_norm=None)
        trainer.step_module.eval()  # without dropout
        found = []
        for micro in range(2):
            # Both read the same two micro-batches of 8 rows.
            batch = TrainingData({"pairs": frozen[1]}, batch_size=8, seed=0, fingerprint="squares").batch(micro)
            if accumulate == 2:
                trainer._backward(batch, micro, False)
            else:
                found.append(trainer.step_module(batch)[0].total / 2)
        if found:
            torch.stack(found).sum().backward()
        gradients.append([p.grad for p in trainer.names])
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two)


def test_precision_is_a_runs_own(squares: Path, frozen: Any, tmp_path: Path) -> None:
    """bf16 in matrix products alone: another loss in the fourth digit, weights and optimizer in float32."""
    for name, precision in (("first", "fp32"), ("half", "bf16"), ("again", "fp32")):
        trainer = trainer_of(squares, frozen, tmp_path / name, steps=8, precision=precision)
        trainer.fit()
        states = [value for state in trainer.optimizer.state.values() for value in state.values()]
        assert {value.dtype for value in [*trainer.step_module.parameters(), *states]} == {torch.float32}
    first, half, again = (losses(tmp_path / name) for name in ("first", "half", "again"))
    assert first == again
    assert half != first
    assert half == pytest.approx(first, rel=2e-2)


def test_early_stop(squares: Path, frozen: Any) -> None:
    values = iter([5.0, 6.0, 4.0, 5.9, 7.0, 8.0])
    evaluate = lambda model: {"mrr": next(values)}  # noqa: E731
    result = trainer_of(squares, frozen, None, evaluate, metric="mrr", evaluate_every=2, patience=2).fit()
    assert (result.steps, result.best_step, result.best) == (8, 4, 6.0)


def test_the_average_is_what_is_evaluated_and_kept(squares: Path, frozen: Any) -> None:
    seen: list[str] = []

    def evaluate(model: DualEncoder) -> Mapping[str, float]:
        assert model.text_head is not None
        seen.append(hash_tensors(model.text_head.state_dict()))
        return {"mrr": float(len(seen))}

    trainer = trainer_of(squares, frozen, None, evaluate, metric="mrr", ema=0.9, evaluate_every=30)
    trainer.fit()
    assert trainer.model.text_head is not None
    assert hash_tensors(trainer.model.text_head.state_dict()) == seen[-1]
    plain = trainer_of(squares, frozen)
    plain.fit()
    assert plain.model.text_head is not None
    assert hash_tensors(plain.model.text_head.state_dict()) != seen[-1]


def test_a_loss_that_is_not_finite_ends_the_run(squares: Path, frozen: Any) -> None:
    trainer = trainer_of(squares, frozen)
    with torch.no_grad():
        next(iter(trainer.names)).fill_(float("nan"))
    with pytest.raises(DalrError, match=r"step 1: the loss is not finite"):
        trainer.fit()


def test_what_cannot_be_trained_is_told(squares: Path, frozen: Any) -> None:
    with pytest.raises(ConfigError, match=r"train\.metric: 'mpr' is not among"):
        trainer_of(squares, frozen, None, lambda model: {"mrr": 1.0}, metric="mpr", steps=1).fit()
    with pytest.raises(ValueError, match="exclude each other"):
        TrainConfig(chunk=4, accumulate=2)
    with pytest.raises(ValueError, match="not a multiple"):
        TrainConfig(batch_size=10, accumulate=4)


def test_the_log_tells_what_a_person_wants_to_know(squares: Path, frozen: Any, tmp_path: Path) -> None:
    trainer_of(squares, frozen, tmp_path, gradient_norms_every=10, trackers=["tensorboard"]).fit()
    steps = [event for event in read_log(tmp_path / "log.jsonl") if event["event"] == "step"]
    wanted = {"loss", "cross", "lr", "gradient_norm", "examples_per_second", "data_wait", "seconds_left"}
    assert wanted <= steps[0].keys()
    assert [step["step"] for step in steps if "gradient_norm/cross" in step] == [1, 11, 21]
    assert list(tmp_path.rglob("events.out.tfevents*")), "tensorboard was asked for"
    before = read_log(tmp_path / "log.jsonl")
    with open(tmp_path / "log.jsonl", "a") as stream:
        stream.write('{"event": "st')  # what a killed process leaves
    assert read_log(tmp_path / "log.jsonl") == before


def test_schedule() -> None:
    for schedule in ("cosine", "linear", "constant"):
        factors = [learning_rate_factor(step, 100, 0.1, schedule) for step in range(100)]
        assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
        assert factors[10] == pytest.approx(1.0)
        assert all(0 < factor <= 1 for factor in factors)
        falls = all(a >= b for a, b in itertools.pairwise(factors[10:]))
        assert falls
        assert (factors[-1] < 0.02) == (schedule != "constant")
