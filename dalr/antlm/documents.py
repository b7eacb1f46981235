"""Plain text to learn a language from: read file by file, cleaned, and kept as documents in the cache.

Nothing is held in memory but one document: lines are counted in a table of fixed size, and the cleaned documents lie
in a file. Made once for the same files and rules.
"""

import html
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from dalr.config import Config
from dalr.data.fetch import cache_root
from dalr.data.jsonlines import decoded_lines, json_object, parsed_lines
from dalr.data.packing import files_identity
from dalr.data.records import BadRow, check_readable
from dalr.data.sources import read_source
from dalr.errors import DataError
from dalr.evaluation.leaks import LeakCheck, LeakConfig, chosen
from dalr.files import hash_bytes, hash_file, hash_json, made_once, write_json

VERSION = 2
MOST_BAD = 1000  # bad rows that are kept by name; the others are counted
COUNTERS, MOST_COUNTERS, TABLES = 1 << 22, 1 << 26, 2  # of lines that repeat
BYTES_PER_COUNTER = 32  # of text, packed text counting four times
Refuse = Callable[[int, str], None]

SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]*[A-Z0-9])")
_TEMPLATE = re.compile(r"\{\{[^{}]*\}\}")
_LINK = re.compile(r"\[\[(?:[^\[\]|]*\|)*([^\[\]|]*)\]\]")
_OUTSIDE_LINK = re.compile(r"\[(?:https?:)?//\S+\s*([^\]]*)\]")
_ADDRESS = re.compile(r"(?:https?://|www\.)\S+")
_TAG = re.compile(r"<!--.*?-->|<(?:ref|script|style|gallery)\b[^<]*?(?:/>|>.*?</\w+>)|</?[A-Za-z][^<>]*>", re.S)
_TABLE = re.compile(r"^\s*(?:\{\||\|\}|\|[-+|]?|!|=+.*=+\s*$|__[A-Z]+__)")
_LIST = re.compile(r"^\s*[*#:;]+\s*")
_LEFTOVER = re.compile(r"[{}<>|\\]|\[\[|\]\]")
_GAP = re.compile(r"\s+([,.;:!?)])")


class CorpusConfig(Config):
    """The text and how it is cleaned.

    `paths` are text files (also .gz), JSON Lines (also .gz), or tables whose `column` holds the text. A line of a text
    file is a document, with `paragraphs` a block between empty lines. `markup` takes HTML and wiki markup away,
    `min_words` drops shorter lines, `most_repeats` a line that occurs more often in all (navigation, notices); None
    keeps them. `dev` is the share of documents that is held out.
    """

    paths: list[str] = Field(min_length=1)
    column: str = "text"
    paragraphs: bool = False
    markup: bool = True
    min_words: int = Field(default=3, ge=1)
    most_repeats: int | None = Field(default=20, ge=1, lt=65535)
    dev: float = Field(default=0.02, ge=0, lt=1)


@dataclass(frozen=True)
class Documents:
    """Cleaned documents on disk.

    Attributes:
        counts: documents, lines and words kept, and why lines were dropped.
        bad: rows that cannot be used.
        fingerprint: hash of what the documents say, wherever they came from.
        leaks: what was found of held-out sets, as `LeakReport.as_json`; None where nothing was looked for.
    """

    folder: Path
    counts: dict[str, int]
    bad: list[BadRow]
    fingerprint: str
    leaks: dict[str, Any] | None

    def __iter__(self) -> Iterator[str]:
        """The training documents, lines parted by newlines."""
        return self.part("train")

    def part(self, name: str) -> Iterator[str]:
        """The documents of `train` or `dev`."""
        with open(self.folder / f"{name}.jsonl", encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)


def prepare_documents(config: CorpusConfig, leaks: LeakConfig | None = None) -> Documents:
    """Read and clean the text of `config` without sentences that stand in a held-out set, or find it in the cache.

    Raises DataError for a file that cannot be read, is not UTF-8, or holds no text, and where nothing is left.
    """
    paths = [Path(path).expanduser() for path in config.paths]
    for path in paths:
        check_readable(path)
    check = LeakCheck.load(leaks or LeakConfig())
    rules = [config.model_dump(mode="json"), check.fingerprint() if check is not None else None]
    folder = cache_root() / "corpora" / hash_json([VERSION, *rules, files_identity(paths)])
    made_once(folder, lambda fresh: _clean_into(fresh, config, paths, check))
    about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    bad = [BadRow(**row) for row in about["bad"]]
    return Documents(folder, about["counts"], bad, about["fingerprint"], about["leaks"])


