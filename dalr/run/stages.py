"""Pipelines of stages as `dalr train` runs them: each stage's config checked first, then each carried out."""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dalr.config import parse_config
from dalr.devices import on_cpu
from dalr.errors import ConfigError
from dalr.evaluation.leaks import LeakCheck
from dalr.evaluation.retrieval import FIGURES
from dalr.files import hash_json, write_json
from dalr.model import DualEncoder, ModelConfig
from dalr.progress import ProgressSink
from dalr.run.assembly import Measures, Plan, choose_measures
from dalr.run.config import DataSection, EvaluationConfig, RunConfig
from dalr.run.texts import read_texts
from dalr.run.training import carry_out, run_training, write_bad_rows
from dalr.run_folder import RUN_FILE, check_same_run, lock_run, read_run, settings_of
from dalr.simcse.multitask import TaskObjective, TasksConfig, evaluate_tasks, save_heads, task_rows
from dalr.simcse.pipeline import PipelineResult, run_pipeline
from dalr.simcse.stages import KINDS, PipelineConfig
from dalr.simcse.tasks import read_task
from dalr.training_data import TrainingData

Event = dict[str, Any]


def run_stages(
    config: PipelineConfig,
    out: str | Path,
    *,
    source: str = "config",
    progress: Callable[[Event], None] | None = None,
    embedding: ProgressSink | None = None,
    finished: Callable[[PipelineResult], None] = lambda result: None,
    dry_run: bool = False,
) -> PipelineResult:
    """Run a pipeline into the folder `out`, from where an earlier call with the same config stopped.

    Every stage's config is checked before the first is trained; with `dry_run` its data are read too, and that is all.
    `progress` gets each logged event, `finished` what there is after each stage. Raises as `run_training` does.
    """
    from accelerate import PartialState

    main, out = PartialState(cpu=on_cpu()).is_main_process, Path(out)
    parsed = [
        stage_config(config, name, config.values(name, "the stage before" if number else None), source)
        for number, name in enumerate(config.names)
    ]
    first = parsed[0]
    settings = parse_config(EvaluationConfig, config.evaluation, f"{source}: evaluation")
    measures = choose_measures(None, settings.sts, settings.pairs)
    for name, stage in zip(config.names, parsed, strict=True):
        check_measured(config, name, stage, measures)
    if dry_run:
        for name, stage in zip(config.names, parsed, strict=True):
            check_data(config, name, stage)
        return PipelineResult(str(out), "checked", {}, [])

    def run_stage(name: str, values: dict[str, Any], folder: Path) -> dict[str, Any]:
        parsed = stage_config(config, name, values, source)
        kind = config.kind(name)
        if KINDS[kind].fitted:
            return fit_stage(parsed, kind, config.stages[name].dim, folder)
        if kind == "tasks":
            return tasks_stage(parsed, tasks_of(config, name), folder, progress)
        result = run_training(parsed, folder, progress=progress, embedding=embedding)
        return _counts(result.as_json())

    def start() -> DualEncoder | None:
        text = first.model.text
        return None if text is None or text.name == "new" else DualEncoder.build(first.model)

    with lock_run(out) if main else contextlib.nullcontext():
        return run_pipeline(
            config,
            out,
            run_stage=run_stage,
            measure=measures.evaluate if measures.evaluate is not None else lambda model: {},
            start=start,
            is_main=main,
            finished=finished,
        )


def tasks_of(config: PipelineConfig, name: str) -> TasksConfig:
    """What a stage of kind tasks trains on."""
    return TasksConfig(tasks=config.stages[name].tasks, sampling=config.stages[name].sampling)


def check_measured(config: PipelineConfig, name: str, stage: RunConfig, measures: Measures) -> None:
    """ConfigError for what a stage would select or be guarded by and does not measure; `measures` are those of all."""
    kind = config.kind(name)
    try:
        if kind == "tasks":
            tasks_of(config, name).selecting(stage.train)
        elif not KINDS[kind].fitted:
            looks = FIGURES if stage.data.val or stage.data.dev else ()
            replace(measures, names=[*measures.names, *looks]).selecting(stage.train)
    except ConfigError as error:
        raise ConfigError(f"stages.{name}: {error}") from None


def check_data(config: PipelineConfig, name: str, stage: RunConfig) -> None:
    """Read what a stage would train on; errors as in training."""
    for task in config.stages[name].tasks.values():
        read_task(task, stage.train.seed)
    if config.kind(name) != "tasks":
        read_texts(stage.data, LeakCheck.load(stage.leaks))


def stage_config(config: PipelineConfig, name: str, values: dict[str, Any], source: str) -> RunConfig:
    """The typed training config of a stage. Raises ConfigError that names the stage."""
    kind = config.kind(name)
    where = f"{source}: stages.{name}"
    reads = KINDS[kind].reads
    parse_config(DataSection, values["data"], f"{where}.data")
    if reads and not values["data"].get(reads):
        raise ConfigError(f"{where}.data.{reads}: a stage of kind {kind} reads it; name a file")
    if kind == "tasks":
        # It brings its own data and losses; the rest of the sections are checked as those of any run.
        values = {**values, "data": {"corpus": "the tasks' own files"}, "objective": {"name": "simcse"}}
    else:
        # What other kinds of stage read may stand in the sections that all share.
        others = {other.reads for other in KINDS.values()} - {reads, ""}
        values = {**values, "data": {key: value for key, value in values["data"].items() if key not in others}}
        if KINDS[kind].fitted:
            values["objective"] = {"name": "simcse"}
    return parse_config(RunConfig, values, where)


