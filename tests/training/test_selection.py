"""Which weights a run keeps: guard and interpolation.

Invariants: without them nothing changes; the start is measured once, also over a resume; weights that cost more than
`drop` are never kept, and where all do, the start is; `stop` ends at that evaluation, `slow` halves the rates from
there; interpolation takes the α that measures best (found again by hand), keeps the guard, and goes towards the last
weights where the guard has kept none but the start; α = 1 is the trained model; what cannot be measured is refused.

The ability of these tests is the negative distance of the text head from its start: training takes it away for certain.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_trainer import trainer_of

from dalr.checkpoint import trained_state
from dalr.errors import ConfigError, UsageError
from dalr.evaluation.parts import retrieval_evaluator
from dalr.model import DualEncoder
from dalr.selection import between
from dalr.training_log import read_log

Figures = Callable[[DualEncoder], dict[str, float]]


@pytest.fixture
def figures(squares: Path, frozen: Any) -> Figures:
    retrieval = retrieval_evaluator(frozen[2])
    start = [p.detach().clone() for p in head(trainer_of(squares, frozen).model)]

    def measure(model: DualEncoder) -> dict[str, float]:
        moved = sum(float((p.detach() - q).square().sum()) for p, q in zip(head(model), start, strict=True)) ** 0.5
        return {"mrr": retrieval(model)["mrr"], "ability": -moved}

    return measure


def head(model: DualEncoder) -> list[torch.Tensor]:
    assert model.text_head is not None
    return list(model.text_head.parameters())


def events(out: Path, kind: str) -> list[dict[str, Any]]:
    return [event for event in read_log(out / "log.jsonl") if event["event"] == kind]


def weights(trainer: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in trained_state(trainer.step_module).items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


SETTINGS = {"steps": 20, "evaluate_every": 5, "metric": "mrr", "checkpoint_every": 5}


def test_a_guard_that_never_bites_changes_nothing(
    squares: Path,
    frozen: Any,
    figures: Figures,
    tmp_path: Path,
) -> None:
    plain = trainer_of(squares, frozen, tmp_path / "plain", figures, **SETTINGS)
    guarded = trainer_of(
        squares, frozen, tmp_path / "guarded", figures, guard={"metric": "ability", "drop": 1e9}, **SETTINGS
    )
    first, second = plain.fit(), guarded.fit()
    assert equal(weights(plain), weights(guarded))
    assert (first.best, first.best_step) == (second.best, second.best_step)
    assert first.best_step > 0
    assert [event["step"] for event in events(tmp_path / "guarded", "evaluation")] == [0, 5, 10, 15, 20]
    assert events(tmp_path / "guarded", "guard") == []


def test_stop(squares: Path, frozen: Any, figures: Figures, tmp_path: Path) -> None:
    probe = trainer_of(squares, frozen, tmp_path / "probe", figures, **SETTINGS)
    probe.fit()
    after = {event["step"]: event["ability"] for event in events(tmp_path / "probe", "evaluation")}
    assert after[5] > after[10] > after[20]
    drop = -(after[5] + after[10]) / 2
    guard = {"metric": "ability", "drop": drop}
    trainer = trainer_of(squares, frozen, tmp_path / "run", figures, guard=guard, **SETTINGS)
    result = trainer.fit()
    assert result.steps == 10
    assert result.best_step == 5
    assert figures(trainer.model)["ability"] == pytest.approx(after[5])
    assert result.figures["ability"] == after[5]  # what is told is of the weights that are kept
    (told,) = events(tmp_path / "run", "guard")
    assert (told["step"], told["start"]) == (10, 0.0)
    again = trainer_of(squares, frozen, tmp_path / "run", figures, guard=guard, **SETTINGS)
    assert again.fit().steps == 10  # stopped is stopped
    assert equal(weights(again), weights(trainer))

    strict = trainer_of(
        squares, frozen, tmp_path / "strict", figures, guard={"metric": "ability", "drop": 0.0}, **SETTINGS
    )
    start = weights(strict)
    result = strict.fit()
    assert (result.steps, result.best_step) == (5, 0)
    assert equal(weights(strict), start)
    assert result.figures["ability"] == 0.0


def test_the_best_weights_are_those_of_the_checkpoint(squares: Path, frozen: Any, tmp_path: Path) -> None:
    """A run that was killed after a better evaluation and before its checkpoint, and does not get there again."""
    seen: dict[int, dict[str, torch.Tensor]] = {}

    def run(values: list[float], out: Path, killed_at: int | None = None) -> Any:
        left = iter(values)
        trainer = trainer_of(squares, frozen, out, lambda model: {"mrr": next(left)}, **SETTINGS)

        def watch(event: dict[str, Any]) -> None:
            if event["event"] == "evaluation":
                seen[event["step"]] = weights(trainer)
                if event["step"] == killed_at:
                    raise KeyboardInterrupt

        trainer.progress = watch
        trainer.fit()
        return trainer

    with pytest.raises(KeyboardInterrupt):
        run([1.0, 2.0, 3.0], tmp_path / "run", killed_at=15)
    trainer = run([0.5, 0.4], tmp_path / "run")
    assert equal(weights(trainer), seen[10])
    assert not equal(seen[10], seen[15])


def test_another_run_does_not_go_on_from_these_checkpoints(squares: Path, frozen: Any, tmp_path: Path) -> None:
    trainer_of(squares, frozen, tmp_path / "run", steps=4).fit()
    for values, told in (
        ({"steps": 8}, "train.steps: 4 → 8"),
        ({"steps": 4, "objective": {"name": "clip", "cross_temperature": 0.1}}, "objective.cross_temperature"),
    ):
        with pytest.raises(UsageError, match=f"holds checkpoints of another run; changed: {told}"):
            trainer_of(squares, frozen, tmp_path / "run", **values).fit()  # type: ignore[arg-type]
    trainer = trainer_of(squares, frozen, tmp_path / "run", steps=4)
    trainer.inputs = {"data.train": "other"}
    with pytest.raises(UsageError, match=r"changed: inputs.data.train"):
        trainer.fit()
    assert trainer_of(squares, frozen, tmp_path / "run", steps=4).fit().steps == 4


def test_less_perplexity_is_better(squares: Path, frozen: Any, figures: Figures, tmp_path: Path) -> None:
    def lost(model: DualEncoder) -> dict[str, float]:
        found = figures(model)
        # 9 at the start and rising with the distance from it; falling from 10 as the model learns.
        return {"a.perplexity": 9 - found["ability"], "b.perplexity": 10 - found["mrr"] / 100}

    settings = {**SETTINGS, "metric": "b.perplexity"}
    plain = trainer_of(squares, frozen, tmp_path / "plain", lost, **settings)
    result = plain.fit()
    measured = {event["step"]: event["b.perplexity"] for event in events(tmp_path / "plain", "evaluation")}
    assert len(set(measured.values())) > 1
    assert result.best == min(measured.values())
    guard = {"metric": "b.perplexity", "drop": 0.0}
    free = trainer_of(squares, frozen, tmp_path / "free", lost, guard=guard, **settings)
    assert free.fit().steps == 20  # it only falls
    guard = {"metric": "a.perplexity", "drop": 0.0}
    strict = trainer_of(squares, frozen, tmp_path / "strict", lost, guard=guard, **settings)
    assert strict.fit().steps == 5


def test_slow(squares: Path, frozen: Any, figures: Figures, tmp_path: Path) -> None:
    guard = {"metric": "ability", "drop": 0.0, "action": "slow"}
    settings = {**SETTINGS, "schedule": "constant", "warmup": 0.0}
    trainer = trainer_of(squares, frozen, tmp_path, figures, guard=guard, **settings)
    assert trainer.fit().steps == 20
    rates = {event["step"]: event["lr"] for event in events(tmp_path, "step")}
    assert [rates[step] / rates[1] for step in (5, 6, 10, 11, 16)] == [1, 0.5, 0.5, 0.25, 0.125]
    cut = trainer_of(squares, frozen, tmp_path / "cut", figures, guard=guard, **settings)
    cut.total_steps = 10
    cut.fit()
    resumed = trainer_of(squares, frozen, tmp_path / "cut", figures, guard=guard, **settings)
    resumed.fit()
    assert [event["step"] for event in events(tmp_path / "cut", "evaluation")].count(0) == 1
    assert {event["step"]: event["lr"] for event in events(tmp_path / "cut", "step")} == rates


def test_interpolation(squares: Path, frozen: Any, figures: Figures, tmp_path: Path) -> None:
    shares = [0.0, 0.3, 0.6, 1.0]
    settings = {**SETTINGS, "schedule": "constant", "warmup": 0.0}
    trainer = trainer_of(squares, frozen, tmp_path / "whole", figures, interpolate=shares, **settings)
    start = weights(trainer)
    result = trainer.fit()
    plain = trainer_of(squares, frozen, None, figures, **{**settings, "checkpoint_every": None})
    plain.fit()
    end = weights(plain)
    measured = {event["alpha"]: event["mrr"] for event in events(tmp_path / "whole", "interpolate")}
    assert sorted(measured) == shares
    assert result.alpha == max(shares, key=lambda alpha: (measured[alpha], -alpha))
    assert result.best == measured[result.alpha]
    assert equal(weights(trainer), between(start, end, result.alpha))
    only = trainer_of(squares, frozen, None, figures, interpolate=[1.0], **{**settings, "checkpoint_every": None})
    assert only.fit().alpha == 1.0
    assert equal(weights(only), end)

    # After a resume the way still goes out from the start.
    cut = trainer_of(squares, frozen, tmp_path / "cut", figures, interpolate=shares, **settings)
    cut.total_steps = 10
    cut.fit()
    resumed = trainer_of(squares, frozen, tmp_path / "cut", figures, interpolate=shares, **settings)
    assert resumed.fit().alpha == result.alpha
    assert equal(weights(resumed), weights(trainer))


def test_interpolation_keeps_the_guard(squares: Path, frozen: Any, figures: Figures) -> None:
    plain = trainer_of(squares, frozen, None, figures, **SETTINGS)
    plain.fit()
    moved = -figures(plain.model)["ability"]
    settings: dict[str, Any] = {
        **SETTINGS,
        "guard": {"metric": "ability", "drop": moved / 2, "action": "slow", "factor": 0.999},
    }
    trainer = trainer_of(squares, frozen, None, figures, interpolate=[0.25, 1.0], **settings)
    trainer.selection.state.guarded = 0.0
    trainer.fit()
    assert figures(trainer.model)["ability"] >= -moved / 2


def test_a_share_of_the_way_where_every_step_cost_too_much(squares: Path, frozen: Any, figures: Figures) -> None:
    plain = trainer_of(squares, frozen, None, figures, **SETTINGS)
    plain.fit()
    moved = -figures(plain.model)["ability"]
    # Measured once, at the end: half the way is what the guard allows.
    settings: dict[str, Any] = {**SETTINGS, "evaluate_every": 1000, "guard": {"metric": "ability", "drop": 0.6 * moved}}
    trainer = trainer_of(squares, frozen, None, figures, interpolate=[0.5, 1.0], **settings)
    result = trainer.fit()
    assert result.alpha == 0.5
    assert result.best_step == result.steps
    assert -figures(trainer.model)["ability"] == pytest.approx(moved / 2, rel=1e-3)
    assert result.best == figures(trainer.model)["mrr"]
    # And the start where no share of it is safe.
    settings["guard"] = {"metric": "ability", "drop": 0.1 * moved}
    trainer = trainer_of(squares, frozen, None, figures, interpolate=[0.5, 1.0], **settings)
    assert trainer.fit().alpha == 0.0
    assert figures(trainer.model)["ability"] == 0.0


def test_what_cannot_be_measured(squares: Path, frozen: Any, figures: Figures) -> None:
    with pytest.raises(ConfigError, match=r"train.guard: nothing is measured"):
        trainer_of(squares, frozen, guard={"metric": "ability"})
    with pytest.raises(ConfigError, match=r"train.interpolate: nothing is measured"):
        trainer_of(squares, frozen, interpolate=[0.5])
    with pytest.raises(ConfigError, match=r"train.interpolate: needs a train.metric"):
        trainer_of(squares, frozen, None, figures, interpolate=[0.5])
    with pytest.raises(ConfigError, match=r"train.patience: needs a train.metric"):
        trainer_of(squares, frozen, None, figures, patience=2)
    with pytest.raises(ConfigError, match=r"train.guard.metric: 'sts_dev' is not among the figures ability, mrr"):
        trainer_of(squares, frozen, None, figures, guard={}, **SETTINGS).fit()
