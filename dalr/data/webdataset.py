"""WebDataset shards: a tar is surveyed by its member names first; nothing pickled is ever read.

A sample is the run of members that share a name up to its first dot: `0001.jpg`, `0001.txt`, `0001.json`.
"""

import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from dalr.data.images import EXTENSIONS
from dalr.data.records import Part, as_cell, check_readable, open_stream, quiet_datasets
from dalr.errors import DataError, one_line

# Endings whose usual reader unpickles, which runs whatever code the file holds. `.npy` is one of them as soon as
# it holds objects, and a catalogue has no use for it.
PICKLED = frozenset(
    {"pkl", "pickle", "pyd", "p", "pt", "pth", "bin", "ckpt", "joblib", "dill", "cloudpickle", "npy", "npz"}
)
TEXTS = ("txt", "text", "caption", "transcript")
COMPRESSED = ("gz", "bz2", "xz", "zst", "lz4", "zip", "lzma")
LABELS = ("cls", "cls2", "label", "id", "index", "inx")
# A text or JSON member beyond the first is no caption, an image beyond the second no photo.
MAX_TEXT = 1 << 20
MAX_IMAGE = 1 << 28
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")


@dataclass
class Sample:
    """Members of one sample: field name → member, and what is wrong with it ("" when it can be used)."""

    key: str
    members: dict[str, tarfile.TarInfo] = field(default_factory=dict)
    reason: str = ""


@dataclass
class Survey:
    """What one shard holds. `damage` says where reading stopped, "" when it is whole."""

    path: Path
    samples: list[Sample]
    damage: str = ""


def expand_shards(pattern: str) -> list[Path]:
    """The files of `shards/{000..009}.tar`, of a glob, or of one name, in order. DataError when there is none."""
    import glob

    match = _BRACES.search(pattern)
    if match:
        first, last = match.groups()
        numbers = range(int(first), int(last) + 1)
        names = [f"{pattern[: match.start()]}{n:0{len(first)}d}{pattern[match.end() :]}" for n in numbers]
        return [path for name in names for path in expand_shards(name)]
    if Path(pattern).exists():
        return [Path(pattern)]
    found = sorted(glob.glob(pattern))
    if not found:
        raise DataError(f"{pattern}: no such shard; expected a .tar file, a glob or a range such as {{000..009}}.tar")
    return [Path(name) for name in found]


def survey_shard(path: Path) -> Survey:
    """Read a shard's member names; refuse by name what is pickled, and samples that are not one image or text."""
    check_readable(path)
    samples: list[Sample] = []
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                _sort_in(samples, member)
        if not samples or _ends_well(path):
            return Survey(path, samples)
        # A tar ends in blocks of zeros; one that was cut between two members reads well but lacks them. The last
        # sample is whole if it has what the first one has.
        last = samples[-1].key
        whole = samples[-1].members.keys() == samples[0].members.keys()
        return Survey(path, samples if whole else samples[:-1], f"is cut short after '{last}' (no end mark)")
    except tarfile.ReadError as error:
        if not samples:
            raise DataError(f"{path}: is not a tar file ({one_line(error)})") from None
        return Survey(path, samples[:-1], f"is cut short after '{samples[-1].key}' ({one_line(error)})")
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({one_line(error)})") from None


def read_samples(survey: Survey, part: Part) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number from 1, cells) of every usable sample; `image` holds the picture's bytes, `image_name` its name."""
    done = 0
    endings = {tuple(sample.members) for sample in survey.samples}
    if len(endings) == 1 and not survey.damage and not any(sample.reason for sample in survey.samples):
        for number, (sample, values) in enumerate(zip(survey.samples, _through_datasets(survey), strict=False), 1):
            try:
                yield number, _cells(sample, values)
            except DataError as error:
                part.refuse(number, str(error), sample.key)
            done = number
    with tarfile.open(survey.path, "r:") as archive:
        for number, sample in enumerate(survey.samples[done:], start=done + 1):
            try:
                if sample.reason:
                    raise DataError(sample.reason)
                yield number, _cells(sample, {end: _read(archive, member) for end, member in sample.members.items()})
            except DataError as error:
                part.refuse(number, str(error), sample.key)
            except (tarfile.ReadError, OSError, EOFError) as error:
                part.refuse(number, f"is cut short ({one_line(error)})", sample.key)
    if survey.damage:
        part.refuse(len(survey.samples) + 1, survey.damage)


