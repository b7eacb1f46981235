"""Which weights a run keeps: measured as it goes, guarded, the best of them, or a share of the way to them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dalr.checkpoint import BestWeights, load_trained_state, trained_state
from dalr.ema import Ema
from dalr.errors import ConfigError
from dalr.model import DualEncoder
from dalr.objectives import Step
from dalr.train_config import TrainConfig
from dalr.training_log import Event

Evaluate = Callable[[DualEncoder], Mapping[str, float]]


@dataclass
class TrainState:
    """What a run remembers beside tensors; lies in the checkpoint as JSON.

    Attributes:
        best, best_step: the best figure so far, and where; `kept` says whether any weights are kept for it.
        bad_evaluations: how many since then.
        stopped: training ends before its last step.
        guarded: the guarded ability before the first step.
        rate: by what the guard has slowed the learning rates.
        alpha: the share of the way from the start that was taken after training.
        seconds: of all processes that this run had.
        figures, kept_figures: of the last evaluation; of the weights that are kept, empty where none are.
    """

    best: float | None = None
    best_step: int = 0
    kept: bool = False
    bad_evaluations: int = 0
    stopped: bool = False
    guarded: float | None = None
    rate: float = 1.0
    alpha: float | None = None
    seconds: float = 0.0
    figures: dict[str, float] = field(default_factory=dict)
    kept_figures: dict[str, float] = field(default_factory=dict)


class Selection:
    """Measures the weights in training and keeps those that the config asks for; each method gives events to log.

    Args:
        config: metric, patience, guard and interpolation.
        module: model and objective; their weights are read and, at the end, replaced.
        ema: running averages, which are what is measured and kept.
        evaluate: called with the model in evaluation mode; returns named figures. None measures nothing.
        best: keeps weights.
        state: updated in place.
        writes: whether this process keeps the weights.
    """

    def __init__(
        self,
        config: TrainConfig,
        module: Step,
        ema: Ema,
        evaluate: Evaluate | None,
        best: BestWeights,
        state: TrainState,
        *,
        writes: bool,
    ) -> None:
        self.config, self.module, self.ema, self.measures = config, module, ema, evaluate
        self.best, self.state, self.writes = best, state, writes
        self._start: dict[str, Tensor] = {}
        if evaluate is None and (config.guard is not None or config.interpolate):
            name = "guard" if config.guard is not None else "interpolate"
            raise ConfigError(f"train.{name}: nothing is measured; name data.val, evaluation.sts or evaluation.pairs")
        for key in ("interpolate", "patience"):
            if getattr(config, key) and config.metric is None:
                raise ConfigError(f"train.{key}: needs a train.metric to choose by")

    def remember_start(self) -> None:
        """Call before anything is trained or resumed: interpolation goes out from these weights."""
        if self.config.interpolate:
            self._start = {name: value.detach().clone() for name, value in trained_state(self.module).items()}

    def measure_start(self) -> Iterator[Event]:
        """Call before the first step: a guard compares with what the start can do, and keeps it until there is more."""
        if self.config.guard is not None and self.state.guarded is None:
            yield from self.evaluate(0)

    def evaluate(self, step: int) -> Iterator[Event]:
        """Measure; keep the weights where they are the best so far and cost no guarded ability."""
        config, state = self.config, self.state
        with self.ema.in_place():
            figures = self._figures()
        state.figures = figures
        safe = self._is_safe(figures)
        if not safe and config.guard is not None:
            if config.guard.action == "stop":
                state.stopped = True
            else:
                state.rate *= config.guard.factor
            value = figures[config.guard.metric]
            yield {
                "event": "guard",
                "step": step,
                config.guard.metric: value,
                "start": state.guarded,
                "rate": state.rate,
                "stopped": state.stopped,
            }
        if config.metric is None:
            if safe and config.guard is not None:
                self._keep(step)
            yield {"event": "evaluation", "step": step, **figures}
            return
        value = self._figure(figures, "metric", config.metric)
        if safe and (state.best is None or self._beats(value, state.best)):
            state.best, state.best_step, state.bad_evaluations = value, step, 0
            self._keep(step)
        else:
            state.bad_evaluations += 1
        if config.patience is not None and state.bad_evaluations >= config.patience:
            state.stopped = True
        yield {"event": "evaluation", "step": step, **figures, "best": state.best, "best_step": state.best_step}

    def take_best(self) -> None:
        """Load the kept weights, or where none were kept the averages, into the model.

        Where the guard has kept the start alone, the shares of the way that are tried next are of the way to the last.
        """
        kept = self.state.kept and not (self.config.interpolate and self.state.best_step == 0)
        load_trained_state(self.module, self.best.load() if kept else self._weights())

    def interpolate(self, step: int) -> Iterator[Event]:
        """Take the share of `config.interpolate` that measures best, of equal ones the nearest to the start.

        None that costs the guarded ability is taken; where all do, it is the start itself.
        """
        if not self.config.interpolate:
            return
        end = {name: value.detach().clone() for name, value in trained_state(self.module).items()}
        # The start has a figure where a guard measured it and nothing since was better and safe.
        best, best_value = 0.0, self.state.best if self.state.best_step == 0 else None
        kept_figures = self.state.kept_figures
        for alpha in sorted(self.config.interpolate):
            load_trained_state(self.module, between(self._start, end, alpha))
            known = alpha == 1 and self.state.best_step == step  # the last evaluation's
            figures = self.state.figures if known else self._figures()
            yield {"event": "interpolate", "step": step, "alpha": alpha, **figures}
            value = self._figure(figures, "metric", self.config.metric)
            if self._is_safe(figures) and (best_value is None or self._beats(value, best_value)):
                best, best_value, kept_figures = alpha, value, figures
        load_trained_state(self.module, between(self._start, end, best))
        self.state.alpha = best
        # Where no share is safe it is the start, which nothing but a guard that selects has measured.
        self.state.kept_figures = self._figures() if best_value is None else kept_figures
        if best_value is not None:
            self.state.best = best_value
        if best > 0 and self.state.best_step == 0:
            self.state.best_step = step

    def _figures(self) -> dict[str, float]:
        assert self.measures is not None
        self.module.eval()
        with torch.no_grad():
            figures = {name: float(value) for name, value in self.measures(self.module.model).items()}
        self.module.train()
        return figures

    def _is_safe(self, figures: Mapping[str, float]) -> bool:
        guard, state = self.config.guard, self.state
        if guard is None:
            return True
        value = self._figure(figures, "guard.metric", guard.metric)
        if state.guarded is None:
            state.guarded = value
        worse = state.guarded - value if not is_loss(guard.metric) else value - state.guarded
        return worse <= guard.drop

    def _figure(self, figures: Mapping[str, float], key: str, name: str | None) -> float:
        if name is None or name not in figures:
            raise ConfigError(f"train.{key}: '{name}' is not among the figures {', '.join(sorted(figures))}")
        return figures[name]

    def _beats(self, value: float, other: float) -> bool:
        wanted = self.config.greater_is_better and not is_loss(str(self.config.metric))
        return value > other if wanted else value < other

    def _keep(self, step: int) -> None:
        self.state.kept, self.state.best_step, self.state.kept_figures = True, step, self.state.figures
        if self.writes:
            self.best.keep(self._weights())

    def _weights(self) -> dict[str, Tensor]:
        """The weights that a user of the model would get now: the averages where there are some."""
        return trained_state(self.module) | self.ema.tensors


def is_loss(metric: str) -> bool:
    """Whether less of a figure is better, by its name."""
    return metric.endswith(("perplexity", "median_rank"))


def between(start: Mapping[str, Tensor], end: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """Weights `alpha` of the way from `start` to `end`; what is no float is `end`'s."""
    return {
        name: torch.lerp(start[name], value, alpha) if value.is_floating_point() else value
        for name, value in end.items()
    }
