"""Writing the search table of a catalogue: all of it, or what has changed since.

Legend: N rows · D width of the shared space
"""

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dalr.catalogue.embed import read_catalogue
from dalr.catalogue.search import shown_image
from dalr.catalogue.table import (
    METADATA,
    READY,
    TABLE,
    VECTORS,
    TableHead,
    connect,
    open_table,
    plain,
    table_head,
    told,
    vector_column,
)
from dalr.catalogue.thumbnails import Thumbnails
from dalr.data.manifest import Manifest
from dalr.errors import StoreError, UsageError
from dalr.features import FeatureStore
from dalr.files import hash_json
from dalr.progress import ProgressSink

if TYPE_CHECKING:
    import pyarrow as pa
    from lancedb.table import Table

Ints = npt.NDArray[np.int64]
BLOCK = 8_192
# Below so many rows each is looked at in a few milliseconds, and no index is faster and as exact.
INDEXED_FROM = 20_000
LEAST_INDEXED = 256  # vectors, of which the database learns the index
# Where more than this share of the rows changed, the table is written anew.
ANEW = 0.2
# As numbers; a leading zero, as codes have, makes a text.
INTEGER = re.compile(r"-?(0|[1-9]\d*)")
NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?")
DECIMAL_COMMA = re.compile(r"[-+]?\d[\d.]*,\d+")


@dataclass(frozen=True)
class IndexResult:
    """What was written: rows in all, those new, changed and removed by this call, and whether it began anew.

    `indexed` lists the sides whose vectors are found by an approximate index, `bad` the thumbnails that could not be
    made, `notes` what a person should know.
    """

    rows: int
    new: int
    changed: int
    removed: int
    rebuilt: bool
    indexed: list[str]
    bad: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def index_catalogue(
    store: str | Path,
    manifest: Manifest,
    uri: str | Path,
    *,
    name: str = TABLE,
    thumbnails: str | Path | None = None,
    indexed_from: int = INDEXED_FROM,
    progress: ProgressSink | None = None,
) -> IndexResult:
    """Bring the table `name` of the database at `uri` up to date with an embedded catalogue.

    Rows that say the same as before are not touched. Another model, or other columns, begin it anew. A reader sees the
    version before until this one is whole; a call that is killed leaves that one in force.

    Args:
        store: of the catalogue, made by `embed_catalogue` of the same rows.
        manifest: the rows, for their attributes; a column that holds numbers alone is a column of numbers.
        uri: a folder, or the URI of one in object storage.
        thumbnails: a folder for small pictures, one for each distinct picture; None makes none.
        indexed_from: rows from which vectors are found by an approximate index.

    Raises:
        StoreError: the store is of other rows, or the table is not ours. UsageError: the database cannot be written.
    """
    head, rows, stores = read_catalogue(store)
    if head["data"]["fingerprint"] != manifest.fingerprint():
        raise StoreError(
            f"{store}: was embedded from other rows than {manifest.source} has now, or read with other "
            "column options; give those of dalr embed, or run it again"
        )
    made = TableHead(
        model=head["model"], fingerprints=head["fingerprints"], space=head["space"], source=manifest.source
    )
    shown, bad = _thumbnails(manifest, rows, thumbnails, progress)
    columns, notes = _columns(manifest, rows, shown)
    content = Content(columns, rows, stores, made)

    table = open_table(uri, name)
    before = None if table is None else table_head(table, f"{uri}, table '{name}'")
    with told(uri, "be written"):
        counts = None
        if table is not None and before is not None and content.continues(table, before):
            counts = _merge(table, content)
        rebuilt = table is None or counts is None
        if table is None or counts is None:
            table = connect(uri).create_table(
                name, content.reader(progress), schema=content.schema, mode="overwrite", on_bad_vectors="null"
            )
            counts = {"new": len(rows), "changed": 0, "removed": 0}
        indexed = _indices(table, content, indexed_from, any(counts.values()) and not rebuilt)
        if READY in table.tags.list():
            table.tags.update(READY, table.version)
        else:
            table.tags.create(READY, table.version)
        return IndexResult(len(rows), **counts, rebuilt=rebuilt, indexed=indexed, bad=bad, notes=notes)


