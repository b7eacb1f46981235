"""`dalr train`: a config in, a trained model folder out."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from dalr.cli import Json, app, command, print_json


@command(app, "train")
def train(
    config: Annotated[Path, typer.Argument(help="YAML config; see configs/.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Dotted overrides, such as train.lr=1e-4.")] = None,
    out: Annotated[Path, typer.Option("--out", help="Run folder: log, checkpoints and the model.")] = Path("runs/dalr"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check config and data, build everything, stop.")] = False,
    json_output: Json = False,
) -> None:
    """Train a model from a config; the run folder is a model that --model takes.

    A config names its manifests as data.train and data.val, its columns as data.image and data.text and its seed
    as train.seed. Started again with the same config, a run goes on from its newest whole checkpoint, and a
    finished one exits 0 at once; with a changed config it exits 2 and names the change. A config with the section
    `stages` is a pipeline: its stages run one after the other, and the dev figures are shown after each. One with a
    `schedule` is language modelling, causal and masked in turns; the run folder is a text encoder, and OUT/lm the
    language model with its head.

    --json prints: out, status (finished or checked), steps, best_step, metric, best, seconds, gpu_memory_gib (the
    most that its tensors held, or null), train_rows, bad_rows, leaks (rows that stand in test or dev sets, or
    null), figures (of the kept weights), alpha (the share of the way from the start that train.interpolate
    chose, or null), val (retrieval on data.val, as `eval retrieval` prints it, or null). For a pipeline: out,
    status, start (dev figures before the first stage) and stages (each: name, kind, out, steps, seconds,
    train_rows, bad_rows, leaks, figures).
    """
    from dalr.config import apply_overrides, parse_config, read_yaml
    from dalr.run import RunConfig
    from dalr.run.training import run_training

    values = apply_overrides(read_yaml(config), overrides or [])
    sink = _Lines(Console(stderr=True, soft_wrap=True))
    if "stages" in values:
        _pipeline(values, config, out, sink, dry_run, json_output)
        return
    if "schedule" in values:
        from dalr.antlm.config import LanguageConfig
        from dalr.run.language import run_language_modelling

        language = parse_config(LanguageConfig, values, str(config))
        result = run_language_modelling(language, out, progress=sink.event, dry_run=dry_run)
    else:
        settings = parse_config(RunConfig, values, str(config))
        result = run_training(settings, out, progress=sink.event, embedding=sink.embedding, dry_run=dry_run)
    if not result.is_main_process:
        return
    if json_output:
        print_json(result.as_json())
        return
    console = Console(soft_wrap=True)
    if dry_run:
        left = f", {result.bad_rows} rows left out" if result.bad_rows else ""
        console.print(f"the config is good: {result.train_rows} rows, {result.steps} steps{left}")
        return
    best = "" if result.best is None else f", best {result.metric} {result.best:.2f} at step {result.best_step}"
    console.print(f"trained {result.steps} steps in {result.seconds:.0f} s{best}", highlight=False)
    if result.bad_rows:
        console.print(f"{result.bad_rows} rows could not be used; see {out / 'bad_rows.jsonl'}", highlight=False)
    if result.val:
        for direction in ("text_to_image", "image_to_text"):
            found = result.val[direction]
            console.print(
                f"val {direction.replace('_', ' ')}: recall@1 {found['recall@1']:.1f}  recall@10 "
                f"{found['recall@10']:.1f}  MRR {found['mrr']:.1f}  ({found['queries']} queries, "
                f"{found['candidates']} candidates)",
                highlight=False,
            )
    console.print(f"model: {out}", highlight=False)


def _pipeline(
    values: dict[str, Any], config: Path, out: Path, sink: "_Lines", dry_run: bool, json_output: bool
) -> None:
    from accelerate import PartialState

    from dalr.cli.tables import show_table
    from dalr.config import parse_config
    from dalr.run.stages import run_stages
    from dalr.simcse.pipeline import PipelineResult, stage_table
    from dalr.simcse.stages import PipelineConfig

    settings = parse_config(PipelineConfig, values, str(config))

    def finished(result: PipelineResult) -> None:
        columns, rows = stage_table(result)
        sink.console.print(" · ".join(f"{name} {cell}" for name, cell in zip(columns, rows[-1], strict=True) if cell))

    result = run_stages(
        settings,
        out,
        source=str(config),
        progress=sink.event,
        embedding=sink.embedding,
        finished=finished,
        dry_run=dry_run,
    )
    if not PartialState().is_main_process:
        return
    if json_output:
        print_json(result.as_json())
    elif dry_run:
        typer.echo(f"the config is good: {len(settings.names)} stages, {', '.join(settings.names)}")
    else:
        show_table("dev figures after each stage", *stage_table(result))
        typer.echo(f"model: {out}")


# What an event of the guard has beside the ability that it guards.
_GUARD_EVENT = {"event", "step", "start", "rate", "stopped", "total_steps"}


class _Lines:
    """Training events as one status line on a terminal and as plain lines, at most one a few seconds, elsewhere."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.status = console.status("starting") if console.is_terminal else None
        self.last = 0.0

    def embedding(self, done: int, total: int) -> None:
        """Progress of the embedding before training."""
        self._show(f"embedding {done}/{total}", done == total)

    def event(self, event: dict[str, Any]) -> None:
        """One event of the training log."""
        kind = event["event"]
        if kind == "step":
            self._show(_step_line(event), event["step"] == event["total_steps"])
        elif kind == "evaluation":
            self.console.print(f"step {event['step']}: {_figures(event)}", highlight=False)
        elif kind == "guard":
            [(name, value)] = [(k, v) for k, v in event.items() if k not in _GUARD_EVENT]
            then = "training ends here" if event["stopped"] else f"on at {event['rate']:g} of the rate"
            self.console.print(
                f"step {event['step']}: {name} {value:.2f} is too far from the {event['start']:.2f} of the "
                f"start, these weights are not kept; {then}",
                highlight=False,
            )
        elif kind == "interpolate":
            self.console.print(f"{event['alpha']:.0%} of the way from the start: {_figures(event)}", highlight=False)
        elif kind == "resume":
            self.console.print(f"going on from step {event['step']}", highlight=False)

    def _show(self, text: str, always: bool) -> None:
        if self.status is not None:
            self.status.update(text)
            self.status.start()
            if always:
                self.status.stop()
        elif always or time.monotonic() - self.last > 5:
            self.console.print(text, highlight=False)
        if always or time.monotonic() - self.last > 5:
            self.last = time.monotonic()


def _figures(event: dict[str, Any]) -> str:
    """The first few of what was measured."""
    found = [f"{k} {v:.2f}" for k, v in event.items() if isinstance(v, float) and k not in ("best", "alpha")]
    return "  ".join(found[:4])


def _step_line(event: dict[str, Any]) -> str:
    known = {"event", "step", "epoch", "lr", "total_steps", "seconds", "seconds_left", "gradient_norm"}
    known |= {"examples_per_second", "data_wait", "loss"}
    terms = "  ".join(
        f"{name} {value:.3f}" for name, value in event.items() if name not in known and not name.startswith("gradient")
    )
    return (
        f"step {event['step']}/{event['total_steps']}  loss {event['loss']:.3f}  {terms}  "
        f"{event['examples_per_second']:.0f} examples/s  data wait {event['data_wait']:.0%}  "
        f"{event['seconds_left']:.0f} s left"
    )
