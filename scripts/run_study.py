"""A study: methods × settings × seeds as a grid of `dalr train` runs, measured alike, compared and written down.

    python scripts/make_study_data.py --data $DALR_DATA --out runs/study/data
    python scripts/run_study.py configs/study/sentences.yaml --out runs/study/sentences \\
        --json assets/results/study_sentences.json

Restartable: a finished cell is not run again, a killed one goes on where it stopped, and one whose config or files have
changed is refused. `--shard 0/4` runs a quarter of the cells, on one of four machines that see the same folder;
`--finished` runs nothing and writes what is there; `--dry-run` checks every cell's config and prints its command. After
each cell OUT/table.md says what is known so far.
"""

import argparse
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from measured import json_once, portable, run_result, write_result
from pydantic import Field, model_validator
from rich.console import Console
from rich.markdown import Markdown
from study_measures import MEASURES, OF_IMAGES, Measured, Retrieval
from study_tables import compare, tables

from dalr.config import Config, changed_keys, load_config, read_yaml
from dalr.errors import DalrError, UsageError
from dalr.evaluation.retrieval import DIRECTIONS
from dalr.files import hash_file, hash_json, write_atomically, write_json
from dalr.objectives import ObjectiveConfig
from dalr.run import RunConfig, load_run_config
from dalr.run_folder import check_same_run, read_run
from dalr.training_log import read_log

# What a step's log tells of the loss; `TERMS` are those of DALR that an ablation goes through.
LOSS_PARTS = (
    "info", "cross", "cross_text", "consistency", "matching", "soft_cross", "soft_intra", "rank", "rank_cross",
    "agreement", "embedding", "score",
)  # fmt: skip
TERMS = (
    "info", "cross", "consistency", "soft_cross", "soft_intra", "rank", "rank_cross", "agreement", "embedding", "score",
)  # fmt: skip


class Study(Config):
    """A grid of trainings of one config.

    `methods` and `settings` are overrides under a name; in them `{out}` is the study's folder and `{seed}` the seed.
    Every method is run in every setting with every seed. `ablate` names a method of which each term is also left out,
    taken alone beside `info`, halved and doubled. `baseline` is what differences are taken from. `measures` are what
    is measured of each cell beside the metric that selects its weights; `data` holds sts/ and transfer/. In bf16
    (`precision`) the sentences of sts and transfer are embedded in two thirds of the time on CPUs that compute in it.
    """

    config: str
    seeds: list[int] = Field(min_length=1)
    methods: dict[str, list[str]] = Field(min_length=1)
    settings: dict[str, list[str]] = Field(default={"only": []}, min_length=1)
    ablate: str | None = None
    baseline: str
    measures: list[Literal["sts", "transfer", "geometry", "retrieval", "graded"]] = Field(default=["sts"])
    data: str
    retrieval: Retrieval = Retrieval()
    precision: Literal["fp32", "bf16"] = "fp32"

    @model_validator(mode="after")
    def _check(self) -> "Study":
        for key, name in (("baseline", self.baseline), ("ablate", self.ablate)):
            if name is not None and name not in self.methods:
                raise ValueError(f"{key}: '{name}' is none of the methods ({', '.join(self.methods)})")
        for name in (*self.methods, *self.settings):
            if not re.fullmatch(r"[\w.+-]+", name):
                raise ValueError(f"'{name}' names a folder: use letters, digits, _, ., + and -")
        if "graded" in self.measures and not self.retrieval.attributes:
            raise ValueError("retrieval.attributes: name the columns that graded looks at, or leave it out of measures")
        return self


@dataclass(frozen=True)
class Cell:
    """One training of the grid."""

    setting: str
    method: str
    seed: int
    config: str
    overrides: tuple[str, ...]
    out: Path

    @property
    def arguments(self) -> list[str]:
        """Of `dalr`."""
        return ["train", self.config, *self.overrides, "--out", str(self.out)]

    def beside(self, ending: str) -> Path:
        """A file beside its run folder: `log`, what the training said, or `json`, what it read and its memory."""
        return self.out.with_name(f"{self.out.name}.{ending}")

    def parsed(self) -> RunConfig:
        """Its config; ConfigError where it is none."""
        return load_run_config(self.config, self.overrides)


