"""What the scripts that fill tables share: figures kept in files, and their spread over seeds."""

import csv
import json
import os
import re
import shlex
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from dalr.config import Config
from dalr.data.manifest import Manifest
from dalr.files import write_json
from dalr.run_folder import check_same_run, read_run


def json_once(path: Path, only_read: bool, make: Callable[[], Any]) -> Any:
    """The JSON in `path`, made where there is none; None where it may only be read."""
    if path.is_file():
        return json.loads(path.read_text())
    if only_read:
        return None
    value = make()
    write_json(path, value)
    return value


def run_result(out: Path, config: Config) -> dict[str, Any] | None:
    """How a training ended, from its run folder; None where it has not. UsageError where it was by another config."""
    record = read_run(out) or {}
    if "result" in record:
        check_same_run(record, config, record.get("inputs", {}), out)
    result: dict[str, Any] | None = record.get("result")
    return result


def write_titles(path: Path, *manifests: Manifest) -> None:
    """The rows of some catalogues as one: a CSV with the columns id, image and title."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "image", "title"])
        for manifest in manifests:
            writer.writerows(zip(manifest.keys, manifest.images, manifest.texts, strict=True))


def write_result(path: Path, values: dict[str, Any]) -> None:
    """Write a result with the command that makes it; the folder of the data is $DALR_DATA in it."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--finished"]
    command = shlex.join(["python", f"scripts/{Path(sys.argv[0]).name}", *arguments])
    write_json(path, {"command": portable(command), **values})


def portable(command: str) -> str:
    """A command with ${DALR_DATA} where it names that folder, or what lies in it; what lies here is named from here.

    A shell reads it, and `dalr` itself does where quotes keep the shell from it.
    """
    command = re.sub(rf"(?<![\w./-]){re.escape(os.getcwd())}/", "", command)
    data = (os.environ.get("DALR_DATA") or "").rstrip("/")
    return re.sub(rf"(?<![\w./-]){re.escape(data)}(?![\w.-])", "${DALR_DATA}", command) if data else command


def with_earlier(path: Path | None, recipe: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The recipe and the cells to begin with: those that `path` already holds, so that a table can be filled in parts.

    What only one side says of the recipe (None says nothing) is kept. Ends the script where they contradict each other:
    cells of two recipes are no table.
    """
    if path is None or not path.is_file():
        return recipe, {}
    earlier = json.loads(path.read_text())
    cells: dict[str, Any] = earlier.pop("cells")
    del earlier["command"]
    try:
        # What was written and read again, so that a number's type or a tuple does not tell them apart.
        joined: dict[str, Any] = _joined(earlier, json.loads(json.dumps(recipe)), "")
    except ValueError as error:
        raise SystemExit(f"{path}: holds cells of another recipe ({error}); name another file, or remove it") from None
    return joined, cells


def _joined(earlier: Any, now: Any, key: str) -> Any:
    if isinstance(earlier, dict) and isinstance(now, dict):
        both = {**earlier, **now}
        for name in earlier.keys() & now.keys():
            both[name] = _joined(earlier[name], now[name], f"{key}.{name}".lstrip("."))
        return both
    if earlier is None or now is None or earlier == now:
        return earlier if now is None else now
    raise ValueError(f"{key}: {earlier} there, {now} now")


def print_cells(found: dict[str, Any], flat: Callable[[dict[str, Any]], Iterable[tuple[str, float]]]) -> None:
    """One line a cell of {group: {cell: {seed: figures}}}: what `flat` takes of them, as mean ± sd over the seeds.

    A figure that not all seeds have says over how many it is.
    """
    for name, cells in found.items():
        print(f"\n{name}")
        for cell, by_seed in cells.items():
            columns: dict[str, list[float]] = {}
            for figures in by_seed.values():
                for key, value in flat(figures):
                    columns.setdefault(key, []).append(value)
            shown = "  ".join(
                f"{key} {spread(values)}" + (f" ({len(values)} of them)" if len(values) < len(by_seed) else "")
                for key, values in columns.items()
            )
            print(f"  {cell:28}{shown}  ({len(by_seed)} seeds)")


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.2f} ± {deviation:.2f}"
