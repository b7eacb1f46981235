"""Schedules of language modelling written as text: `4_CLM+16_MLM+4_CLM` is 4 epochs causal, 16 masked, 4 causal.

AntLM (Yu et al. 2024, arXiv 2412.03275) writes its schedules so. A phase without a number shares the run equally with
the others (`MLM`, `CLM→MLM`). `MIX` is both in one step: a share of the rows causal, the rest masked, and a masked
token predicted by the place before it (GPT-BERT, Charpentier and Samuel 2024).
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

from dalr.errors import ConfigError

Objective = Literal["CLM", "MLM", "MIX"]
Unit = Literal["epoch", "step"]
_PHASE = re.compile(r"\s*(?:(?P<length>\d+(?:\.\d+)?)\s*_\s*)?(?P<kind>[A-Za-z]+)\s*")
_JOIN = re.compile(r"\+|→|->")


@dataclass(frozen=True)
class Phase:
    """One objective for a while; `length` in the schedule's unit, None for an equal share of the run."""

    kind: Objective
    length: float | None


def parse_schedule(text: str) -> list[Phase]:
    """The phases of a schedule. ConfigError says at which character it cannot be read, and what stands there."""
    phases: list[Phase] = []
    place = 0
    while True:
        found = _PHASE.match(text, place)
        kind = found["kind"].upper() if found else ""
        if found is None or kind not in get_args(Objective):
            raise _unreadable(text, place, f"expected {', '.join(get_args(Objective))}, with a number before it or not")
        length = None if found["length"] is None else float(found["length"])
        if length == 0:
            raise ConfigError(f"schedule '{text}': the phase '{found[0].strip()}' has length 0; leave it out")
        phases.append(Phase(kind, length))  # type: ignore[arg-type]
        place = found.end()
        if place == len(text):
            break
        join = _JOIN.match(text, place)
        if join is None:
            raise _unreadable(text, place, "expected + or → between two phases")
        place = join.end()
    counted = [phase for phase in phases if phase.length is not None]
    if counted and len(counted) < len(phases):
        raise ConfigError(f"schedule '{text}': give every phase a number, or none of them")
    return phases


def _unreadable(text: str, place: int, expected: str) -> ConfigError:
    rest = text[place:].strip()
    there = f"'{rest[:20]}' cannot be read" if rest else "it ends too early"
    return ConfigError(f"schedule '{text}': at character {place + 1} {there}; {expected} (such as 4_CLM+16_MLM+4_CLM)")


@dataclass(frozen=True)
class Timeline:
    """A schedule in steps: phase `i` is of kind `kinds[i]` and ends before step `ends[i]`."""

    kinds: tuple[Objective, ...]
    ends: tuple[int, ...]

    @property
    def steps(self) -> int:
        """Steps in all."""
        return self.ends[-1]

    @property
    def starts(self) -> tuple[int, ...]:
        """The first step of each phase."""
        return (0, *self.ends[:-1])

    def kind(self, step: int) -> Objective:
        """The objective of a step (from 0)."""
        return next(kind for kind, end in zip(self.kinds, self.ends, strict=True) if step < end)


def timeline(phases: Sequence[Phase], unit: Unit, steps_per_epoch: float, whole: float | None = None) -> Timeline:
    """The steps of each phase. `whole` is the run's length in `unit`, for phases that share it equally.

    Raises ConfigError where a phase comes out without a step, where a run of shared phases has no length, and where
    numbered phases are given one.
    """
    lengths = [phase.length for phase in phases if phase.length is not None]
    if lengths and whole is not None:
        raise ConfigError("train.epochs and train.steps: the schedule's own numbers say how long the run is; drop them")
    if not lengths:
        if whole is None:
            raise ConfigError(
                "schedule: a phase without a number needs the length of the run; set train.epochs or steps"
            )
        lengths = [whole / len(phases)] * len(phases)
    scale = steps_per_epoch if unit == "epoch" else 1.0
    ends = tuple(round(math.fsum(lengths[: number + 1]) * scale) for number in range(len(lengths)))
    for phase, (before, end) in zip(phases, pairwise((0, *ends)), strict=True):
        if end <= before:
            raise ConfigError(
                f"schedule: a phase {phase.kind} is shorter than one step ({steps_per_epoch:g} steps are an epoch); "
                "make it longer, or the batch smaller"
            )
    return Timeline(tuple(phase.kind for phase in phases), ends)