def main() -> None:
    """Run what is missing, then write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="YAML of the study")
    parser.add_argument("--out", type=Path, required=True, help="folder of the cells' run folders")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--shard", default="0/1", metavar="I/N", help="every N-th cell, from number I")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="an override of the study")
    parser.add_argument("--resamples", type=int, default=1000, help="of the bootstrap")
    parser.add_argument("--finished", action="store_true", help="train nothing, report what is there")
    parser.add_argument("--dry-run", action="store_true", help="check the cells and print their commands")
    options = parser.parse_args()
    try:
        study = load_config(Study, options.study, options.set)
        every = list(cells(study, options.out))
        for cell in every:
            try:
                cell.parsed()
            except DalrError as error:
                raise UsageError(f"{options.study}: {cell.setting}, {cell.method}: {error}") from None
        own = sharded(every, options.shard)
    except DalrError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    if options.dry_run:
        print("\n".join(shlex.join(["dalr", *cell.arguments]) for cell in own))
        return

    failed = {}
    screen = Console()
    for number, cell in enumerate(own, start=1):
        try:
            if not options.finished:
                train(cell)
            figures = measured(cell, study, options.finished)
        except DalrError as error:
            failed[str(cell.out)] = str(error)
            print(f"{cell.out}: {error}", file=sys.stderr, flush=True)
            continue
        if figures and not options.finished:
            print(f"{number}/{len(own)} {cell.out}: {json.dumps(summary(figures))}", flush=True)
            table = tables([known for _, known in found_in(every, study)], study.baseline)
            write_atomically(options.out / "table.md", table)
            if screen.is_terminal:
                screen.clear()
                screen.print(Markdown(table.partition("## Commands")[0]))

    finished = found_in(every, study)
    scored = [{**figures, "scores": scores_of(cell, study, figures)} for cell, figures in finished]
    differences = compare(scored, options.resamples)
    found = [figures for _, figures in finished]
    table = tables(found, study.baseline, differences)
    print(table)
    if found:
        write_atomically(options.out / "table.md", table)
    if options.json is not None:
        recipe = {"study": read_yaml(options.study), "overrides": options.set, "config": read_yaml(study.config)}
        write_result(options.json, {**recipe, "differences": differences, "cells": found, "failed": failed})
    if failed:
        raise SystemExit(f"{len(failed)} of {len(own)} cells failed; run it again, what is finished is kept")


def cells(study: Study, out: Path) -> Iterator[Cell]:
    """The whole grid, seed by seed, so that a part of it is already a comparison."""
    methods = {**study.methods, **(ablations(study) if study.ablate else {})}
    for seed in study.seeds:
        for setting, common in study.settings.items():
            for method, own in methods.items():
                filled = [text.replace("{out}", str(out)).replace("{seed}", str(seed)) for text in (*common, *own)]
                overrides = (*filled, f"train.seed={seed}")
                yield Cell(setting, method, seed, study.config, overrides, out / setting / f"{method}-{seed}")


def ablations(study: Study) -> dict[str, list[str]]:
    """Each term of the ablated method left out, alone beside `info` (which is alone itself), halved and doubled."""
    name = str(study.ablate)
    own = study.methods[name]
    objective: ObjectiveConfig = load_run_config(study.config, own).objective
    weights = {term: getattr(objective, term) for term in TERMS if getattr(objective, term)}
    found = {}
    for term, weight in weights.items():
        found[f"{name}.{term}.off"] = [*own, f"objective.{term}=0"]
        others = [f"objective.{other}=0" for other in weights if other not in (term, "info")]
        found[f"{name}.{term}.alone"] = [*own, *others]
        found[f"{name}.{term}.half"] = [*own, f"objective.{term}={weight / 2:g}"]
        found[f"{name}.{term}.double"] = [*own, f"objective.{term}={weight * 2:g}"]
    return found


def sharded(every: list[Cell], shard: str) -> list[Cell]:
    """The cells of `I/N`."""
    match = re.fullmatch(r"(\d+)/([1-9]\d*)", shard)
    if match is None or int(match[1]) >= int(match[2]):
        raise UsageError(f"--shard {shard}: expected I/N with I from 0 to N - 1, such as 0/4")
    return every[int(match[1]) :: int(match[2])]


SECTIONS = ("data", "model", "teachers", "leaks", "evaluation")


def files_read(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """(key, content) of every file and folder that a config's values name."""
    if isinstance(value, dict):
        for name, part in value.items():
            if name != "cache" and not name.endswith("split"):
                yield from files_read(part, f"{key}.{name}")
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from files_read(part, f"{key}.{number}")
    elif isinstance(value, str) and os.path.exists(value):
        yield key, content(value)


