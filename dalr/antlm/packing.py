"""Tokens in rows of one length: sentences or documents packed side by side, each told from its neighbours.

The rows lie in memory-mapped files, made once for the same documents, tokenizer, length and packing.

Legend: N rows · L tokens.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dalr.antlm.documents import Documents, sentences
from dalr.encoders.tokens import TransformersTokenizer
from dalr.errors import ConfigError, DataError
from dalr.files import hash_json, made_once, write_json
from dalr.lm import special_edges

Packing = Literal["sentence", "document"]
VERSION = 1
OPEN_ROWS = 32  # of sentences: a sentence goes to the one that it fills best
BLOCK = 1000  # documents tokenised at once
SHORTEST_PIECE = 8  # tokens of a document that are worth a place at the end of a row


@dataclass(frozen=True)
class PackedText:
    """N rows of tokens: `ids_NL`, and `segments_NL`, which numbers the texts of a row from 1 (0 is padding)."""

    ids_NL: npt.NDArray[Any]
    segments_NL: npt.NDArray[Any]
    tokens: int
    fingerprint: str

    def __len__(self) -> int:
        return len(self.ids_NL)


def pack_text(documents: Documents, part: str, tokenizer: Any, length: int, packing: Packing) -> PackedText:
    """The documents of a part as rows of `length` tokens, or what the cache holds of them.

    `sentence` keeps each sentence whole, within one row (one that is longer than a row is cut into pieces), and
    attention within the sentence. `document` lets a document run on from row to row. Each has the tokenizer's special
    tokens around it. Raises ConfigError for a length without room beside those, DataError where there is no token.
    """
    wrapped = TransformersTokenizer(tokenizer)
    before, after = special_edges(tokenizer)
    if length < len(before) + len(after) + 2:
        raise ConfigError(f"data.length: {length} tokens leave no room beside {len(before) + len(after)} special ones")
    fingerprint = hash_json([VERSION, documents.fingerprint, part, wrapped.digest(), length, packing, before, after])
    folder = documents.folder.parent / f"packed-{fingerprint}"

    def make(fresh: Path) -> None:
        units = _units(documents.part(part), wrapped, packing)
        pack = _pack_sentences if packing == "sentence" else _pack_documents
        _write(fresh, pack(units, before, after, length), len(tokenizer), length, wrapped.pad_id)

    made_once(folder, make)
    about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    if not about["rows"]:
        raise DataError(f"data: the {part} part holds no text that gives a token")
    shape = (about["rows"], length)
    return PackedText(
        np.memmap(folder / "ids.bin", dtype=about["dtype"], mode="r", shape=shape),
        np.memmap(folder / "segments.bin", dtype=np.uint16, mode="r", shape=shape),
        about["tokens"],
        fingerprint,
    )


def _units(documents: Iterable[str], tokenizer: TransformersTokenizer, packing: Packing) -> Iterator[list[int]]:
    """The tokens of each sentence or document, without special ones."""
    documents = iter(documents)
    while block := list(islice(documents, BLOCK)):
        texts = [text for document in block for text in sentences(document)] if packing == "sentence" else block
        yield from (ids for ids in tokenizer.pieces(texts) if ids)


Row = list[list[int]]


def _pack_sentences(units: Iterable[list[int]], before: list[int], after: list[int], length: int) -> Iterator[Row]:
    """Best fit into a few open rows; the fullest of them is closed when there is no room for a sentence."""
    room = length - len(before) - len(after)
    rows: list[tuple[int, Row]] = []
    for unit in units:
        for start in range(0, len(unit), room):
            text = [*before, *unit[start : start + room], *after]
            fitting = [number for number, (used, _) in enumerate(rows) if used + len(text) <= length]
            if fitting:
                best = max(fitting, key=lambda number: rows[number][0])
                used, row = rows.pop(best)
            else:
                if len(rows) == OPEN_ROWS:
                    fullest = max(range(len(rows)), key=lambda number: rows[number][0])
                    yield rows.pop(fullest)[1]
                used, row = 0, []
            rows.append((used + len(text), [*row, text]))
    yield from (row for _, row in rows)


def _pack_documents(units: Iterable[list[int]], before: list[int], after: list[int], length: int) -> Iterator[Row]:
    """Documents one after the other, cut where a row is full; each piece begins and ends as a text of its own."""
    extra = len(before) + len(after)
    row: Row = []
    used = 0
    for unit in units:
        start = 0
        while start < len(unit):
            room = length - used - extra
            if row and room < min(SHORTEST_PIECE, len(unit) - start):
                yield row
                row, used = [], 0
                continue
            text = [*before, *unit[start : start + room], *after]
            start += room
            used += len(text)
            row.append(text)
    if row:
        yield row


def _write(folder: Path, rows: Iterable[Row], vocabulary: int, length: int, pad_id: int) -> None:
    dtype = np.uint16 if vocabulary <= np.iinfo(np.uint16).max else np.uint32
    count = tokens = 0
    with open(folder / "ids.bin", "wb") as ids, open(folder / "segments.bin", "wb") as segments:
        for row in rows:
            flat = [token for text in row for token in text]
            numbers = [number for number, text in enumerate(row, start=1) for _ in text]
            padding = length - len(flat)
            ids.write(np.array(flat + [pad_id] * padding, dtype=dtype).tobytes())
            segments.write(np.array(numbers + [0] * padding, dtype=np.uint16).tobytes())
            count += 1
            tokens += len(flat)
    write_json(folder / "about.json", {"rows": count, "tokens": tokens, "dtype": np.dtype(dtype).name})