def is_pickled(ending: str) -> bool:
    """Whether any part of a member's ending is one that is read by unpickling."""
    return any(piece in PICKLED for piece in ending.lower().split("."))


def _through_datasets(survey: Survey) -> Iterator[dict[str, Any]]:
    """Ending → value of each sample of a sound shard, by `datasets`; ends early where that reader fails."""
    try:
        with quiet_datasets():
            for example in open_stream("webdataset", survey.path).decode(False):
                yield {name.lower(): value for name, value in example.items() if not name.startswith("__")}
    except Exception:
        return


def _ends_well(path: Path) -> bool:
    with open(path, "rb") as stream:
        stream.seek(-min(1024, path.stat().st_size), 2)
        return not any(stream.read())


def _sort_in(samples: list[Sample], member: tarfile.TarInfo) -> None:
    name = PurePosixPath(member.name)
    if member.isdir() or name.name.startswith((".", "__")):
        return
    stem, dot, ending = name.name.partition(".")
    key = str(name.parent / stem)
    if not samples or samples[-1].key != key:
        samples.append(Sample(key))
    sample = samples[-1]
    ending = ending.lower()
    last = ending.rsplit(".", 1)[-1]
    if is_pickled(ending):
        sample.reason = f"member '{member.name}' is refused: '.{ending}' may be a pickle, which can run code"
    elif last in COMPRESSED:
        sample.reason = sample.reason or f"member '{member.name}' is compressed; unpack it"
    elif not member.isreg() or member.issparse():
        sample.reason = sample.reason or f"member '{member.name}' is a link, a device or a sparse file"
    elif not dot:
        sample.reason = sample.reason or f"member '{member.name}' has no ending"
    elif ending in sample.members:
        sample.reason = sample.reason or f"member '{member.name}' is there twice"
    else:
        sample.members[ending] = member


def _cells(sample: Sample, values: Mapping[str, Any]) -> dict[str, Any]:
    """The cells of one sample from its members by ending, each as bytes or as `datasets` decodes it."""
    cells: dict[str, Any] = {"__key__": sample.key}
    for ending, value in values.items():
        name = sample.members[ending].name
        last = ending.rsplit(".", 1)[-1]
        if f".{last}" in EXTENSIONS:
            if "image" not in cells:
                cells["image"] = value["bytes"] if isinstance(value, dict) else value
                cells["image_name"] = name
        elif last in TEXTS or last in LABELS:
            cells["text" if last in TEXTS else last] = _text(value, name)
        elif last in ("json", "jsn"):
            for column, cell in _object(value, name).items():
                if column not in ("image", "image_name", "__key__"):
                    cells.setdefault(column, as_cell(cell))
    if len(cells) == 1:
        raise DataError("holds neither an image nor a text")
    return cells


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    ending = member.name.rsplit(".", 1)[-1].lower()
    limit = MAX_IMAGE if f".{ending}" in EXTENSIONS else MAX_TEXT
    if f".{ending}" not in EXTENSIONS and ending not in (*TEXTS, *LABELS, "json", "jsn"):
        return b""
    if member.size > limit:
        raise DataError(f"member '{member.name}' has {member.size:,} bytes; at most {limit:,} are read")
    stream: IO[bytes] | None = archive.extractfile(member)
    content = stream.read() if stream is not None else b""
    if len(content) != member.size:
        raise DataError(f"member '{member.name}' is cut short")
    return content


def _text(value: Any, name: str) -> str:
    if not isinstance(value, bytes):
        return str(value).strip()
    try:
        return value.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise DataError(f"member '{name}' is not UTF-8") from None


def _object(value: Any, name: str) -> Mapping[str, Any]:
    try:
        found = json.loads(value) if isinstance(value, bytes | str) else value
    except (ValueError, RecursionError) as error:
        raise DataError(f"member '{name}' is not JSON ({one_line(error)})") from None
    if not isinstance(found, dict):
        raise DataError(f"member '{name}' is not a JSON object")
    return found
