"""A catalogue's store and search.

Invariants
- The store holds what the model encodes; one row for each distinct text and image.
- Embedding again runs only what is new or changed; another model gets its own stores, and the old ones go.
- A run killed before its end goes on; a finished catalogue stays readable until the next one is complete.
- An image that cannot be read is skipped, recorded and counted; its row's text is still there.
- A side can be embedded alone; the other stays while model and rows are the same, and only then.
- Search ranks as brute force over what the model encodes; each image once, by text, by image, and by both.
- A store whose model has changed is refused and says what to do; so is a folder that is no store.
- An argument that is an existing image file is an image; everything else is a text.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_catalogue import draw_photo, tiny_catalogue, tiny_model, write_manifest

from dalr.catalogue.embed import EmbedResult, embed_catalogue, read_catalogue
from dalr.catalogue.search import Catalogue, image_or_text
from dalr.data.manifest import Manifest
from dalr.errors import DataError, ModelError, StoreError, UsageError
from dalr.features import image_keys, text_keys
from dalr.model import DualEncoder


@pytest.fixture(scope="module")
def model() -> DualEncoder:
    return tiny_model()


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return Manifest.load(tiny_catalogue(tmp_path / "data"))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def embed(model: DualEncoder, manifest: Manifest, store: Path, **options: object) -> EmbedResult:
    return embed_catalogue(model, "models/tiny", manifest, store, cache=store.parent / "cache", **options)  # type: ignore[arg-type]


def paths_of(manifest: Manifest) -> list[Path]:
    return [manifest.image_path(row) for row in range(len(manifest))]


def test_the_store_holds_what_the_model_encodes(model: DualEncoder, manifest: Manifest, store: Path) -> None:
    result = embed(model, manifest, store)
    assert (result.rows, result.embedded, result.space) == (14, {"text": 14, "image": 12}, "shared")
    assert result.new == result.embedded
    head, rows, stores = read_catalogue(store)
    assert head["model"] == "models/tiny"
    assert [row["key"] for row in rows] == manifest.keys
    texts = [text or "" for text in manifest.texts]
    assert [row["text_key"] for row in rows] == text_keys(texts)
    assert [row["image_key"] for row in rows] == image_keys(paths_of(manifest))
    assert np.allclose(stores["text"].rows([row["text_key"] for row in rows]), model.encode_text(texts), atol=1e-5)
    images = model.encode_image(paths_of(manifest))
    assert np.allclose(stores["image"].rows([row["image_key"] for row in rows]), images, atol=1e-5)


def test_only_what_is_new_or_changed_is_embedded(model: DualEncoder, manifest: Manifest, store: Path) -> None:
    embed(model, manifest, store)
    assert embed(model, manifest, store).new == {"text": 0, "image": 0}
    folder = manifest.root
    draw_photo(folder / "images" / "new.png", 100)
    draw_photo(folder / "images" / "3.png", 103)
    rows = [*zip(manifest.images, manifest.texts, strict=True), ("images/new.png", "a new product")]
    longer = Manifest.load(write_manifest(folder, rows))  # type: ignore[arg-type]
    assert embed(model, longer, store).new == {"text": 1, "image": 2}
    _, found, stores = read_catalogue(store)
    images = model.encode_image(paths_of(longer))
    assert np.allclose(stores["image"].rows([row["image_key"] for row in found]), images, atol=1e-5)
    assert len(list(store.glob("rows-*.jsonl"))) == 1


def test_another_model_gets_its_own_stores(model: DualEncoder, manifest: Manifest, store: Path) -> None:
    embed(model, manifest, store)
    old = set(store.glob("*-*"))
    other = tiny_model(seed=1)
    with pytest.raises(StoreError, match=r"made by another model than the one at models/tiny is now; run dalr embed"):
        Catalogue(store, other)
    with pytest.raises(StoreError, match="another model"):
        Catalogue(store, tiny_model(image=False))
    result = embed(other, manifest, store)
    assert result.new == {"text": 14, "image": 12}
    assert Catalogue(store, other).search(text="a red dress")
    with pytest.raises(StoreError, match="another model"):
        Catalogue(store, model)
    assert not {path for path in old if path.is_dir()} & set(store.iterdir())
    assert sorted(path.name.split("-")[0] for path in store.iterdir() if path.is_dir()) == ["image", "text"]


def test_a_killed_run_goes_on(
    model: DualEncoder, manifest: Manifest, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> str:
        raise KeyboardInterrupt

    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr("dalr.catalogue.embed._write_rows", die)
            with pytest.raises(KeyboardInterrupt):
                embed(model, manifest, store)
        with pytest.raises(StoreError, match="was not embedded to the end; run dalr embed again"):
            Catalogue(store, model)
    assert embed(model, manifest, store).new == {"text": 0, "image": 0}
    # A later run that is killed leaves the catalogue as it was.
    with monkeypatch.context() as patch:
        patch.setattr("dalr.catalogue.embed._write_rows", die)
        with pytest.raises(KeyboardInterrupt):
            embed(tiny_model(seed=1), manifest, store)
    assert Catalogue(store, model).search(text="a red dress")


def test_bad_images_are_skipped_recorded_and_counted(model: DualEncoder, manifest: Manifest, store: Path) -> None:
    (manifest.root / "images" / "4.png").write_bytes(b"no image")
    (manifest.root / "images" / "5.png").unlink()
    result = embed(model, manifest, store)
    assert result.embedded == {"text": 14, "image": 10}
    assert [row.row for row in result.bad] == [6, 7]
    listed = [json.loads(line) for line in (store / "bad_rows.jsonl").read_text().splitlines()]
    assert [row["key"] for row in listed] == [manifest.keys[4], manifest.keys[5]]
    assert listed[1]["reason"] == "image 'images/5.png' is missing"
    found = Catalogue(store, model)
    assert len(found.search(text="a", k=100)) == 10
    assert len(found.search(text="a", k=100, against="text")) == 14
    draw_photo(manifest.root / "images" / "5.png", 5)
    assert embed(model, manifest, store).new["image"] == 1


def test_one_side_alone(model: DualEncoder, manifest: Manifest, store: Path) -> None:
    assert embed(model, manifest, store, sides=["image"]).embedded == {"image": 12}
    with pytest.raises(UsageError, match="holds no text side; run dalr embed with --side text"):
        Catalogue(store, model).search(text="a", against="text")
    assert set(embed(model, manifest, store, sides=["text"]).embedded) == {"text", "image"}
    assert Catalogue(store, model).count("image") == 12
    # Other rows: the image side would not fit them.
    assert set(embed(model, manifest.select(range(5)), store, sides=["text"]).embedded) == {"text"}
    assert not list(store.glob("image-*"))


def test_a_text_model_and_texts_alone(manifest: Manifest, store: Path) -> None:
    model = tiny_model(image=False)
    result = embed(model, manifest, store)
    assert (result.embedded, result.space) == ({"text": 14}, "sentence")
    catalogue = Catalogue(store, model)
    best = catalogue.search(text=manifest.texts[7], k=1)[0]
    assert (best.key, best.caption) == (manifest.keys[7], manifest.texts[7])
    assert best.score == pytest.approx(1, abs=1e-5)
    with pytest.raises(ModelError, match="no image tower"):
        catalogue.search(image=manifest.image_path(0))
    with pytest.raises(ModelError, match="no image tower"):
        embed(model, manifest, store, sides=["image"])


def test_search_ranks_as_brute_force(model: DualEncoder, manifest: Manifest, store: Path) -> None:
    embed(model, manifest, store)
    catalogue = Catalogue(store, model)
    images = model.encode_image(paths_of(manifest)[:12])
    text, photo = "a red dress", manifest.image_path(5)
    t, v = model.encode_text([text])[0], model.encode_image([photo])[0]
    queries = {
        (text, None, 0.5): t,
        (None, photo, 0.5): v,
        (text, photo, 0.5): t + v,
        (text, photo, 0.9): 0.1 * t + 0.9 * v,
    }
    ranked = set()
    for (words, image, weight), query in queries.items():
        hits = catalogue.search(text=words, image=image, image_weight=weight, k=100)
        scores = images @ (query / np.linalg.norm(query))
        order = np.argsort(-scores)
        assert [hit.key for hit in hits] == [manifest.keys[row] for row in order]
        assert [hit.score for hit in hits] == pytest.approx(scores[order].tolist(), abs=1e-5)
        assert [hit.rank for hit in hits] == list(range(1, 13))
        ranked.add(tuple(hit.key for hit in hits))
    assert len(ranked) > 2  # the weight matters
    best = catalogue.search(image=photo, k=1)[0]
    assert (best.key, best.image, best.caption, best.rows) == (
        manifest.keys[5], str(photo), manifest.texts[5], 1,
    )  # fmt: skip
    rows = {hit.key: hit.rows for hit in catalogue.search(text=text, k=100)}
    assert rows[manifest.keys[0]] == rows[manifest.keys[1]] == 2
    assert len(catalogue.search(text=text, k=3)) == 3
    captions = catalogue.search(text=manifest.texts[12], against="text", k=100)
    assert len(captions) == 14
    assert captions[0].key == manifest.keys[12]


def test_queries_that_cannot_be_answered(model: DualEncoder, manifest: Manifest, store: Path) -> None:
    embed(model, manifest, store)
    catalogue = Catalogue(store, model)
    for options, message in [
        ({}, "there is no query"),
        ({"text": "  "}, "the query is empty"),
        ({"text": "a", "k": 0}, "k is 0"),
        ({"text": "a", "image": manifest.image_path(0), "image_weight": 1.5}, "expected 0 to 1"),
    ]:
        with pytest.raises(UsageError, match=message):
            catalogue.search(**options)
    with pytest.raises(DataError):
        catalogue.search(image=manifest.root / "products.csv")


def test_what_is_no_store_is_refused(model: DualEncoder, manifest: Manifest, store: Path) -> None:
    with pytest.raises(StoreError, match=r"has no catalogue\.json.*dalr embed"):
        Catalogue(store, model)
    store.mkdir()
    (store / "letter.txt").write_text("mine")
    with pytest.raises(StoreError, match="choose another --out"):
        embed(model, manifest, store)
    assert (store / "letter.txt").read_text() == "mine"
    (store / "letter.txt").unlink()
    embed(model, manifest, store)
    next(store.glob("rows-*.jsonl")).unlink()
    with pytest.raises(StoreError, match="run dalr embed again"):
        Catalogue(store, model)
    (store / "catalogue.json").write_text("{}")
    with pytest.raises(StoreError, match="cannot be read"):
        Catalogue(store, model)


def test_an_argument_is_an_image_or_a_text(tmp_path: Path) -> None:
    draw_photo(tmp_path / "photo.png", 0)
    (tmp_path / "torn.png").write_bytes((tmp_path / "photo.png").read_bytes()[:40])
    (tmp_path / "red dress").write_text("a file that is no image")
    photo = str(tmp_path / "photo.png")
    assert image_or_text(photo) == (None, photo)
    for text in (
        "a red dress",
        str(tmp_path),
        str(tmp_path / "red dress"),
        "a" * 5000,
        "\0",
    ):
        assert image_or_text(text) == (text, None)
    with pytest.raises(DataError, match=r"torn\.png"):
        image_or_text(str(tmp_path / "torn.png"))
    with pytest.raises(DataError, match=r"none\.png: there is no such image file"):
        image_or_text(str(tmp_path / "none.png"))
