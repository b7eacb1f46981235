"""Runs the stages of a pipeline, each from the model that the one before has left."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dalr.config import as_yaml
from dalr.encoders.names import MODEL_FILE
from dalr.errors import UsageError
from dalr.files import write_atomically, write_json
from dalr.model import DualEncoder
from dalr.run_folder import CONFIG_FILE, RUN_FILE, check_same_run, read_run
from dalr.simcse.stages import PipelineConfig

# What runs one stage: (name, its training config as plain values, its run folder) → what came of it.
RunStage = Callable[[str, dict[str, Any], Path], dict[str, Any]]
Measure = Callable[[DualEncoder], dict[str, float]]


@dataclass(frozen=True)
class StageResult:
    """A stage that is done: where its model lies, what it trained on, and the dev figures of its model."""

    name: str
    kind: str
    out: str
    steps: int = 0
    seconds: float = 0.0
    train_rows: int = 0
    bad_rows: int = 0
    leaks: dict[str, Any] | None = None
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class PipelineResult:
    """How `run_pipeline` ended; `start` are the dev figures before the first stage (empty for an untrained start)."""

    out: str
    status: str
    start: dict[str, float]
    stages: list[StageResult]

    def as_json(self) -> dict[str, Any]:
        """What `dalr train --json` prints for a pipeline."""
        return asdict(self)


def run_pipeline(
    config: PipelineConfig,
    out: Path,
    *,
    run_stage: RunStage,
    measure: Measure,
    start: Callable[[], DualEncoder | None],
    is_main: bool = True,
    finished: Callable[[PipelineResult], None] = lambda result: None,
) -> PipelineResult:
    """Run every stage of `config` below `out/stages` and leave the last model in `out`.

    A finished stage is not run again, an interrupted one goes on from its newest checkpoint.

    Args:
        run_stage: trains a stage; returns steps, seconds, train_rows, bad_rows and leaks as far as it has them.
        measure: the dev figures of a model.
        start: the model before the first stage, or None where it has yet to be made.
        finished: is told after each stage what there is so far.

    Raises UsageError when `out` holds another pipeline, or the model that a stage starts from is gone.
    """
    settings = config.model_dump(mode="json")
    record = read_run(out)
    if record is not None:
        check_same_run(record, config, {}, out)
        if record["status"] == "finished":
            return _result(record["result"])
    known = _result(record["result"]) if record is not None and record.get("result") else None
    if known is None:
        model = start()
        known = PipelineResult(str(out), "running", measure(model) if model is not None else {}, [])
    if is_main:
        write_json(out / RUN_FILE, {"status": "running", "config": settings, "result": known.as_json()})
    done: list[StageResult] = []
    folder: Path | None = None
    for number, name in enumerate(config.names, start=1):
        before, folder = folder, out / "stages" / f"{number}-{name}"
        values = config.values(name, None if before is None else str(before))
        remembered = known.stages[number - 1] if number <= len(known.stages) else None
        if remembered is None or not (folder / MODEL_FILE).is_file():
            if before is not None and not (before / MODEL_FILE).is_file():
                raise UsageError(
                    f"stages.{name}: starts from the model in {before}, which is gone; remove {before} and all later "
                    f"stages' folders to train them again, or put it back"
                )
            ended = run_stage(name, values, folder)
            if not (folder / MODEL_FILE).is_file():
                raise UsageError(
                    f"stages.{name}: {folder} holds a finished run whose model is gone; remove the folder to train "
                    "this stage again, or put the model back"
                )
            figures = measure(DualEncoder.from_pretrained(folder))
            remembered = StageResult(name, config.kind(name), str(folder), **ended, figures=figures)
        done.append(remembered)
        now = PipelineResult(str(out), "running", known.start, done)
        if is_main:
            write_json(out / RUN_FILE, {"status": "running", "config": settings, "result": now.as_json()})
        finished(now)
    result = PipelineResult(str(out), "finished", known.start, done)
    if is_main:
        assert folder is not None
        DualEncoder.from_pretrained(folder).save_pretrained(out)
        write_atomically(out / CONFIG_FILE, as_yaml(config))
        write_atomically(out / "README.md", pipeline_card(config, result))
        write_json(out / RUN_FILE, {"status": "finished", "config": settings, "result": result.as_json()})
    return result


def pipeline_card(config: PipelineConfig, result: PipelineResult) -> str:
    """The README of the model that a pipeline leaves, as Markdown."""
    columns, rows = stage_table(result)
    table = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}", *(f"| {' | '.join(row)} |" for row in rows)]
    return (
        "---\nlibrary_name: dalr\ntags: [sentence-similarity]\n---\n\n# A dalr text encoder\n\n"
        f"Trained in {len(result.stages)} stages ({', '.join(stage.name for stage in result.stages)}) from "
        f"`{config.model.get('text', {}).get('name')}`. Correlations × 100 on dev data after each stage:\n\n"
        + "\n".join(table)
        + '\n\n```python\nfrom dalr import DualEncoder\n\nmodel = DualEncoder.from_pretrained("path/to/this/folder")\n'
        'texts = model.encode_text(["a red mug", "a scarlet cup"])\nprint(model.similarity(texts, texts))\n```\n\n'
        "## Settings\n\n```yaml\n" + as_yaml(config) + "```\n\n## Limits\n\n"
        "- It is known to work on what it was measured on; other languages or topics it may not know.\n"
        "- The licences of the encoder it started from, and of the data, apply to it.\n\n## The same again\n\n"
        "    dalr train path/to/this/folder/config.yaml --out another-folder\n\n"
        "in the working directory of the first time. Each stage's own run, with its data's fingerprints, is below "
        "`stages/`; the whole config is in `run.json`.\n"
    )


def stage_table(result: PipelineResult) -> tuple[list[str], list[list[str]]]:
    """(headings, rows) of the dev figures after each stage, with what each trained on."""
    names = list(dict.fromkeys(name for some in (result.start, *(s.figures for s in result.stages)) for name in some))
    rows = [["start", "", "", "", *_cells(result.start, names)]] if result.start else []
    for stage in result.stages:
        dropped = stage.leaks["dropped"] if stage.leaks else 0
        counts = [f"{stage.train_rows:,}", f"{dropped + stage.bad_rows:,}", f"{stage.steps:,}"]
        rows.append([stage.name, *counts, *_cells(stage.figures, names)])
    return ["stage", "rows", "dropped", "steps", *names], rows


def _cells(figures: dict[str, float], names: list[str]) -> list[str]:
    return [f"{figures[name]:.2f}" if name in figures else "" for name in names]


def _result(values: dict[str, Any]) -> PipelineResult:
    return PipelineResult(**{**values, "stages": [StageResult(**stage) for stage in values["stages"]]})
