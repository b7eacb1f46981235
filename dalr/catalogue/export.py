"""A catalogue's store in the formats of others: a Parquet table of rows and vectors, or FAISS indices."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from dalr.catalogue.embed import read_catalogue
from dalr.catalogue.search import distinct_items
from dalr.catalogue.table import VECTORS, vector_column
from dalr.errors import MissingExtraError, UsageError
from dalr.features import FeatureStore
from dalr.files import new_folder
from dalr.model import Side

ROWS = "rows.parquet"
BLOCK = 8_192


def export_store(store: str | Path, folder: str | Path, to: str) -> dict[str, int]:
    """Write a store into `folder` as `parquet` or `faiss`, and return how many things are in each file.

    `parquet`: rows.parquet has a line a row of the catalogue: key, text, image, group, text_vector and image_vector
    (float32 lists of unit length; null where the row has none). `faiss`: text.faiss and image.faiss are flat indices by
    inner product (of unit vectors: the cosine) of the distinct texts and images, and text.parquet and image.parquet say
    what stands at each position: key (of the first row that has it), text, image, and rows (that share it).

    Raises:
        StoreError: no store. UsageError: another format, or the folder is there already or cannot be written.
    """
    writers: dict[str, Callable[[Path, list[dict[str, Any]], dict[str, FeatureStore]], dict[str, int]]]
    writers = {"parquet": _parquet, "faiss": _faiss}
    if to not in writers:
        raise UsageError(f"--to {to}: expected {' or '.join(writers)}")
    folder = Path(folder)
    if folder.exists():
        raise UsageError(f"{folder}: is there already; choose another --out, or delete it")
    _, rows, stores = read_catalogue(store)
    try:
        with new_folder(folder) as made:
            return writers[to](made, rows, stores)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written ({error.strerror}); choose another --out") from None


def _parquet(folder: Path, rows: list[dict[str, Any]], stores: dict[str, FeatureStore]) -> dict[str, int]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = ("key", "text", "image", "group")
    fields = [pa.field(name, pa.string()) for name in names]
    fields += [pa.field(VECTORS[side], pa.list_(pa.float32(), store.spec.width)) for side, store in stores.items()]
    with pq.ParquetWriter(folder / ROWS, pa.schema(fields)) as writer:
        for start in range(0, len(rows), BLOCK):
            block = rows[start : start + BLOCK]
            columns = [pa.array([row[name] for row in block], pa.string()) for name in names]
            columns += [vector_column(store, [row[f"{side}_key"] for row in block]) for side, store in stores.items()]
            writer.write_table(pa.Table.from_arrays(columns, schema=writer.schema))
    return {ROWS: len(rows)}


def _faiss(folder: Path, rows: list[dict[str, Any]], stores: dict[str, FeatureStore]) -> dict[str, int]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        import faiss
    except ImportError:
        raise MissingExtraError("faiss-cpu", "faiss", "an export to FAISS") from None
    counts = {}
    for side in get_args(Side):
        if side not in stores:
            continue
        first, shared, store, places = distinct_items(side, rows, stores[side])
        index = faiss.IndexFlatIP(store.spec.width)
        for start in range(0, len(places), BLOCK):
            index.add(np.ascontiguousarray(store.take(places[start : start + BLOCK])))
        faiss.write_index(index, str(folder / f"{side}.faiss"))
        pq.write_table(pa.table(_told(rows, first, shared)), folder / f"{side}.parquet")
        counts[f"{side}.faiss"] = len(first)
    return counts


def _told(rows: list[dict[str, Any]], first: Sequence[int], shared: Sequence[int]) -> dict[str, list[Any]]:
    columns = {name: [rows[row][name] for row in first] for name in ("key", "text", "image")}
    return columns | {"rows": list(shared)}