def tasks_stage(
    config: RunConfig, tasks: TasksConfig, out: Path, progress: Callable[[Event], None] | None
) -> dict[str, Any]:
    """Train the tasks of the minBERT setting and keep their heads beside the model."""
    values = config.model_dump(mode="json", exclude_defaults=True, exclude={"objective": True, "data": {"corpus"}})
    stage = {"kind": "tasks", **tasks.model_dump(mode="json", exclude_defaults=True)}
    again = parse_config(PipelineConfig, {**values, "stages": {"tasks": stage}})
    build = partial(assemble_tasks, config, tasks)
    result = carry_out(config, out, build, more={"tasks": tasks}, again=again, progress=progress)
    return _counts(result.as_json())


def assemble_tasks(config: RunConfig, tasks: TasksConfig) -> Plan[TrainingData]:
    """Read the tasks' files and build model, heads and evaluation."""
    check = LeakCheck.load(config.leaks)
    settings = tasks.selecting(config.train)
    parts = {}
    for name, task in tasks.tasks.items():
        train, dev, some = read_task(task, config.train.seed)
        if check is not None:
            kept = (
                check.kept_texts(train.first) if train.second is None else check.kept_pairs(train.first, train.second)
            )
            train = train.rows(np.flatnonzero(kept))
        parts[name] = train, dev, some
    torch.manual_seed(config.train.seed)
    model = DualEncoder.build(config.model, corpus=[text for train, _, _ in parts.values() for text in train.first])
    if model.text is None or model.text.train_mode == "frozen":
        raise ConfigError("model.text.train: a stage of kind tasks trains the text tower; set it to full or lora")
    inputs = {"model": model.fingerprint("text")}
    torch.manual_seed(config.train.seed)
    objective = TaskObjective(tasks, model.text.width)
    rows = {name: task_rows(train, model) for name, (train, _, _) in parts.items()}
    for key, own in (
        ("tasks", [train for train, _, _ in parts.values()]),
        ("tasks.dev", [dev for _, dev, _ in parts.values()]),
    ):
        inputs[key] = hash_json([[part.first, part.second, part.target.tolist()] for part in own])
    data = TrainingData(
        rows,
        batch_size=config.train.batch_size // config.train.accumulate,
        seed=config.train.seed,
        fingerprint=inputs["tasks"],
        mix=tasks.mix({name: len(part) for name, part in rows.items()}),
    )
    evaluate = partial(evaluate_tasks, objective=objective, parts={name: dev for name, (_, dev, _) in parts.items()})
    bad = [row for *_, some in parts.values() for row in some]
    count = sum(len(part) for part in rows.values())
    return Plan(
        model,
        objective,
        data,
        settings,
        evaluate,
        None,
        inputs,
        count,
        bad,
        leaks=check.report.as_json() if check is not None else None,
        save=partial(save_heads, objective),
    )


def fit_stage(config: RunConfig, kind: str, dim: int | None, out: Path) -> dict[str, Any]:
    """Fit whitening or centring to the embeddings of the stage's corpus and save the model with it."""
    from accelerate import PartialState

    processes = PartialState(cpu=on_cpu())
    fitted = {"fit": kind, "dim": dim}
    settings = settings_of(config, fitted)
    record = read_run(out)
    if record is not None and record["status"] == "finished":
        check_same_run(record, config, record.get("inputs", {}), out, fitted)
        return _counts(record["result"])
    check = LeakCheck.load(config.leaks)
    texts = read_texts(config.data, check)
    counts = {
        "train_rows": len(texts.corpus),
        "bad_rows": len(texts.bad),
        "leaks": check.report.as_json() if check is not None else None,
    }
    model = DualEncoder.build(config.model.model_copy(update={"text": _frozen(config.model)}))
    assert model.text is not None
    if kind == "whiten":
        model.text.add_whitening(texts.corpus, dim=dim)
    else:
        model.text.add_centring(texts.corpus)
    if processes.is_main_process:
        write_json(out / RUN_FILE, {"status": "running", "config": settings})
        write_bad_rows(out / "bad_rows.jsonl", texts.bad)
        model.save_pretrained(out)
        write_json(out / RUN_FILE, {"status": "finished", "config": settings, "result": counts})
    processes.wait_for_everyone()
    return counts


def _frozen(model: ModelConfig) -> Any:
    assert model.text is not None
    return model.text.model_copy(update={"train": "frozen"})


def _counts(result: dict[str, Any]) -> dict[str, Any]:
    return {name: result[name] for name in ("steps", "seconds", "train_rows", "bad_rows", "leaks") if name in result}
