"""A run: what a RunConfig describes, trained in a run folder, from where an earlier run stopped."""

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from dalr.antlm.config import LanguageConfig
from dalr.checkpoint import list_checkpoints
from dalr.config import Config, as_yaml
from dalr.data.manifest import BadRow
from dalr.devices import on_cpu
from dalr.evaluation.catalogue import evaluate_retrieval
from dalr.files import write_atomically, write_json
from dalr.model_card import model_card
from dalr.progress import ProgressSink
from dalr.run.assembly import Plan, assemble
from dalr.run.config import RunConfig
from dalr.run_folder import CONFIG_FILE, RUN_FILE, check_same_run, lock_run, read_run, settings_of
from dalr.trainer import Trainer, check_trackers
from dalr.training_data import TrainingData


@dataclass(frozen=True)
class RunResult:
    """How `run_training` ended; `as_json` is what `dalr train --json` prints."""

    out: str
    status: str
    steps: int = 0
    best_step: int = 0
    metric: str | None = None
    best: float | None = None
    seconds: float = 0.0
    gpu_memory_gib: float | None = None
    train_rows: int = 0
    bad_rows: int = 0
    leaks: dict[str, Any] | None = None
    figures: dict[str, float] = field(default_factory=dict)
    alpha: float | None = None
    val: dict[str, Any] | None = None
    is_main_process: bool = True

    def as_json(self) -> dict[str, Any]:
        """All fields but the process's role."""
        return {name: value for name, value in vars(self).items() if name != "is_main_process"}


def run_training(
    config: RunConfig,
    out: str | Path,
    *,
    progress: Callable[[dict[str, Any]], None] | None = None,
    embedding: ProgressSink | None = None,
    dry_run: bool = False,
) -> RunResult:
    """Train what `config` says into the run folder `out`, from where an earlier run with the same config stopped.

    `progress` gets every logged event, `embedding` the count of features computed before training. With `dry_run`
    everything is read and built, and nothing is trained or written.

    Raises UsageError (and ConfigError, DataError, ModelError below it) for what cannot be run, among it a run
    folder that holds another config, and DalrError when training fails.
    """
    return carry_out(
        config,
        Path(out),
        partial(assemble, config, embedding),
        progress=progress,
        embedding=embedding,
        cache=config.data.cache,
        dry_run=dry_run,
    )


def carry_out(
    config: RunConfig | LanguageConfig,
    out: Path,
    build: Callable[[], Plan[Any]],
    *,
    more: Mapping[str, Config] | None = None,
    again: Config | None = None,
    progress: Callable[[dict[str, Any]], None] | None = None,
    embedding: ProgressSink | None = None,
    cache: str | None = None,
    dry_run: bool = False,
) -> RunResult:
    """`run_training` for any plan: `build` is called once something is to do.

    `config` and the sections of `more` tell one run from another. What is set in `again`, the config that makes the
    same model once more (None: `config`), is kept as config.yaml and shown in the model's README.
    """
    from accelerate import PartialState

    processes = PartialState(cpu=on_cpu())
    main = processes.is_main_process
    sections = {name: section.model_dump(mode="json") for name, section in (more or {}).items()}
    settings = settings_of(config, sections)
    own = as_yaml(again or config)
    record = read_run(out)
    finished = record is not None and record["status"] == "finished"
    if record is not None and not (finished or list_checkpoints(out / "checkpoints")):
        # It ended before there was anything to go on from: a mistake that is mended needs no new folder.
        record = None
    if record is not None:
        check_same_run(record, config, record.get("inputs", {}), out, sections)
        if finished and not dry_run:
            return RunResult(**record["result"], is_main_process=main)
    check_trackers(config.train)
    with lock_run(out) if main and not dry_run else contextlib.nullcontext():
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()  # of this run, not of one before it in this process
        plan = build()
        if record is not None:
            check_same_run(record, config, plan.inputs, out, sections)
        if isinstance(plan.data, TrainingData):
            plan.data.warn_of_large_batches(plan.train_config.accumulate)
        counts: dict[str, Any] = {"train_rows": plan.train_rows, "bad_rows": len(plan.bad), "leaks": plan.leaks}
        if dry_run:
            steps = plan.train_config.total_steps(plan.data.batches_per_epoch)
            return RunResult(str(out), "checked", steps, **counts, is_main_process=main)
        if main:
            write_json(out / RUN_FILE, {"status": "running", "config": settings, "inputs": plan.inputs})
            write_bad_rows(out / "bad_rows.jsonl", plan.bad)
        trainer = Trainer(
            plan.model,
            plan.objective,
            plan.data,
            plan.train_config,
            out=out,
            evaluate=plan.evaluate,
            progress=progress,
            restarts=plan.restarts,
            inputs=plan.inputs,
        )
        ended = trainer.fit()
        val = None
        if main:
            trainer.model.save_pretrained(out)
            if plan.save is not None:
                plan.save(out)
            if plan.val is not None:
                val = evaluate_retrieval(trainer.model, plan.val, cache=cache, progress=embedding)
        result = RunResult(
            out=str(out),
            status="finished",
            steps=ended.steps,
            best_step=ended.best_step,
            metric=plan.train_config.metric,
            best=ended.best,
            seconds=round(ended.seconds, 2),
            gpu_memory_gib=_gpu_memory(trainer.accelerator.device),
            **counts,
            figures=ended.figures,
            alpha=ended.alpha,
            val=val,
            is_main_process=main,
        )
        if main:
            write_atomically(out / CONFIG_FILE, own)
            write_atomically(out / "README.md", model_card(settings, result.as_json(), plan.inputs, own))
            record = {"status": "finished", "config": settings, "inputs": plan.inputs, "result": result.as_json()}
            write_json(out / RUN_FILE, record)
        # The next stage of a pipeline reads what the main process has written.
        processes.wait_for_everyone()
        return result


def write_bad_rows(path: Path, bad: Sequence[BadRow]) -> None:
    """One JSON object a row that could not be used: its number, key and the reason."""
    lines = [json.dumps(asdict(row), ensure_ascii=False) for row in bad]
    write_atomically(path, "".join(f"{line}\n" for line in lines))


def _gpu_memory(device: Any) -> float | None:
    """The most that tensors have held on a GPU since the run began, in GiB; None without one."""
    return round(torch.cuda.max_memory_allocated(device) / 2**30, 2) if device.type == "cuda" else None