def sentences(document: str) -> list[str]:
    """The sentences of a document, split behind its final marks."""
    return [text for line in document.split("\n") for text in SENTENCE_END.split(line) if text]


def clean_line(line: str, markup: bool = True) -> str:
    """One line without markup, in single spaces; empty where nothing readable is left."""
    if not markup:
        return " ".join(line.split())
    line = html.unescape(line)
    if _TABLE.match(line):
        return ""
    line = _OUTSIDE_LINK.sub(r"\1", _LINK.sub(r"\1", line))
    line = _LIST.sub("", line).replace("'''", "").replace("''", "")
    line = _GAP.sub(r"\1", " ".join(_ADDRESS.sub(" ", line).split()))
    return "" if _LEFTOVER.search(line) else line


def _clean_into(folder: Path, config: CorpusConfig, paths: list[Path], check: LeakCheck | None) -> None:
    """Two passes: the first cleans and counts lines, the second leaves out those that repeat."""
    counts: Counter[str] = Counter()
    bad: list[BadRow] = []

    def refuse(path: Path, row: int, reason: str) -> None:
        counts["bad_rows"] += 1
        if len(bad) < MOST_BAD:
            bad.append(BadRow(path.name, row, str(row), reason))

    seen = _LineCounts(paths)
    raw = folder / "raw.jsonl"
    with open(raw, "w", encoding="utf-8") as out:
        for path in paths:
            read, before = 0, counts["bad_rows"]
            for _, text in _rows(path, config, partial(refuse, path)):
                read += 1
                lines = _cleaned(text, config, counts)
                for line in lines:
                    seen.add(line)
                if lines:
                    out.write(json.dumps(lines, ensure_ascii=False) + "\n")
            if counts["bad_rows"] - before > read:
                raise DataError(f"{path}: most of it cannot be read ({bad[-1].where}: {bad[-1].reason})")
    with ExitStack() as stack:
        outs = {
            name: stack.enter_context(open(folder / f"{name}.jsonl", "w", encoding="utf-8"))
            for name in ("train", "dev")
        }
        for line in stack.enter_context(open(raw, encoding="utf-8")):
            lines = json.loads(line)
            kept = [text for text in lines if config.most_repeats is None or seen.count(text) <= config.most_repeats]
            counts["repeated_lines"] += len(lines) - len(kept)
            if check is not None:
                kept = _without_leaks(kept, check)
            if kept:
                document = "\n".join(kept)
                name = "dev" if _share(document) < config.dev else "train"
                outs[name].write(json.dumps(document, ensure_ascii=False) + "\n")
                counts["documents" if name == "train" else "dev_documents"] += 1
                counts["lines"] += len(kept)
                counts["words"] += len(document.split())
    raw.unlink()
    if check is not None:
        counts["leaking_sentences"] = check.report.leaking
    if not counts["documents"]:
        first = f"; the first bad row, {bad[0].where}: {bad[0].reason}" if bad else ""
        raise DataError(
            f"data.paths: {', '.join(map(str, paths))}: no text is left after cleaning ({_told(counts)}){first}; lower "
            "data.min_words, or set data.markup=false"
        )
    if config.dev and not counts["dev_documents"]:
        raise DataError(
            f"data.dev={config.dev}: none of {counts['documents']} documents came to be held out; raise it, or set 0"
        )
    about = {
        "counts": dict(counts),
        "bad": [asdict(row) for row in bad],
        "fingerprint": hash_json([hash_file(folder / f"{name}.jsonl") for name in outs]),
        "leaks": check.report.as_json() if check is not None else None,
    }
    write_json(folder / "about.json", about)


def _without_leaks(lines: list[str], check: LeakCheck) -> list[str]:
    kept = []
    for line in lines:
        parts = sentences(line)
        kept.append(" ".join(chosen(parts, check.kept_texts(parts))))
    return [line for line in kept if line]


