"""A shop of a few products that is embedded and indexed as its rows change, for tests of what works on a table."""

import csv
from pathlib import Path
from typing import Any

from tiny_catalogue import draw_photo, tiny_model

from dalr.catalogue.embed import embed_catalogue
from dalr.catalogue.index import IndexResult, index_catalogue
from dalr.catalogue.search import Catalogue
from dalr.catalogue.table_search import SearchTable
from dalr.data.manifest import Manifest
from dalr.model import DualEncoder

HEADER = ("id", "image", "text", "price", "code", "Key", "size.cm", "group")
COLOURS = ("red", "green", "blue")


def products(count: int = 12) -> list[list[str]]:
    """Rows of HEADER; the first photo has two captions, the last row no photo."""
    rows = [
        [f"p{n}", f"images/{n}.png", f"a {COLOURS[n % 3]} mug number {n}", str(n * 10), f"0{n}", "x", f"{n}.5", f"g{n}"]
        for n in range(count)
    ]
    rows[3][3] = ""
    extra = ["p0b", "images/0.png", "the first one again", "0", "00", "x", "1", "g0"]
    return [*rows, extra, ["words", "", "it's a caption alone", "5", "07", "x", "2", "gw"]]


class Shop:
    """A catalogue in a folder, embedded and indexed as its rows change."""

    def __init__(self, folder: Path, rows: list[list[str]]) -> None:
        self.folder, self.rows = folder, rows
        self.model = tiny_model()
        self.store, self.db = folder / "store", folder / "db"
        (folder / "images").mkdir(parents=True)
        for row in rows:
            if row[1] and not (folder / row[1]).exists():
                draw_photo(folder / row[1], len(list((folder / "images").iterdir())))

    def manifest(self) -> Manifest:
        path = self.folder / "products.csv"
        with open(path, "w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([HEADER, *self.rows])
        return Manifest.load(path)

    def embed(self, model: DualEncoder | None = None) -> None:
        cache = self.folder / "cache"
        embed_catalogue(model or self.model, "models/tiny", self.manifest(), self.store, cache=cache)

    def index(self, **options: Any) -> IndexResult:
        self.embed()
        return index_catalogue(self.store, self.manifest(), self.db, **options)

    def table(self) -> SearchTable:
        table = SearchTable(self.db)
        table.model = self.model
        return table

    def exact(self) -> Catalogue:
        return Catalogue(self.store, self.model)
