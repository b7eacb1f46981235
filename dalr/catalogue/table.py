"""The search table of a catalogue: where it lies in an embedded LanceDB database, and what made it.

A database is a folder or the URI of one in object storage; a table in it has one row for each row of the catalogue:
its key, caption, picture, product, attributes, and the embeddings of both sides. The schema's metadata names the model
that made these. The tag `ready` marks the last version that is whole, and it alone is read: who searches while the
table is written sees the version before.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from dalr.config import Config
from dalr.errors import MissingExtraError, StoreError, UsageError, one_line
from dalr.features import FeatureStore

if TYPE_CHECKING:
    import pyarrow as pa
    from lancedb.db import DBConnection
    from lancedb.table import Table

TABLE = "products"
FORMAT = 1
READY = "ready"
METADATA = b"dalr"
VECTORS = {"text": "text_vector", "image": "image_vector"}


class TableHead(Config):
    """What made a table: the model and its fingerprints by side, and the rows' source."""

    format: int = FORMAT
    model: str
    fingerprints: dict[str, str]
    space: str
    source: str


def connect(uri: str | Path) -> "DBConnection":
    """The database at `uri`, a folder or the URI of one in object storage."""
    os.environ.setdefault("LANCEDB_LOG", "error")
    try:
        import lancedb
    except ImportError:
        raise MissingExtraError("lancedb", "search", "a search table") from None
    with told(uri, "be opened"):
        return lancedb.connect(str(uri))


def open_ready(uri: str | Path, name: str = TABLE) -> tuple["Table", TableHead]:
    """The last whole version of a table, and what made it.

    Raises StoreError where there is none, or it was made by something else or by another format of dalr.
    """
    table = open_table(uri, name)
    if table is None:
        raise StoreError(f"{uri}: has no table '{name}'; make one with dalr index")
    head = table_head(table, f"{uri}, table '{name}'")
    with told(uri, "be read"):
        if READY not in table.tags.list():
            raise StoreError(f"{uri}: its table '{name}' was not written to the end; run dalr index again")
        table.checkout(READY)
    return table, head


def open_table(uri: str | Path, name: str) -> "Table | None":
    """The newest version of a table, whole or not; None where there is none."""
    if "://" not in str(uri) and not Path(uri).is_dir():
        return None
    database = connect(uri)
    with told(uri, "be read"):
        return database.open_table(name) if name in database.list_tables().tables else None


def table_head(table: "Table", where: str) -> TableHead:
    """What made a table; StoreError where dalr did not, or another format of it did."""
    try:
        values = json.loads((table.schema.metadata or {})[METADATA])
        version = values["format"]
        head = TableHead.model_validate(values) if version == FORMAT else None
    except (KeyError, TypeError, ValueError, ValidationError):
        raise StoreError(f"{where}: was not made by dalr index; choose another --table") from None
    if head is None:
        raise StoreError(f"{where}: has format {version}, this dalr reads {FORMAT}; run dalr index into a new one")
    return head


@contextlib.contextmanager
def told(uri: str | Path, what: str) -> Iterator[None]:
    """Whatever the database raises becomes one line that names it."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        # The place in its own source, which the database adds, is of no use to anybody here.
        reason = one_line(error).partition(", /")[0]
        raise UsageError(f"{uri}: cannot {what} ({reason})") from None


def vector_column(store: FeatureStore, keys: Sequence[str | None]) -> "pa.FixedSizeListArray":
    """The stored vectors of these keys as a column; null where there is no key."""
    import pyarrow as pa

    absent = np.array([key is None for key in keys], dtype=bool)
    vectors = np.zeros((len(keys), store.spec.width), dtype=np.float32)
    vectors[~absent] = store.rows([key for key in keys if key is not None])
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), store.spec.width, mask=pa.array(absent))


def plain(value: Any) -> Any:
    """A cell of a table as JSON has it."""
    return value.isoformat() if hasattr(value, "isoformat") else value