class Content:
    """What a table is to hold: its columns without the vectors, and the stores of these."""

    def __init__(
        self,
        columns: dict[str, "pa.Array"],
        rows: Sequence[dict[str, Any]],
        stores: dict[str, FeatureStore],
        made: TableHead,
    ) -> None:
        import pyarrow as pa

        self.columns, self.stores, self.made = columns, stores, made
        self.keys: list[str] = [row["key"] for row in rows]
        self.content: list[str] = columns["content"].to_pylist()
        self._row_keys = {side: [row[f"{side}_key"] for row in rows] for side in stores}
        fields = [pa.field(name, values.type) for name, values in columns.items()]
        fields += [pa.field(VECTORS[side], pa.list_(pa.float32(), store.spec.width)) for side, store in stores.items()]
        self.schema = pa.schema(fields, metadata={METADATA: made.model_dump_json()})

    def continues(self, table: "Table", before: TableHead) -> bool:
        """Whether the rows of a table that was made so can be kept."""
        same = (before.model, before.fingerprints) == (self.made.model, self.made.fingerprints)
        return same and table.schema.equals(self.schema)

    def reader(self, progress: ProgressSink | None) -> "pa.RecordBatchReader":
        """All rows, in batches that are made as they are asked for."""
        import pyarrow as pa

        def batches() -> Iterator["pa.RecordBatch"]:
            for start in range(0, len(self.keys), BLOCK):
                rows = np.arange(start, min(start + BLOCK, len(self.keys)), dtype=np.int64)
                yield from self.take(rows).to_batches()
                if progress is not None:
                    progress(int(rows[-1]) + 1, len(self.keys))

        return pa.RecordBatchReader.from_batches(self.schema, batches())

    def take(self, rows: Ints) -> "pa.Table":
        """Some rows with their vectors; a row without a picture (or caption) has no vector of it."""
        import pyarrow as pa

        arrays = [values.take(pa.array(rows)) for values in self.columns.values()]
        for side, store in self.stores.items():
            arrays.append(vector_column(store, [self._row_keys[side][row] for row in rows]))
        return pa.Table.from_arrays(arrays, schema=self.schema)


def _merge(table: "Table", content: Content) -> dict[str, int] | None:
    """Bring the rows that changed up to date, all in one version; None where most did, and to begin anew is quicker."""
    found = table.search().select(["key", "content"]).limit(max(1, table.count_rows())).to_arrow()
    known = dict(zip(found["key"].to_pylist(), found["content"].to_pylist(), strict=True))
    different = [row for row, key in enumerate(content.keys) if known.get(key) != content.content[row]]
    removed = sorted(known.keys() - set(content.keys))
    if len(different) + len(removed) > ANEW * len(content.keys):
        return None
    if different or removed:
        # One operation, so that no version has half of it.
        merge = table.merge_insert("key").when_matched_update_all().when_not_matched_insert_all()
        if removed:
            listed = ", ".join("'" + key.replace("'", "''") + "'" for key in removed)
            merge = merge.when_not_matched_by_source_delete(f"key IN ({listed})")
        merge.execute(content.take(np.array(different, dtype=np.int64)), on_bad_vectors="null")
    changed = sum(content.keys[row] in known for row in different)
    return {"new": len(different) - changed, "changed": changed, "removed": len(removed)}


