"""A store in the formats of others.

Invariants: what is read back is what the store holds, row by row, with nothing for what a row does not have; a FAISS
index ranks as the exact search does; a folder that is there is not written over; another format is refused.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from tiny_catalogue import draw_photo, tiny_model, write_manifest

from dalr.catalogue.embed import embed_catalogue, read_catalogue
from dalr.catalogue.export import export_store
from dalr.catalogue.search import Catalogue
from dalr.data.manifest import Manifest
from dalr.errors import MissingExtraError, UsageError


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for number in range(6):
        draw_photo(tmp_path / f"images/{number}.png", number)
    rows = [(f"images/{n}.png", f"a mug number {n}") for n in range(6)]
    manifest = Manifest.load(write_manifest(tmp_path, [*rows, ("images/0.png", "the first again"), ("", "alone")]))
    embed_catalogue(tiny_model(), "tiny", manifest, tmp_path / "store", cache=tmp_path / "cache")
    return tmp_path / "store"


def test_parquet(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dalr.catalogue.export.BLOCK", 3)
    assert export_store(store, tmp_path / "out", "parquet") == {"rows.parquet": 8}
    read = pq.read_table(tmp_path / "out/rows.parquet").to_pylist()
    _, rows, stores = read_catalogue(store)
    assert [row["text"] for row in read] == [row["text"] for row in rows]
    assert read[7]["image_vector"] is None
    for side in ("text", "image"):
        present = [at for at, row in enumerate(rows) if row[f"{side}_key"]]
        wanted = stores[side].rows([rows[at][f"{side}_key"] for at in present])
        assert np.array_equal(np.array([read[at][f"{side}_vector"] for at in present], np.float32), wanted)


def test_faiss(store: Path, tmp_path: Path) -> None:
    import faiss

    assert export_store(store, tmp_path / "out", "faiss") == {"text.faiss": 8, "image.faiss": 6}
    catalogue = Catalogue(store, tiny_model())
    query = catalogue.model.encode_text(["a red mug"])
    for side in ("text", "image"):
        index = faiss.read_index(str(tmp_path / f"out/{side}.faiss"))
        told = pq.read_table(tmp_path / f"out/{side}.parquet").to_pylist()
        scores, _ = index.search(query, 6)
        exact = catalogue.search(text="a red mug", against=side, k=6)
        assert np.allclose(scores[0], [hit.score for hit in exact], atol=1e-5)
        keys = {row["key"]: row[f"{side}_key"] for row in catalogue.rows}
        stored = read_catalogue(store)[2][side].rows([keys[row["key"]] for row in told])
        assert np.array_equal(index.reconstruct_n(0, len(told)), stored)
        assert [row["rows"] for row in told] == ([2, *[1] * 5] if side == "image" else [1] * 8)


def test_errors(store: Path, tmp_path: Path, dalr: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="--to csv: expected parquet or faiss"):
        export_store(store, tmp_path / "out", "csv")
    code, out, _ = dalr("export", "--store", store, "--to", "parquet", "--out", tmp_path / "out", "--json")
    assert (code, json.loads(out)["files"]) == (0, {"rows.parquet": 8})
    code, out, err = dalr("export", "--store", store, "--to", "parquet", "--out", tmp_path / "out")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "is there already" in err
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtraError, match=r"dalr\[faiss\]"):
        export_store(store, tmp_path / "other", "faiss")
    assert not (tmp_path / "other").exists()
