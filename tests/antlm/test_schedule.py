"""Schedules as text.

Invariants: numbers, names without numbers, + and → are read; the phases in steps cover the run without a gap, rounded
on their sums; what cannot be read is named with its place; a phase of no length, or of less than a step, is refused.
"""

import pytest

from dalr.antlm.schedule import Phase, parse_schedule, timeline
from dalr.errors import ConfigError


def test_what_is_read() -> None:
    assert parse_schedule("4_CLM+16_MLM+4_CLM") == [Phase("CLM", 4), Phase("MLM", 16), Phase("CLM", 4)]
    assert parse_schedule("CLM→MLM") == parse_schedule(" clm -> mlm ") == [Phase("CLM", None), Phase("MLM", None)]
    assert parse_schedule("0.5_MIX") == [Phase("MIX", 0.5)]


def test_phases_in_steps() -> None:
    plan = timeline(parse_schedule("4_CLM+16_MLM+4_CLM"), "epoch", 2.5)
    assert plan.ends == (10, 50, 60)
    assert plan.starts == (0, 10, 50)
    assert plan.steps == 60
    assert [plan.kind(step) for step in (0, 9, 10, 49, 50, 59)] == ["CLM", "CLM", "MLM", "MLM", "CLM", "CLM"]
    assert timeline(parse_schedule("3_CLM+2_MLM"), "step", 100).ends == (3, 5)
    shared = timeline(parse_schedule("CLM→MLM"), "epoch", 3.5, whole=3)
    assert shared.ends == (5, 10)  # 5.25 and 10.5, the sums rounded: no step is lost between two phases
    assert timeline(parse_schedule("MLM"), "step", 3.5, whole=7).ends == (7,)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("4_CLM+16_XLM", "at character 7 '16_XLM' cannot be read"),
        ("4_CLM 16_MLM", "at character 7 '16_MLM' cannot be read; expected . or →"),
        ("4_CLM+", "at character 7 it ends too early"),
        ("", "at character 1 it ends too early"),
        ("4CLM", "at character 1 '4CLM' cannot be read"),
        ("4_CLM+0_MLM", "the phase '0_MLM' has length 0"),
        ("4_CLM+MLM", "give every phase a number, or none"),
    ],
)
def test_what_cannot_be_read(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_schedule(text)


def test_lengths_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match=r"a phase MLM is shorter than one step \(2 steps are an epoch\)"):
        timeline(parse_schedule("1_CLM+0.1_MLM"), "epoch", 2)
    with pytest.raises(ConfigError, match=r"set train.epochs or steps"):
        timeline(parse_schedule("CLM→MLM"), "epoch", 2)
    with pytest.raises(ConfigError, match=r"the schedule's own numbers"):
        timeline(parse_schedule("2_CLM"), "epoch", 2, whole=3)