def _indices(table: "Table", content: Content, indexed_from: int, changed: bool) -> list[str]:
    """See to it that captions, and the vectors of a large table, are indexed; returns the sides of which they are."""
    from lancedb.index import FTS, IvfPq

    there = {index.columns[0] for index in table.list_indices()}
    if changed:
        table.optimize()
    if "caption" not in there:
        # Stop words are left in: they would be those of one language, and BM25 gives them little weight.
        table.create_index("caption", config=FTS(remove_stop_words=False))
    for side in content.stores:
        column = VECTORS[side]
        present = len(content.keys) - content.columns[f"{side}_key"].null_count
        if column not in there and present >= max(indexed_from, LEAST_INDEXED):
            table.create_index(column, config=IvfPq(distance_type="cosine"))
            there.add(column)
    return [side for side in content.stores if VECTORS[side] in there]


def _columns(
    manifest: Manifest, rows: Sequence[dict[str, Any]], shown: list[str | None]
) -> tuple[dict[str, "pa.Array"], list[str]]:
    """The columns of a table without vectors, by name, and what a person should know of their names."""
    import pyarrow as pa

    notes = []
    own: dict[str, list[Any]] = {
        "key": manifest.keys,
        "caption": manifest.texts,
        "image": [shown_image(manifest.root, image) for image in manifest.images],
        "thumbnail": shown,
        "group_id": manifest.group or [None] * len(rows),
        "split": manifest.split or [None] * len(rows),
        "text_key": [row["text_key"] for row in rows],
        "image_key": [row["image_key"] for row in rows],
    }
    attributes: dict[str, list[Any]] = {}
    for name, values in manifest.columns.items():
        # Columns of a table are told apart whatever their case, and a dot would mean a part of one.
        column = name.replace(".", "_")
        taken = {used.lower() for used in (*own, *attributes, "content", *VECTORS.values())}
        while column.lower() in taken or column.startswith("_"):
            column = f"{column.lstrip('_') or 'column'}_"
        if column != name:
            notes.append(f"the column '{name}' is called '{column}' in the table")
        attributes[column] = values
    typed = {name: _typed(values) for name, values in attributes.items()}
    for name, values in attributes.items():
        written = [value.strip() for value in values if isinstance(value, str) and value.strip()]
        if written and all(DECIMAL_COMMA.fullmatch(value) for value in written):
            notes.append(
                f"the column '{name}' has decimal commas and stays text; write points to filter by its numbers"
            )
    plain_values = [*own.values(), *([plain(cell) for cell in values.to_pylist()] for values in typed.values())]
    content = [hash_json(list(cells)) for cells in zip(*plain_values, strict=True)]
    strings = {name: pa.array(values, pa.string()) for name, values in own.items()}
    return strings | {"content": pa.array(content, pa.string())} | typed, notes


def _typed(values: list[Any]) -> "pa.Array":
    """A column as numbers where every cell that is not empty is one, else as what it holds, else as text."""
    import pyarrow as pa

    filled = [None if isinstance(value, str) and not value.strip() else value for value in values]
    texts = [value for value in filled if value is not None]
    if all(isinstance(value, str) for value in texts):
        for pattern, kind in ((INTEGER, pa.int64()), (NUMBER, pa.float64())):
            if texts and all(pattern.fullmatch(value.strip()) for value in texts):
                with contextlib.suppress(pa.ArrowInvalid):
                    return pa.array([None if value is None else value.strip() for value in filled]).cast(kind)
        return pa.array(filled, pa.string())
    try:
        return pa.array(filled)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else str(value) for value in filled], pa.string())


def _thumbnails(
    manifest: Manifest, rows: Sequence[dict[str, Any]], folder: str | Path | None, progress: ProgressSink | None
) -> tuple[list[str | None], list[str]]:
    """The small picture of each row, made where it is not there yet, and what went wrong."""
    if folder is None:
        return [None] * len(rows), []
    small = Thumbnails(Path(folder).resolve(), manifest, [row["image_key"] for row in rows])
    shown: list[str | None] = []
    for row in range(len(rows)):
        try:
            path = small(row)
        except OSError as error:
            raise UsageError(f"{folder}: thumbnails cannot be written ({error.strerror})") from None
        shown.append(None if path is None else str(path))
        if progress is not None:
            progress(row + 1, len(rows))
    return shown, small.bad
