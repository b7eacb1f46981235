"""The run folder: whose it is, whether it is the same run, and that one process alone trains into it.

It holds `run.json` (the config, what was read and how it ended), `log.jsonl`, `checkpoints/`, `bad_rows.jsonl`
and, once finished, the model itself with `README.md` and `config.yaml` (what of the config was set).
"""

import contextlib
import fcntl
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from dalr.config import Config, changed_keys
from dalr.errors import UsageError

RUN_FILE, CONFIG_FILE = "run.json", "config.yaml"


def read_run(out: Path) -> dict[str, Any] | None:
    """The content of a run folder's `run.json`, or None when the folder is new."""
    path = out / RUN_FILE
    if not path.exists():
        if out.is_dir() and any(not entry.name.startswith(".") for entry in out.iterdir()):
            raise UsageError(f"{out}: is not empty and not a run folder (it has no {RUN_FILE}); choose another --out")
        if out.exists() and not out.is_dir():
            raise UsageError(f"{out}: is a file; --out needs a folder")
        return None
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if {"config", "status"} <= record.keys():
            return record
    except (OSError, ValueError, AttributeError):
        pass
    raise UsageError(f"{path}: cannot be read as a run's record; choose another --out, or delete the folder")


@contextlib.contextmanager
def lock_run(out: Path) -> Iterator[None]:
    """Hold the run folder for this process (the main one of several); UsageError when another run has it."""
    out.mkdir(parents=True, exist_ok=True)
    with open(out / ".lock", "a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(f"{out}: another process is training into this folder; wait for it or stop it") from None
        yield


def settings_of(config: Config, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What tells one run from another, as JSON holds it: its config and what else it was asked for."""
    return {**config.model_dump(mode="json"), **(more or {})}


def _at_defaults(values: Any, config: Any) -> Any:
    """What a run recorded of a config, with the keys that it does not have at their own defaults.

    Not at those of a profile: a method that has since got a term is another one than was run.
    """
    if isinstance(config, Config) and isinstance(values, Mapping):
        defaults = {
            name: to_jsonable_python(field.get_default(call_default_factory=True))
            for name, field in type(config).model_fields.items()
            if name not in values and not field.is_required()
        }
        return {name: _at_defaults(value, getattr(config, name, None)) for name, value in values.items()} | defaults
    if isinstance(config, Mapping) and isinstance(values, Mapping):
        return {name: _at_defaults(value, config.get(name)) for name, value in values.items()}
    if isinstance(config, list | tuple) and isinstance(values, list) and len(config) == len(values):
        return [_at_defaults(value, item) for value, item in zip(values, config, strict=True)]
    return values


def check_same_run(
    record: Mapping[str, Any],
    config: Config,
    inputs: Mapping[str, str],
    out: Path,
    more: Mapping[str, Any] | None = None,
) -> None:
    """UsageError that names what changed since the run in `out` began.

    A key that this version has and the run's did not stands at its default there, which is what the run did.
    """
    changed = changed_keys(_at_defaults(record["config"], config), settings_of(config, more))
    if changed:
        raise UsageError(
            f"{out}: holds a run with another config; changed: {'; '.join(changed)}. Choose another --out, or give "
            "the old values"
        )
    known = record.get("inputs", {})
    moved = changed_keys(known, {name: inputs.get(name) for name in known})
    if moved:
        raise UsageError(f"{out}: the run's inputs changed since it began: {'; '.join(moved)}; choose another --out")
