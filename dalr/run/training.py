"""A run: what a RunConfig describes, trained in a run folder, from where an earlier run stopped."""

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dalr.data.manifest import BadRow
from dalr.devices import on_cpu
from dalr.evaluation.catalogue import evaluate_retrieval
from dalr.files import write_atomically, write_json
from dalr.model_card import model_card
from dalr.run.assembly import Progress, assemble
from dalr.run.config import RunConfig
from dalr.run_folder import RUN_FILE, check_same_run, lock_run, read_run
from dalr.trainer import Trainer


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
    train_rows: int = 0
    bad_rows: int = 0
    figures: dict[str, float] = field(default_factory=dict)
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
    embedding: Progress | None = None,
    dry_run: bool = False,
) -> RunResult:
    """Train what `config` says into the run folder `out`, from where an earlier run with the same config stopped.

    `progress` gets every logged event, `embedding` the count of features computed before training. With `dry_run`
    everything is read and built, and nothing is trained or written.

    Raises UsageError (and ConfigError, DataError, ModelError below it) for what cannot be run, among it a run
    folder that holds another config, and DalrError when training fails.
    """
    from accelerate import PartialState

    out, main = Path(out), PartialState(cpu=on_cpu()).is_main_process
    settings = config.model_dump(mode="json")
    record = read_run(out)
    if record is not None and record["status"] == "finished" and not dry_run:
        check_same_run(record, settings, record.get("inputs", {}), out)
        return RunResult(**record["result"], is_main_process=main)
    with lock_run(out) if main and not dry_run else contextlib.nullcontext():
        plan = assemble(config, embedding)
        if record is not None:
            check_same_run(record, settings, plan.inputs, out)
        if dry_run:
            steps = config.train.steps or round(config.train.epochs * plan.data.batches_per_epoch)
            return RunResult(str(out), "checked", steps, train_rows=plan.train_rows, bad_rows=len(plan.bad))
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
        )
        ended = trainer.fit()
        val = None
        if main:
            trainer.model.save_pretrained(out)
            if plan.val is not None:
                val = evaluate_retrieval(trainer.model, plan.val, cache=config.data.cache, progress=embedding)
        result = RunResult(
            out=str(out),
            status="finished",
            steps=ended.steps,
            best_step=ended.best_step,
            metric=plan.train_config.metric,
            best=ended.best,
            seconds=round(ended.seconds, 2),
            train_rows=plan.train_rows,
            bad_rows=len(plan.bad),
            figures=ended.figures,
            val=val,
            is_main_process=main,
        )
        if main:
            write_atomically(out / "README.md", model_card(settings, result.as_json()))
            record = {"status": "finished", "config": settings, "inputs": plan.inputs, "result": result.as_json()}
            write_json(out / RUN_FILE, record)
        return result


def write_bad_rows(path: Path, bad: Sequence[BadRow]) -> None:
    """One JSON object a row that could not be used: its number, key and the reason."""
    lines = [json.dumps(asdict(row), ensure_ascii=False) for row in bad]
    write_atomically(path, "".join(f"{line}\n" for line in lines))