@cache
def content(path: str) -> str:
    """What a file or folder holds, as 32 hex digits; of a model's folder its weights. '' where there is nothing."""
    place = Path(path)
    if place.is_file():
        return hash_file(place)
    files = [file for file in place.rglob("*") if file.is_file() and "checkpoints" not in file.relative_to(place).parts]
    weights = [file for file in files if file.suffix == ".safetensors"]
    return hash_json(sorted((str(file.relative_to(place)), hash_file(file)) for file in weights or files))


def sources(config: RunConfig) -> dict[str, str]:
    """What a cell reads, by key of its config."""
    whole = config.model_dump(mode="json")
    return {key: print_ for section in SECTIONS for key, print_ in files_read(whole[section], section)}


def check_sources(cell: Cell) -> dict[str, Any]:
    """What is kept beside the cell; UsageError where what it reads is not what it read when it began."""
    known: dict[str, Any] = json_once(cell.beside("json"), True, dict) or {}
    if known and (moved := changed_keys(known["sources"], sources(cell.parsed()))):
        raise UsageError(
            f"{cell.out}: what it was trained on has changed since ({'; '.join(moved)}); remove the folder"
        )
    return known


def train(cell: Cell) -> None:
    """Train in a process of its own, so that its memory can be told, unless it is finished.

    Raises DalrError with what the process said where it fails.
    """
    if run_result(cell.out, cell.parsed()) is None:
        cell.out.parent.mkdir(parents=True, exist_ok=True)
        said = cell.beside("log")
        known = {"sources": sources(cell.parsed()), "peak_memory_gib": None}
        if (cell.out / "checkpoints").is_dir():
            check_sources(cell)
        write_json(cell.beside("json"), known)
        with open(said, "w", encoding="utf-8") as log:
            process = subprocess.Popen([sys.executable, "-m", "dalr", *cell.arguments], stdout=log, stderr=log)
            try:
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
            finally:
                # Where this process is told to end, so is the training: it holds the run folder.
                if process.returncode is None:
                    process.terminate()
                    process.wait()
        if process.returncode:
            last = said.read_text(encoding="utf-8").strip().splitlines()[-1:]
            raise DalrError(f"dalr train ended with {process.returncode}: {' '.join(last)} (all of it: {said})")
        # Linux counts in KiB. Of a run in several parts it is that of the last.
        write_json(cell.beside("json"), {**known, "peak_memory_gib": round(usage.ru_maxrss / 2**20, 2)})


