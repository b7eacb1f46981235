"""The one training loop, for every method, on accelerate: a laptop's CPU or many processes by the same config.

Everything random in step `t` is drawn from `(seed, t)`, so a run that goes on from a checkpoint repeats exactly
what an uninterrupted one does, and evaluation cannot disturb it. The loop knows no method and no data format:
batches come by number, evaluation and saving are handed in.
"""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dalr.checkpoint import (
    BestWeights,
    Checkpoint,
    load_optimizer_tensors,
    load_trained_state,
    newest_checkpoint,
    optimizer_tensors,
    save_checkpoint,
    trained_state,
)
from dalr.config import changed_keys
from dalr.data.prefetch import Prefetch
from dalr.devices import on_cpu, precision_name
from dalr.ema import Ema
from dalr.encoders import keep_pages, parameter_groups
from dalr.errors import ConfigError, DalrError, MissingExtraError, UsageError
from dalr.files import hash_tensors
from dalr.losses import average_gradients
from dalr.model import DualEncoder
from dalr.objectives import Batch, LossParts, Objective, Step
from dalr.schedule import Restarts, epochs_done, learning_rate_factor, step_seed
from dalr.selection import Evaluate, Selection, TrainState
from dalr.train_config import TrainConfig
from dalr.training_log import Clock, Event, TrainingLog


class TrainData(Protocol):
    """Where batches come from: number `t` is a pure function of the seed, the data and the batch size."""

    batch_size: int
    batches_per_epoch: float
    prefetch: bool

    def batch(self, t: int, rank: int, world: int) -> Batch:
        """This process's rows of global batch `t`."""
        ...


@dataclass(frozen=True)
class TrainResult:
    """How a run ended: steps done, the best step and metric, seconds in all (over all resumes), figures of the
    kept weights.

    `alpha` is the share of the way from the start to the best weights that was taken, where `interpolate` asked for it.
    """

    steps: int
    best_step: int
    best: float | None
    seconds: float
    figures: dict[str, float]
    alpha: float | None = None


def check_trackers(config: TrainConfig) -> None:
    """MissingExtraError for a tracker that is not installed."""
    from accelerate.tracking import get_available_trackers

    installed = {tracker.value for tracker in get_available_trackers()}
    for name in config.trackers:
        if name not in installed:
            raise MissingExtraError(name, "track", f"train.trackers: {name}")


