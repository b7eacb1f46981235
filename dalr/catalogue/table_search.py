"""Search a catalogue's table: by vectors, by words, or by both, with filters. The database does the work."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from dalr.catalogue.search import Hit, Vector, check_count, check_model, query_vector
from dalr.catalogue.table import TABLE, VECTORS, open_ready, plain, told
from dalr.errors import StoreError, UsageError
from dalr.model import DualEncoder, Side

Mode = Literal["vector", "words", "hybrid"]
MODES: tuple[Mode, ...] = get_args(Mode)
# What is not an attribute of the catalogue.
NOT_SHOWN = ("text_key", "image_key", "content", *VECTORS.values())
SCORES = {"vector": "_distance", "words": "_score", "hybrid": "_relevance_score"}


class SearchTable:
    """The last whole version of a table that `index_catalogue` wrote.

        table = SearchTable("runs/db")
        table.model = DualEncoder.from_pretrained(table.head.model)
        table.search(text="a red dress", where="price < 50", k=5)

    Without a model it is searched by words alone. Raises StoreError where there is no whole table.
    """

    def __init__(self, uri: str | Path, name: str = TABLE) -> None:
        self.uri, self.name = str(uri), name
        # The database's query builders are typed too widely to follow.
        self._table: Any
        self._table, self.head = open_ready(uri, name)
        self._model: DualEncoder | None = None
        present = self._table.schema.names
        self.sides: list[Side] = [side for side in ("image", "text") if VECTORS[side] in present]
        self.attributes = [column for column in present if column not in NOT_SHOWN]

    @property
    def model(self) -> DualEncoder | None:
        """What embeds queries; StoreError when one is set that did not make this table."""
        return self._model

    @model.setter
    def model(self, model: DualEncoder) -> None:
        check_model(model, self.head.fingerprints, self.uri, self.head.model, "dalr embed and dalr index")
        self._model = model

    def __len__(self) -> int:
        return int(self._table.count_rows())

    @property
    def version(self) -> int:
        """The table's version that is searched."""
        return int(self._table.version)

    def side(self, against: str | None = None) -> Side:
        """Which side is ranked; UsageError when the table does not hold the one asked for."""
        for side in self.sides:
            if against in (None, side):
                return side
        raise UsageError(f"{self.uri}: holds no {against} side; run dalr embed with --side {against}, then dalr index")

    def search(
        self,
        *,
        text: str | None = None,
        image: Any = None,
        image_weight: float = 0.5,
        against: str | None = None,
        mode: Mode = "vector",
        where: str | None = None,
        k: int = 10,
        probes: int | None = None,
        exact: bool = False,
    ) -> list[Hit]:
        """The `k` best rows for a text, an image (path, PIL picture or array), or both.

        Args:
            image_weight: share of the image in a query of both, 0 to 1.
            against: the vectors that are compared: `image` (the default, where there are any) or `text`.
            mode: `vector` (score: cosine), `words` (BM25 over the captions) or `hybrid` (reciprocal rank fusion of
                both). The last two need a text.
            where: a filter in SQL over the columns, such as `colour = 'Red' AND price < 50`.
            probes: partitions of an approximate index that are looked at; more find more, slower.
            exact: look at every row, whatever index there is.

        Raises:
            UsageError: there is no query, or the filter cannot be read. StoreError: no model is set.
        """
        check_count(k)
        if mode not in MODES:
            raise UsageError(f"the mode is '{mode}'; expected {', '.join(MODES)}")
        side = self.side(against)
        if mode != "vector" and not (text or "").strip():
            raise UsageError(f"a search by {mode} needs a text")
        query = None
        if mode != "words":
            if self._model is None:
                raise StoreError(f"{self.uri}: a search by {mode} needs the model that made the table; set one")
            query = query_vector(self._model, text, image, image_weight)
        return self._distinct(
            lambda limit: self._rows(mode, side, query, text, where, limit, probes, exact), f"{side}_key", mode, k
        )

    def recall(
        self, *, k: int = 10, queries: int = 200, against: str | None = None, probes: int | None = None, seed: int = 0
    ) -> float:
        """Share of the `k` nearest rows (0 to 1) that a search by vector finds, over `queries` rows' own vectors.

        The queries are vectors of the other side, where the table has it, as captions are when pictures are ranked.
        """
        check_count(k)
        side = self.side(against)
        asked: Side = "text" if side == "image" else "image"
        column = VECTORS[asked if asked in self.sides else side]
        rows = np.random.default_rng(seed).permutation(len(self))[:queries]
        with told(self.uri, "be read"):
            vectors = self._table.take_offsets(rows.tolist()).select([column]).to_arrow()[column].to_pylist()
        shares = []
        for vector in vectors:
            if vector is not None:
                query = np.asarray(vector, np.float32)
                found, wanted = (
                    {row["key"] for row in self._rows("vector", side, query, None, None, k, probes, exact)}
                    for exact in (False, True)
                )
                shares.append(len(found & wanted) / max(1, len(wanted)))
        return float(np.mean(shares)) if shares else 1.0

    def indexed(self, side: Side) -> bool:
        """Whether vectors of this side are found by an approximate index."""
        return any(index.columns == [VECTORS[side]] for index in self._table.list_indices())

    def _rows(
        self,
        mode: Mode,
        side: Side,
        query: Vector | None,
        text: str | None,
        where: str | None,
        limit: int,
        probes: int | None,
        exact: bool,
    ) -> list[dict[str, Any]]:
        """The first rows as the database ranks them, with their scores."""
        columns = [*self.attributes, f"{side}_key"]
        with told(self.uri if where is None else f"--where {where}", "be searched" if where is None else "be read"):
            if mode == "words":
                asked = self._table.search(text, query_type="fts", fts_columns="caption")
            elif mode == "vector":
                asked = self._table.search(query, vector_column_name=VECTORS[side])
            else:
                asked = self._table.search(query_type="hybrid", vector_column_name=VECTORS[side], fts_columns="caption")
                asked = asked.vector(query).text(text)
            if mode != "words":
                asked = self._tuned(asked.distance_type("cosine"), probes, exact)
            if mode == "hybrid":
                from lancedb.rerankers import RRFReranker

                asked = asked.rerank(RRFReranker())
            else:
                columns.append(SCORES[mode])
            if where is not None:
                asked = asked.where(where)
            rows: list[dict[str, Any]] = asked.limit(limit).select(columns).to_list()
            return rows

    @staticmethod
    def _tuned(asked: Any, probes: int | None, exact: bool) -> Any:
        if exact:
            return asked.bypass_vector_index()
        # The index is of coarse vectors: ten times as many as are wanted are compared again in full.
        asked = asked.refine_factor(10)
        return asked if probes is None else asked.minimum_nprobes(probes).maximum_nprobes(probes)

    def _distinct(self, search: Callable[[int], list[dict[str, Any]]], key: str, mode: Mode, k: int) -> list[Hit]:
        """The best row of each distinct item: rows are asked for until there are `k` of them, or no more."""
        limit = 2 * k
        while True:
            rows = search(limit)
            first: dict[Any, dict[str, Any]] = {}
            for row in rows:
                first.setdefault(row[key] if row[key] is not None else ("row", row["key"]), row)
            if len(first) >= k or len(rows) < limit:
                return [self._hit(rank, row, mode) for rank, row in enumerate(list(first.values())[:k], start=1)]
            limit *= 4

    def _hit(self, rank: int, row: dict[str, Any], mode: Mode) -> Hit:
        score = float(row[SCORES[mode]])
        own = ("key", "caption", "image", "thumbnail")
        attributes = {name: plain(row[name]) for name in self.attributes if name not in own and row[name] is not None}
        return Hit(
            rank,
            1.0 - score if mode == "vector" else score,
            row["key"],
            row["caption"],
            row["image"],
            thumbnail=row["thumbnail"],
            attributes=attributes,
        )