def measured(cell: Cell, study: Study, only_read: bool) -> dict[str, Any]:
    """Everything about a finished cell, each measure taken once; nothing where it is not finished.

    Raises UsageError for one that was trained with another config.
    """
    record = read_run(cell.out)
    if record is None or "result" not in record:
        return {}
    config, result = cell.parsed(), record["result"]
    check_same_run(record, config, record.get("inputs", {}), cell.out)
    known = check_sources(cell)
    loaded = Measured(cell.out, config, Path(study.data), study.retrieval, study.precision)

    def measure(name: str) -> dict[str, Any]:
        figures, scores = MEASURES[name](loaded)
        # Under its name once it is whole: another shard may be reading.
        part = measure_path(cell, study, name, ".part.npz")
        np.savez_compressed(part, **scores)
        part.replace(measure_path(cell, study, name, ".npz"))
        return figures

    wanted = [name for name in study.measures if name not in OF_IMAGES or config.objective.uses_images]
    for name in () if only_read else wanted:
        if not measure_path(cell, study, name, ".npz").is_file():
            # Figures of a version that kept no scores by item cannot be compared: they are taken again.
            measure_path(cell, study, name, ".json").unlink(missing_ok=True)
    figures = {
        name: json_once(measure_path(cell, study, name, ".json"), only_read, partial(measure, name)) for name in wanted
    }
    log = read_log(cell.out / "log.jsonl")
    rates = [event["examples_per_second"] for event in log if "examples_per_second" in event]
    cost = {
        "seconds": result["seconds"],
        "examples_per_second": float(np.median(rates)) if rates else None,
        "gpu_memory_gib": result.get("gpu_memory_gib"),
    }
    return {
        "setting": cell.setting,
        "method": cell.method,
        "seed": cell.seed,
        "command": portable(shlex.join(["dalr", *cell.arguments])),
        "dev": result["best"],
        "steps": result["steps"],
        "cost": {**cost, "peak_memory_gib": known.get("peak_memory_gib")},
        "terms": curves(log) if cell.seed == study.seeds[0] else None,
        # A teacher's key ends in its name, which may be a folder.
        "inputs": {".".join(map(portable, key.split(".", 1))): seen for key, seen in record["inputs"].items()},
        "leaks": result["leaks"],
        **{name: value for name, value in figures.items() if value is not None},
    }


def curves(log: Sequence[Mapping[str, Any]]) -> dict[str, list[list[float]]]:
    """[step, value] of each term of the loss, by name, at no more than 41 steps."""
    steps = [event for event in log if event["event"] == "step"]
    steps = [steps[at] for at in sorted({round(at) for at in np.linspace(0, len(steps) - 1, 41)})] if steps else []
    there = {name: [[event["step"], round(event[name], 4)] for event in steps if name in event] for name in LOSS_PARTS}
    return {name: values for name, values in there.items() if values}


def measure_path(cell: Cell, study: Study, name: str, suffix: str) -> Path:
    """Where a measure of a cell is kept; measured on other files, or on others' content, it is another file."""
    folder = "transfer" if name == "transfer" else "sts"
    read: list[Any] = [study.data, content(f"{study.data}/{folder}")]
    if name in OF_IMAGES:
        read = [study.retrieval.model_dump(), content(study.retrieval.manifest) if study.retrieval.manifest else ""]
    elif study.precision != "fp32":
        read.append(study.precision)
    return cell.out / f"{name}-{hash_json(read)[:8]}{suffix}"


def found_in(every: list[Cell], study: Study) -> list[tuple[Cell, dict[str, Any]]]:
    """The cells that are finished, also those of other shards, and their figures."""
    found = []
    for cell in every:
        # What is wrong with a cell is told where it is its turn.
        with suppress(DalrError):
            figures = measured(cell, study, only_read=True)
            found += [(cell, figures)] if figures else []
    return found


def scores_of(cell: Cell, study: Study, figures: dict[str, Any]) -> dict[str, Any]:
    """By measure, what differences are tested on."""
    paths = {name: measure_path(cell, study, name, ".npz") for name in study.measures if name in figures}
    return {name: dict(np.load(path, allow_pickle=False)) for name, path in paths.items() if path.is_file()}


def summary(figures: dict[str, Any]) -> dict[str, float]:
    """The few numbers of a finished cell that a person waits for."""
    shown = {"dev": figures["dev"], "seconds": figures["cost"].get("seconds")}
    if "sts" in figures:
        shown["sts"] = figures["sts"]["avg"]
    if "transfer" in figures:
        shown["transfer"] = figures["transfer"]["avg7"]
    if "retrieval" in figures:
        shown |= {direction: figures["retrieval"][direction]["mrr"] for direction in DIRECTIONS}
    return shown


if __name__ == "__main__":
    # Told to end, it ends as by Ctrl-C; a reader that has gone (`| head`) ends it without a word.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    main()