def _told(counts: Counter[str]) -> str:
    told = {"short_lines": "too short", "markup_lines": "markup or empty", "repeated_lines": "repeated too often"}
    return ", ".join(f"{counts[name]:,} lines {what}" for name, what in told.items()) or "no line"


def _cleaned(text: str, config: CorpusConfig, counts: Counter[str]) -> list[str]:
    if config.markup:
        # From the innermost template outwards, over line ends.
        before = ""
        while before != text:
            before, text = text, _TEMPLATE.sub(" ", text)
        text = _TAG.sub(" ", text)
    kept = []
    for line in text.splitlines():
        plain = clean_line(line, config.markup)
        if not plain:
            counts["markup_lines"] += bool(line.strip())
        elif len(plain.split()) < config.min_words:
            counts["short_lines"] += 1
        else:
            kept.append(plain)
    return kept


def _rows(path: Path, config: CorpusConfig, refuse: Refuse) -> Iterator[tuple[int, str]]:
    """(line or row number, text) of one file."""
    names = [ending.lower() for ending in path.suffixes if ending.lower() != ".gz"]
    ending = names[-1] if names else ".txt"
    if ending in (".txt", ".text"):
        yield from _paragraphs(path, refuse) if config.paragraphs else decoded_lines(path, refuse)
    elif ending in (".jsonl", ".ndjson"):
        yield from _json_texts(path, config.column, refuse)
    else:
        yield from _table_texts(path, config.column, refuse)


def _paragraphs(path: Path, refuse: Refuse) -> Iterator[tuple[int, str]]:
    block: list[str] = []
    first = 1
    for number, line in decoded_lines(path, refuse):
        if line.strip():
            first = first if block else number
            block.append(line)
        elif block:
            yield first, "".join(block)
            block = []
    if block:
        yield first, "".join(block)


def _json_texts(path: Path, column: str, refuse: Refuse) -> Iterator[tuple[int, str]]:
    for number, row in parsed_lines(path, json_object, refuse):
        if column not in row:
            refuse(number, f"has no '{column}' but {', '.join(map(repr, row)) or 'nothing'}")
        elif isinstance(row[column], str):
            yield number, row[column]
        elif row[column] is not None:
            refuse(number, f"its '{column}' is no text")


def _table_texts(path: Path, column: str, refuse: Refuse) -> Iterator[tuple[int, str]]:
    for part in read_source(str(path)).parts:
        if column not in part.columns:
            raise DataError(
                f"data.column: {path} has no column '{column}'; it has {', '.join(map(repr, part.columns)) or 'none'}"
            )
        for bad in part.bad:
            refuse(bad.row, bad.reason)
        for row, cell in zip(part.rows, part.columns[column], strict=True):
            for text in cell if isinstance(cell, list) else [cell]:
                if text is not None:
                    yield row, str(text)


class _LineCounts:
    """How often lines occur: a count-min sketch with conservative update (Estan and Varghese 2002).

    Never too low, and too high by a few only where there are several distinct lines to a counter.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        size = sum(path.stat().st_size * (4 if path.suffix.lower() == ".gz" else 1) for path in paths)
        self._counters = min(max(COUNTERS, size // BYTES_PER_COUNTER), MOST_COUNTERS)
        self._table = np.zeros((TABLES, self._counters), dtype=np.uint16)

    def add(self, line: str) -> None:
        places = self._places(line)
        found = self._table[places]
        if found.min() < np.iinfo(np.uint16).max:
            self._table[places] = np.maximum(found, found.min() + 1)

    def count(self, line: str) -> int:
        return int(self._table[self._places(line)].min())

    def _places(self, line: str) -> tuple[list[int], list[int]]:
        digest = int(hash_bytes(line.casefold().encode()), 16)
        numbers = list(range(TABLES))
        return numbers, [(digest >> (40 * number)) % self._counters for number in numbers]


def _share(document: str) -> float:
    """A number in [0, 1) that hangs on the document alone: which part it is in does not move with its neighbours."""
    return int(hash_bytes(b"dev", document.encode()), 16) / 2.0**128
