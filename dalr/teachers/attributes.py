"""Products that agree in their attributes: a teacher without a model."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dalr.config import nearest
from dalr.data.groups import normalise_caption
from dalr.data.manifest import Manifest
from dalr.errors import DataError
from dalr.files import hash_bytes


class AttributeRows:
    """N rows whose cosine is the share of attributes in which two products agree: one place a value, 1 where it stands.

    They are kept sparse, since a column such as a brand may have thousands of values; `rows[numbers]` is dense float32
    (B, values). Where a product lacks some attributes the cosine is what both share over √(what each has).

    Args:
        cells: of each attribute its N values, compared as texts (case and spaces apart); a product without a value
            (None or blank) agrees in it with none.

    Raises DataError where no product has a value.
    """

    def __init__(self, cells: Sequence[Sequence[Any]]) -> None:
        from sklearn.feature_extraction import DictVectorizer

        products = [
            {str(number): text for number, cell in enumerate(row) if (text := _text(cell))}
            for row in zip(*cells, strict=True)
        ]
        if not any(products):
            raise DataError("no row has a value in any of the columns: there is nothing to agree in")
        self._sparse = DictVectorizer(dtype=np.float32).fit_transform(products)

    @classmethod
    def of(cls, manifest: Manifest, names: Sequence[str]) -> "AttributeRows":
        """The rows of a catalogue by some of its columns; DataError for one that it does not have."""
        columns = manifest.columns
        for name in names:
            if name not in columns:
                raise DataError(
                    f"{manifest.source} has no column of attributes '{name}'; {nearest(name, list(columns))}"
                )
        return cls([columns[name] for name in names])

    @property
    def shape(self) -> tuple[int, int]:
        """(N, values)."""
        count, width = self._sparse.shape
        return count, width

    def fingerprint(self) -> str:
        """32 hex digits over which products agree."""
        sparse = self._sparse
        return hash_bytes(*(np.ascontiguousarray(part).tobytes() for part in (sparse.indptr, sparse.indices)))

    def __getitem__(self, rows: Any) -> npt.NDArray[np.float32]:
        found: npt.NDArray[np.float32] = self._sparse[rows].toarray()
        return found


def _text(cell: Any) -> str:
    return "" if cell is None or cell != cell else normalise_caption(str(cell))
