"""Teachers.

Invariants
- A teacher's rows are what its own encoder gives, with its own tokenizer, whatever another teacher's is.
- What the cache holds is not run again; each distinct item is run once.
- Products are alike by the share of attributes in which they agree, counted here by hand.
- An image that cannot be read and a teacher that has nothing to teach are refused by name.
"""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_similarity
from tiny_catalogue import draw_photo

from dalr.config import parse_config
from dalr.data.images import open_image
from dalr.encoders import (
    ImageConfig,
    ImageEncoder,
    NewTextConfig,
    TextConfig,
    TextEncoder,
    build_image_encoder,
    build_text_encoder,
)
from dalr.errors import ConfigError, DataError, ModelError
from dalr.teachers import AttributeRows, TeacherConfig, teacher_rows

TEXTS = ["a red dress", "a blue shoe", "an old lamp", "a red dress"]


def text_encoder(folder: Path, width: int, corpus: list[str]) -> TextEncoder:
    folder.mkdir()
    config = TextConfig(name="new", train="full", new=NewTextConfig(layers=1, width=width, heads=2, vocab_size=100))
    encoder = build_text_encoder(config, corpus)
    encoder.save(folder)
    return encoder


def test_each_teacher_reads_with_its_own_tokenizer(tmp_path: Path) -> None:
    first = text_encoder(tmp_path / "a", 16, ["a red dress", "an old lamp"])
    second = text_encoder(tmp_path / "b", 32, ["zebras quickly jump over"])
    assert first.tokenize(TEXTS) != second.tokenize(TEXTS)
    for name, encoder in (("a", first), ("b", second)):
        rows = teacher_rows(TeacherConfig(name=str(tmp_path / name)), TEXTS, tmp_path / "cache")
        assert rows.shape == (4, encoder.width)
        assert np.allclose(rows[np.arange(4)], encoder.encode(TEXTS), atol=1e-6)
        assert np.array_equal(rows[np.array([3, 1])], rows[:][[3, 1]])


def test_pooling(tmp_path: Path) -> None:
    text_encoder(tmp_path / "a", 16, TEXTS)
    name, cache = str(tmp_path / "a"), tmp_path / "cache"
    by_first = build_text_encoder(TextConfig(name=name, pooling="cls")).encode(TEXTS)
    own = teacher_rows(TeacherConfig(name=name), TEXTS, cache)
    # The cache holds both, and neither is taken for the other.
    first = teacher_rows(TeacherConfig(name=name, pooling="cls"), TEXTS, cache)
    assert np.allclose(first[:], by_first, atol=1e-6)
    assert not np.allclose(first[:], own[:], atol=1e-2)
    assert np.array_equal(teacher_rows(TeacherConfig(name=name), TEXTS, cache)[:], own[:])
    for other in ({"name": "timm:resnet18", "side": "image"}, {"name": "lexical:words"}, {"name": "attributes:colour"}):
        with pytest.raises(ConfigError, match=f"pooling: is for text encoders, and {other['name']} is none"):
            parse_config(TeacherConfig, {**other, "pooling": "cls"})


def test_what_the_cache_holds_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text_encoder(tmp_path / "a", 16, TEXTS)
    config, cache = TeacherConfig(name=str(tmp_path / "a")), tmp_path / "cache"
    asked: list[str] = []
    encode = TextEncoder.encode
    monkeypatch.setattr(TextEncoder, "encode", lambda self, texts: asked.extend(texts) or encode(self, texts))
    before = teacher_rows(config, TEXTS, cache)[:]
    assert asked == TEXTS[:3]
    assert np.array_equal(teacher_rows(config, [*TEXTS, "a new one"], cache)[:4], before)
    assert asked == [*TEXTS[:3], "a new one"]


def test_an_image_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = build_image_encoder(ImageConfig(name="timm:test_resnet", pretrained=False, image_size=32))
    (tmp_path / "tower").mkdir()
    encoder.save(tmp_path / "tower")
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        draw_photo(path, number)
    config, cache = TeacherConfig(name=str(tmp_path / "tower"), side="image"), tmp_path / "cache"
    rows = teacher_rows(config, paths, cache)
    assert np.allclose(rows[:], encoder.encode(paths, open_image=open_image), atol=1e-5)
    with monkeypatch.context() as patch:
        patch.setattr(ImageEncoder, "encode", lambda *_, **__: pytest.fail("the cache was not used"))
        assert np.array_equal(teacher_rows(config, paths[::-1], cache)[:], rows[:][::-1])
    paths[1].write_bytes(b"no image")
    with pytest.raises(DataError, match=r"1\.png: .*drop the row"):
        teacher_rows(config, paths, cache)


def test_what_cannot_teach_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name: a teacher is a pretrained encoder"):
        parse_config(TeacherConfig, {"name": "new"})
    with pytest.raises(ConfigError, match="weight"):
        parse_config(TeacherConfig, {"name": "a", "weight": 0})
    with pytest.raises(ConfigError, match="'attributes:colour,' lacks a column"):
        parse_config(TeacherConfig, {"name": "attributes:colour,"})
    with pytest.raises(ModelError, match="no such folder"):
        teacher_rows(TeacherConfig(name=str(tmp_path / "nothing")), TEXTS)


def test_attributes_agree_by_their_share() -> None:
    rows = AttributeRows([["Shoe", "shoe ", "Shirt", None], ["red", "blue", "Red", float("nan")]])
    assert rows.shape == (4, 4)
    assert np.allclose(cosine_similarity(rows[np.arange(3)]), [[1, 0.5, 0.5], [0.5, 1, 0], [0.5, 0, 1]])
    # A product that has no value agrees with nothing, not even with another such one.
    assert not rows[np.array([3])].any()
    with pytest.raises(DataError, match="no row has a value in any of the columns"):
        AttributeRows([[None, " "]])
