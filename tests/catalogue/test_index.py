"""The search table: what it holds, how it is brought up to date, and what a search finds in it.

Invariants
- A row of the table is a row of the catalogue; a column of numbers is one, a code with a leading zero is not; the
  vectors are the store's, and a row without a picture has none.
- A search by vector ranks as the exact search of the store does: by text, by image, by both, on both sides.
- A filter keeps what it says; one that cannot be read is named, with the reason.
- Words find captions by their words alone, without a model; hybrid finds what either finds.
- Written again, rows that say the same are not touched: counts say so, and a copy of the table from before is read
  until the new version is whole, also when the writer was killed. The next call finishes.
- An approximate index is measured against an exact search, and more probes find no less.
- Another model's table is refused and written anew; what is no table of ours is left alone.
- A caption with HTML in it is text in the gallery; a picture that cannot be read is told, and shown as missing.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_catalogue import tiny_model
from tiny_shop import Shop, products

from dalr.catalogue.embed import read_catalogue
from dalr.catalogue.gallery import write_gallery
from dalr.catalogue.index import index_catalogue
from dalr.catalogue.table import open_ready
from dalr.catalogue.table_search import SearchTable
from dalr.errors import MissingExtraError, StoreError, UsageError


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path / "shop", products())


def test_the_table_holds_the_catalogue(shop: Shop) -> None:
    result = shop.index()
    assert (result.rows, result.new, result.rebuilt, result.indexed) == (14, 14, True, [])
    assert result.notes == [
        "the column 'Key' is called 'Key_' in the table",
        "the column 'size.cm' is called 'size_cm' in the table",
    ]
    table, head = open_ready(shop.db)
    assert (head.model, head.space) == ("models/tiny", "shared")
    found = table.to_arrow()
    kinds = {name: str(found.schema.field(name).type) for name in ("price", "code", "size_cm", "Key_")}
    assert kinds == {"price": "int64", "code": "string", "size_cm": "double", "Key_": "string"}
    rows = {row["key"]: row for row in found.to_pylist()}
    assert rows["p3"]["price"] is None
    assert rows["p4"]["price"] == 40
    assert rows["words"]["image_vector"] is None
    assert rows["p4"]["image"] == str(shop.folder / "images/4.png")
    _, written, stores = read_catalogue(shop.store)
    for row in written:
        for side, store in stores.items():
            if row[f"{side}_key"] is not None:
                assert np.array_equal(rows[row["key"]][f"{side}_vector"], store.rows([row[f"{side}_key"]])[0])


@pytest.mark.parametrize("against", ["image", "text"])
def test_it_ranks_as_the_exact_search(shop: Shop, against: str) -> None:
    shop.index()
    photo = shop.folder / "images/5.png"
    for query in ({"text": "a red mug"}, {"image": photo}, {"text": "a red mug", "image": photo, "image_weight": 0.3}):
        found = shop.table().search(**query, against=against, k=20)
        exact = shop.exact().search(**query, against=against, k=20)
        assert len(found) == (12 if against == "image" else 14)
        assert np.allclose([hit.score for hit in found], [hit.score for hit in exact], atol=1e-5)
        # Rows of equal scores may come in any order.
        assert {hit.key for hit in found} <= {hit.key for hit in exact} | {"p0b"}
        assert found[0].caption == exact[0].caption


def test_filters(shop: Shop) -> None:
    shop.index()
    table = shop.table()
    hits = table.search(text="a mug", where="price < 50 AND caption LIKE '%red%'", k=20)
    assert {hit.key for hit in hits} == {"p0"}
    assert hits[0].attributes["price"] == 0
    assert {hit.key for hit in table.search(text="a mug", where="price IS NULL", k=5)} == {"p3"}
    for mode in ("words", "hybrid"):
        assert all(
            "green" in (hit.caption or "")
            for hit in table.search(text="mug", where="caption LIKE '%green%'", mode=mode)
        )  # type: ignore[arg-type]
    for wrong, said in (
        ("price <", "expression"),
        ("colour = 'red'", "No field named colour"),
        ("price < 'cheap'", "price < 'cheap'"),
    ):
        with pytest.raises(UsageError, match=said) as error:
            table.search(text="a mug", where=wrong)
        assert str(error.value).startswith(f"--where {wrong}: cannot be read (")
        assert "/root" not in str(error.value)
        assert "\n" not in str(error.value)


def test_words_and_hybrid(shop: Shop) -> None:
    shop.index()
    alone = SearchTable(shop.db)
    assert [hit.key for hit in alone.search(text="again", mode="words")] == ["p0b"]
    assert alone.search(text="sofa", mode="words") == []
    with pytest.raises(StoreError, match="needs the model that made the table"):
        alone.search(text="again")
    with pytest.raises(UsageError, match="a search by words needs a text"):
        alone.search(image=shop.folder / "images/1.png", mode="words")
    table = shop.table()
    fused = table.search(text="again", mode="hybrid", k=20)
    assert "p0b" in {hit.key for hit in fused} or "p0" in {hit.key for hit in fused}
    assert len(fused) == 12
    assert [hit.score for hit in fused] == sorted((hit.score for hit in fused), reverse=True)


def test_nothing_is_written_where_nothing_changed(shop: Shop) -> None:
    shop.index()
    version = SearchTable(shop.db).version
    result = shop.index()
    assert (result.rows, result.new, result.changed, result.removed, result.rebuilt) == (14, 0, 0, 0, False)
    assert SearchTable(shop.db).version == version


def test_a_few_changes_are_one_version(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "shop", products(40))
    shop.index()
    before = shop.table()
    shop.rows[1][2] = "a purple kettle"
    shop.rows[2][3] = "999"
    del shop.rows[4]
    shop.rows.append(["new's", "images/1.png", "one that is new", "1", "01", "x", "3", "gn"])
    result = shop.index()
    assert (result.rows, result.new, result.changed, result.removed, result.rebuilt) == (42, 1, 2, 1, False)
    after = shop.table()
    assert [hit.key for hit in after.search(text="kettle", mode="words")] == ["p1"]
    assert [hit.key for hit in after.search(text="a mug", where="price = 999")] == ["p2"]
    assert after.search(text="mug", where="key = 'p4'") == []
    assert len(after) == 42
    # Who had it open goes on with what was there.
    assert before.search(text="kettle", mode="words") == []
    assert [hit.key for hit in before.search(text="mug", where="key = 'p4'")] == ["p4"]
    assert np.allclose(
        [hit.score for hit in after.search(text="a red mug", k=50)],
        [hit.score for hit in shop.exact().search(text="a red mug", k=50)],
        atol=1e-5,
    )
    del shop.rows[-1]
    assert shop.index().removed == 1


def test_most_changed_begins_anew(shop: Shop) -> None:
    shop.index()
    for row in shop.rows:
        row[2] += " again"
    assert shop.index().rebuilt


@pytest.mark.parametrize("call", ["create_table", "create_index"])
def test_a_killed_first_run_is_told_and_finished(shop: Shop, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    import lancedb

    owner = lancedb.db.LanceDBConnection if call == "create_table" else lancedb.table.LanceTable
    with monkeypatch.context() as patch:
        patch.setattr(owner, call, _killed)
        with pytest.raises(KeyboardInterrupt):
            shop.index()
    with pytest.raises(StoreError, match=r"has no table 'products'|was not written to the end; run dalr index again"):
        SearchTable(shop.db)
    shop.index()
    assert shop.table().search(text="again", mode="words")


def test_a_killed_later_run_leaves_the_version_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import lancedb

    shop = Shop(tmp_path / "shop", products(40))
    shop.index()
    shop.rows[1][2] = "a purple kettle"
    with monkeypatch.context() as patch:
        patch.setattr(lancedb.table.LanceTable, "optimize", _killed)
        with pytest.raises(KeyboardInterrupt):
            shop.index()
    assert shop.table().search(text="kettle", mode="words") == []
    assert shop.index().changed == 0
    assert [hit.key for hit in shop.table().search(text="kettle", mode="words")] == ["p1"]


def _killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_an_approximate_index_is_measured(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "shop", products(300))
    assert shop.index(indexed_from=256).indexed == ["text", "image"]
    table = shop.table()
    assert table.indexed("image")
    shares = [table.recall(k=10, queries=40, probes=probes) for probes in (1, 1000)]
    assert 0 <= shares[0] <= shares[1] <= 1
    assert shares[1] > 0.9
    exact = table.search(text="a red mug", k=10, exact=True)
    assert [hit.key for hit in exact] == [hit.key for hit in shop.exact().search(text="a red mug", k=10)]


def test_another_model(shop: Shop) -> None:
    shop.index()
    table = SearchTable(shop.db)
    with pytest.raises(StoreError, match=r"made by another model .* run dalr embed and dalr index again"):
        table.model = tiny_model(seed=1)
    shop.model = tiny_model(seed=1)
    assert shop.index().rebuilt
    assert shop.table().search(text="a red mug")


def test_what_is_not_ours_is_left_alone(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    import lancedb

    shop.embed()
    with pytest.raises(StoreError, match="has no table 'products'; make one with dalr index"):
        SearchTable(shop.db)
    lancedb.connect(str(shop.db)).create_table("products", [{"a": 1}])
    with pytest.raises(StoreError, match="was not made by dalr index; choose another --table"):
        shop.index()
    assert shop.index(name="mine").new == 14
    (shop.folder / "file").write_text("no folder")
    with pytest.raises(UsageError, match=r"file: cannot be (opened|written)"):
        index_catalogue(shop.store, shop.manifest(), shop.folder / "file")
    shop.rows[0][2] = "changed since"
    with pytest.raises(StoreError, match="was embedded from other rows"):
        index_catalogue(shop.store, shop.manifest(), shop.db)
    monkeypatch.setitem(sys.modules, "lancedb", None)
    with pytest.raises(MissingExtraError, match=r"dalr\[search\]"):
        SearchTable(shop.db)


def test_a_database_by_its_uri(shop: Shop) -> None:
    shop.embed()
    uri = f"file://{shop.db}"
    index_catalogue(shop.store, shop.manifest(), uri)
    assert len(SearchTable(uri)) == len(SearchTable(shop.db)) == 14


def test_thumbnails_and_gallery(shop: Shop, tmp_path: Path) -> None:
    shop.rows[0][2] = "<script>alert(1)</script> mug"
    shop.embed()
    manifest = shop.manifest()
    (shop.folder / "images/5.png").write_bytes(b"broken since")
    result = index_catalogue(shop.store, manifest, shop.db, thumbnails=tmp_path / "small")
    assert len(result.bad) == 1
    assert "products.csv:7" in result.bad[0]
    assert len(list((tmp_path / "small").iterdir())) == 11
    hits = shop.table().search(text="mug", k=12)
    write_gallery(
        tmp_path / "page.html", hits, text="<b>mug</b>", image=None, of=14, ranked="cosine", where="price < 5"
    )
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/") == 11
    assert page.count("no picture") == 1
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "&lt;b&gt;mug" in page
    with pytest.raises(UsageError, match="cannot be written"):
        write_gallery(
            shop.folder / "products.csv/page.html", [], text="x", image=None, of=0, ranked="cosine", where=None
        )


def test_the_commands(shop: Shop, dalr: Any, tmp_path: Path) -> None:
    shop.model.save_pretrained(tmp_path / "model")
    data = shop.manifest().source
    assert dalr("embed", "--model", tmp_path / "model", "--data", data, "--out", shop.store)[0] == 0
    code, out, err = dalr("index", "--store", shop.store, "--data", data, "--out", shop.db, "--json")
    assert (code, json.loads(out)["new"]) == (0, 14), err
    code, out, _ = dalr("index", "--store", shop.store, "--data", data, "--out", shop.db)
    assert "14 rows, 0 new, 0 changed, 0 removed; search it with" in out
    code, out, err = dalr(
        "search", "--db", shop.db, "a red mug", "--where", "price >= 60", "-k", 3, "--compare-exact", "--json"
    )
    found = json.loads(out)
    assert (code, found["recall"], len(found["results"])) == (0, 1.0, 3), err
    assert all(hit["attributes"]["price"] >= 60 for hit in found["results"])
    code, out, _ = dalr("search", "--db", shop.db, "a red mug", "--mode", "hybrid", "--html", tmp_path / "page.html")
    assert code == 0
    assert "price" in out
    assert (tmp_path / "page.html").read_text().count("<li>") == 10
    for arguments, said in (
        (["--store", shop.store, "--where", "price < 5"], "--where is for --db; make a database with dalr index"),
        (["--store", shop.store, "--db", shop.db], "give --store (made by dalr embed) or --db"),
        (["--db", shop.db, "--where", "price <"], "--where price <: cannot be read"),
        (["--db", tmp_path / "none"], "has no table 'products'"),
        (["--db", shop.db, "--mode", "best"], "--mode best: expected vector, words, hybrid"),
    ):
        code, out, err = dalr("search", "a mug", *arguments)
        assert (code, out) == (2, ""), arguments
        assert said in err
        assert err.count("\n") == 1