class Trainer:
    """Trains `model` with `objective` on `data`.

    Args:
        model: the pair of encoders; its `train` settings say which towers learn.
        objective: a method of `dalr.objectives`.
        data: batches by number.
        config: the schedule and the rest.
        out: run folder for the log and checkpoints; None keeps nothing on disk.
        evaluate: called with the model (EMA weights in place) in evaluation mode; returns named figures, of which
            `config.metric` selects the best weights. Without either the last weights are kept.
        progress: called with every event that is logged.
        restarts: where the learning rate or the optimizer begins anew; None is nowhere.
        inputs: hashes, by name, of what this run hangs on beside config, objective and frozen weights, such as its
            data: checkpoints in `out` of other inputs are another run's.

    Raises:
        ConfigError: where the config does not fit the processes or the data.
        UsageError: from `fit`, where `out` holds checkpoints of another run.
        MissingExtraError: for a tracker that is not installed.
    """

    def __init__(
        self,
        model: DualEncoder,
        objective: Objective,
        data: TrainData,
        config: TrainConfig,
        *,
        out: str | Path | None = None,
        evaluate: Evaluate | None = None,
        progress: Callable[[Event], None] | None = None,
        restarts: Restarts | None = None,
        inputs: Mapping[str, str] | None = None,
    ) -> None:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState

        check_trackers(config)
        # One process may train several models, each in a precision of its own.
        AcceleratorState._reset_state()
        self.config = config
        self.data = data
        self.out = None if out is None else Path(out)
        self.evaluate = evaluate
        self.progress = progress
        self.restarts = restarts or Restarts()
        self.inputs = dict(inputs or {})
        self.accelerator = Accelerator(
            cpu=on_cpu(),
            mixed_precision=precision_name(config.precision),
            log_with=list(config.trackers) or None,
            project_dir=None if self.out is None else str(self.out),
        )
        self._check_processes()
        self.total_steps = config.total_steps(data.batches_per_epoch)
        # Ops without a deterministic kernel warn and go on; the fill of fresh memory would only cost time.
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        self.step_module = Step(model, objective, config.compile)
        frozen = {name: p.detach() for name, p in self.step_module.named_parameters() if not p.requires_grad}
        self._frozen = hash_tensors(frozen) if self.out is not None else ""
        self.names = {p: name for name, p in self.step_module.named_parameters() if p.requires_grad}
        if not self.names:
            raise ConfigError(
                "model: nothing is in training; give the model heads, or set a tower's train=full or lora"
            )
        # Fused: one pass over the weights, and on a CPU no slow path for moments too small for a normal float, such as
        # those of rare words.
        self.optimizer = torch.optim.AdamW(self._parameter_groups(), lr=config.lr, betas=config.betas, fused=True)
        self.peaks = [group["lr"] for group in self.optimizer.param_groups]
        self.wrapped, self.prepared_optimizer = self.accelerator.prepare(self.step_module, self.optimizer)
        self.ema = Ema(self.names, config.ema)
        keeps_log = self.out is not None and self.accelerator.is_main_process
        self.log = TrainingLog(self.out / "log.jsonl" if keeps_log and self.out is not None else None)
        self.state = TrainState()
        best = BestWeights(None if self.out is None else self.out / "checkpoints" / "best.safetensors")
        writes = self.out is None or self.accelerator.is_main_process
        self.selection = Selection(config, self.step_module, self.ema, evaluate, best, self.state, writes=writes)
        self.step = 0

    @property
    def model(self) -> DualEncoder:
        """The model in training."""
        return self.step_module.model

    @property
    def _steps_per_epoch(self) -> float:
        return self.data.batches_per_epoch / self.config.accumulate

    def _check_processes(self) -> None:
        world, rows = self.accelerator.num_processes, self.config.batch_size // self.config.accumulate
        if rows % world:
            raise ConfigError(f"train.batch_size: {rows} rows a batch cannot be shared evenly by {world} processes")
        if self.data.batch_size != rows:
            raise ConfigError(f"train.batch_size: the data gives batches of {self.data.batch_size} rows, not {rows}")

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """Towers with their own rates and layer-wise decay; heads and the objective's own parameters at `lr`."""
        config, model = self.config, self.step_module.model
        groups: list[dict[str, Any]] = []
        if model.text is not None and model.config.text is not None:
            groups += parameter_groups(model.text, config.text_lr, model.config.text.lr_decay, config.weight_decay)
        if model.image is not None and model.config.image is not None:
            groups += parameter_groups(model.image, config.image_lr, model.config.image.lr_decay, config.weight_decay)
        for module in (model.text_head, model.image_head, self.step_module.objective):
            if module is not None:
                groups += parameter_groups(module, config.lr, 1.0, config.weight_decay)
        return _each_once(groups)

    # -- the loop ---------------------------------------------------------------------------------------------

    def fit(self) -> TrainResult:
        """Train to the end (from the newest whole checkpoint, if there is one) and leave the best weights in place."""
        if self.out is not None and self.accelerator.is_main_process:
            self.out.mkdir(parents=True, exist_ok=True)
        if self.accelerator.device.type == "cpu":
            keep_pages()
        self.selection.remember_start()
        self._resume()
        for event in self.selection.measure_start():
            self._log(event)
        if self.config.trackers:
            # A tracker takes plain values only; what is a list in the config it gets as text.
            plain = {name: value for name, value in self.config.model_dump(mode="json").items() if value is not None}
            plain = {name: value if isinstance(value, int | float) else str(value) for name, value in plain.items()}
            self.accelerator.init_trackers("dalr", config=plain)
        clock = Clock(self.state.seconds, self.config.accumulate)
        self.step_module.train()
        with self._batches() as batches:
            while self.step < self.total_steps and not self.state.stopped:
                self._one_step(batches, clock)
        self._end()
        self.step_module.eval()
        if self.config.trackers:
            self.accelerator.end_training()
        state = self.state
        best_step = state.best_step if state.kept else self.step
        return TrainResult(
            self.step, best_step, state.best, clock.total(), state.kept_figures or state.figures, state.alpha
        )

    def _one_step(self, batches: Prefetch[Batch], clock: Clock) -> None:
        config, t = self.config, self.step
        first, length = self.restarts.span(t, self.total_steps)
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            factor = learning_rate_factor(t - first, length, config.warmup, config.schedule)
            group["lr"] = peak * factor * self.state.rate
        if self.restarts.optimizer and t in self.restarts.starts:
            self.optimizer.state.clear()
        text = self.model.text
        if text is not None and text.moving_dropout is not None:
            text.moving_dropout.set_step(t, self.total_steps)
        self.step_module.objective.set_step(t, self.total_steps)
        wants_norms = config.gradient_norms_every is not None and t % config.gradient_norms_every == 0
        found: list[LossParts] = []
        norms: dict[str, float] = {}
        rows = 0
        for micro in range(config.accumulate):
            with clock.waiting():
                batch = batches.next()
            torch.manual_seed(step_seed(config.seed, t, micro, self.accelerator.process_index))
            parts, norms = self._backward(batch, micro, wants_norms)
            found.append(parts)
            rows += len(batch) * self.accelerator.num_processes
        norm = self._clip()
        self.prepared_optimizer.step()
        self.prepared_optimizer.zero_grad(set_to_none=True)
        self.ema.update(self.step)
        self.step += 1
        clock.rows += rows
        if self.step % config.log_every == 0 or self.step in (1, self.total_steps) or norms:
            self._log_step(found[-1], norm, norms, clock)
        self._after_step(clock)

    def _backward(self, batch: Batch, micro: int, wants_norms: bool) -> tuple[LossParts, dict[str, float]]:
        accelerator, config = self.accelerator, self.config
        if config.chunk is not None:
            # Two passes over chunks: gradients are averaged over the processes once, by hand, after the last.
            with accelerator.autocast():
                parts = self.step_module.cached_backward(batch.to(accelerator.device), config.chunk)
            average_gradients(self.names)
            return parts, {}
        last = micro == config.accumulate - 1
        with contextlib.nullcontext() if last else accelerator.no_sync(self.wrapped):
            parts, norms = self.wrapped(batch.to(accelerator.device), wants_norms)
            accelerator.backward(parts.total / config.accumulate)
        return parts, norms

    def _clip(self) -> Tensor:
        limit = self.config.clip_norm if self.config.clip_norm is not None else float("inf")
        norm: Tensor = nn.utils.clip_grad_norm_(list(self.names), limit)
        return norm

    def _after_step(self, clock: Clock) -> None:
        config, last = self.config, self.step == self.total_steps
        epoch_ends = epochs_done(self.step, self._steps_per_epoch) != epochs_done(self.step - 1, self._steps_per_epoch)
        if epoch_ends:
            epoch = epochs_done(self.step, self._steps_per_epoch)
            figures = self.step_module.objective.end_epoch(epoch)
            if figures:
                self._log({"event": "epoch", "step": self.step, "epoch": epoch, **figures})
        due = self.step % config.evaluate_every == 0 if config.evaluate_every else epoch_ends
        if self.evaluate is not None and (due or last):
            self._evaluate(clock)
        every = config.checkpoint_every
        if self.out is not None and (last or self.state.stopped or (self.step % every == 0 if every else epoch_ends)):
            self._save(clock)

    # -- evaluation -------------------------------------------------------------------------------------------

    def _evaluate(self, clock: Clock) -> None:
        for event in self.selection.evaluate(self.step):
            self._log(event)
        clock.pause_rate()

    def _end(self) -> None:
        """Put the best weights in place, or without evaluation the averages, or a share of the way to them."""
        self.accelerator.wait_for_everyone()
        self.selection.take_best()
        for event in self.selection.interpolate(self.step):
            self._log(event)

    # -- resume -----------------------------------------------------------------------------------------------

    def _save(self, clock: Clock) -> None:
        assert self.out is not None
        self.state.seconds = clock.total()
        if self.accelerator.is_main_process:
            checkpoint = Checkpoint(
                step=self.step,
                model=trained_state(self.step_module),
                optimizer=optimizer_tensors(self.optimizer, self.names),
                ema=self.ema.tensors,
                state=dict(vars(self.state)),
                run=self._run(),
                best=self.selection.best.path if self.state.kept else None,
            )
            save_checkpoint(self.out / "checkpoints", checkpoint, keep=self.config.keep)
        self.accelerator.wait_for_everyone()

    def _resume(self) -> None:
        checkpoint = None if self.out is None else newest_checkpoint(self.out / "checkpoints")
        if checkpoint is not None:
            changed = changed_keys(checkpoint.run, self._run())
            if changed:
                raise UsageError(
                    f"{self.out}: holds checkpoints of another run; changed: {'; '.join(changed)}. Choose another out, "
                    "or give the old values"
                )
            load_trained_state(self.step_module, checkpoint.model)
            load_optimizer_tensors(self.optimizer, self.names, checkpoint.optimizer)
            self.ema.load(checkpoint.ema)
            vars(self.state).update(checkpoint.state)
            self.step = checkpoint.step
            if checkpoint.best is not None and self.accelerator.is_main_process:
                self.selection.best.restore(checkpoint.best)
        self.log.cut_after(self.step if checkpoint is not None else -1)
        if checkpoint is not None:
            self._log({"event": "resume", "step": self.step})
        self.accelerator.wait_for_everyone()

    def _run(self) -> dict[str, Any]:
        """What tells this run from another, as plain values."""
        return {
            "train": self.config.model_dump(mode="json"),
            "objective": self.step_module.objective.settings(),
            "inputs": self.inputs,
            "frozen weights": self._frozen,
        }

    # -- progress ---------------------------------------------------------------------------------------------

    def _log_step(self, parts: LossParts, norm: Tensor, norms: dict[str, float], clock: Clock) -> None:
        values = parts.values()
        if not all(value == value and abs(value) != float("inf") for value in values.values()):
            raise DalrError(
                f"step {self.step}: the loss is not finite ({values}); lower train.lr, raise train.warmup, or check "
                "the data with dalr check"
            )
        event: Event = {
            "event": "step",
            "step": self.step,
            "epoch": round(self.step / self._steps_per_epoch, 3),
            **values,
            "lr": self.optimizer.param_groups[-1]["lr"],
            "gradient_norm": float(norm),
            **{f"gradient_norm/{name}": value for name, value in norms.items()},
            **clock.figures(self.step, self.total_steps),
        }
        self._log(event)

    def _log(self, event: Event) -> None:
        if not self.accelerator.is_main_process:
            return
        self.log.write(event)
        if self.config.trackers:
            # The step goes beside the values: some trackers keep its name for themselves.
            plain = {name: value for name, value in event.items() if isinstance(value, int | float) and name != "step"}
            self.accelerator.log(plain, step=self.step)
        if self.progress is not None:
            self.progress({**event, "total_steps": self.total_steps})

    def _batches(self) -> Prefetch[Batch]:
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        first = self.step * self.config.accumulate
        ahead = self.config.prefetch if self.data.prefetch else 0
        return Prefetch(lambda t: self.data.batch(t, rank, world), first, ahead)


def _each_once(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The groups, a weight that several modules share (tied embeddings) in the first of them alone."""
    seen: set[nn.Parameter] = set()
    for group in groups:
        group["params"] = [parameter for parameter in group["params"] if parameter not in seen]
        seen.update(group["params"])
    return [group for group in groups if group["params"]]
