"""Whitening, mean-centring and shorter vectors.

Invariants:
- whitened training features have mean 0 and covariance I, for each dim; the widest directions come first, and the
  map is the closed form from numpy's own covariance; in a null direction nothing is blown up
- centred training features have mean 0 and keep their differences
- a saved and loaded tower gives equal embeddings and the same fingerprint; the layers add no trainable parameter
  to a frozen tower
- `truncate_dim` gives the first numbers at unit length, at call time or saved with the model
- too few texts, a dim out of range, a model with heads: each refused in one line
"""

from pathlib import Path

import numpy as np
import pytest

from dalr import DualEncoder, ModelConfig
from dalr.encoders import ImageConfig, TextConfig, TextEncoder, build_text_encoder, load_text_encoder
from dalr.encoders.whitening import fit_centring, fit_whitening
from dalr.errors import ConfigError, DataError, ModelError

SENTENCE = "a red shirt with long sleeves and blue jeans for men slim fit shoes the quick brown fox jumps over"
WORDS = SENTENCE.split()


@pytest.fixture(scope="module")
def sentences() -> list[str]:
    draw = np.random.default_rng(3)
    return [" ".join(draw.choice(WORDS, draw.integers(2, 9))) for _ in range(150)]


@pytest.fixture
def encoder(bert_dir: Path) -> TextEncoder:
    return build_text_encoder(TextConfig(name=str(bert_dir)))


def features(rows: int = 400, width: int = 12) -> np.ndarray:
    draw = np.random.default_rng(0)
    scales = np.geomspace(30, 0.03, width)
    return (draw.normal(size=(rows, width)) * scales) @ draw.normal(size=(width, width)) + 5


@pytest.mark.parametrize("dim", [None, 12, 5, 1])
def test_whitened_features_have_no_mean_and_unit_covariance(dim: int | None) -> None:
    x = features()
    mean, matrix = fit_whitening(x, dim)
    y = (x - mean) @ matrix.T
    assert y.shape == (400, dim or 12)
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(np.cov(y.T, bias=True).reshape(dim or 12, -1), np.eye(dim or 12), atol=1e-6)
    full = fit_whitening(x)[1]
    np.testing.assert_array_equal(matrix, full[: dim or 12])
    lengths = np.linalg.norm(full, axis=1)
    assert (np.diff(lengths) > 0).all(), "the widest directions, which are scaled least, come first"
    np.testing.assert_allclose(full.T @ full, np.linalg.inv(np.cov(x.T, bias=True)), rtol=1e-6, atol=1e-6)


def test_a_direction_without_variance_is_not_blown_up() -> None:
    x = features(width=6)
    flat = np.concatenate([x, x[:, :1] * 2 + 1e-7 * np.random.default_rng(1).normal(size=(400, 1))], axis=1)
    mean, matrix = fit_whitening(flat)
    y = (flat - mean) @ matrix.T
    assert np.isfinite(matrix).all()
    assert y[:, -1].std() < 0.01
    np.testing.assert_allclose(np.cov(y[:, :-1].T, bias=True), np.eye(6), atol=1e-6)


def test_shrinkage_goes_from_whitening_to_one_scale_for_all() -> None:
    x = features()
    _, half = fit_whitening(x, shrinkage=0.5)
    covariance = np.cov(x.T, bias=True)
    shrunk = 0.5 * covariance + 0.5 * np.trace(covariance) / 12 * np.eye(12)
    np.testing.assert_allclose(half.T @ half, np.linalg.inv(shrunk), rtol=1e-8)
    _, all_alike = fit_whitening(x, shrinkage=1.0)
    np.testing.assert_allclose(all_alike @ all_alike.T, np.eye(12) * 12 / np.trace(covariance), atol=1e-12)


def test_centring() -> None:
    x = features()
    mean = fit_centring(x)
    np.testing.assert_allclose((x - mean).mean(axis=0), 0, atol=1e-12)


def test_fits_that_are_refused() -> None:
    with pytest.raises(DataError, match="23 texts are too few for a width of 12; give at least 24"):
        fit_whitening(features(23))
    for dim in (0, 13):
        with pytest.raises(ConfigError, match=f"dim {dim} is not between 1 and the width 12"):
            fit_whitening(features(), dim)
    with pytest.raises(ConfigError, match=r"shrinkage 1\.5"):
        fit_whitening(features(), shrinkage=1.5)
    with pytest.raises(DataError, match="all texts have the same features"):
        fit_whitening(np.ones((40, 4)))
    with pytest.raises(DataError, match="not all finite"):
        fit_whitening(np.full((40, 4), np.nan))
    with pytest.raises(DataError, match="give at least 2"):
        fit_centring(features(1))


@pytest.mark.parametrize("dim", [None, 10])
def test_a_whitened_tower(encoder: TextEncoder, sentences: list[str], dim: int | None, tmp_path: Path) -> None:
    before = encoder.fingerprint()
    plain = encoder.encode(sentences)
    encoder.add_whitening(sentences, dim)
    assert encoder.width == (dim or 32)
    y = encoder.encode(sentences)
    scale = np.abs(plain).max()
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=2e-3 * scale)
    covariance, expected = np.cov(y.T, bias=True), np.eye(dim or 32)
    if dim is None:
        # A last layer norm leaves a direction without variance, the last one here: it stays so.
        expected[31, 31] = 0
    np.testing.assert_allclose(covariance, expected, atol=5e-3)
    assert encoder.fingerprint() != before
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    encoder.save(tmp_path)
    again = load_text_encoder(tmp_path)
    np.testing.assert_array_equal(again.encode(sentences), y)
    assert again.fingerprint() == encoder.fingerprint()
    assert again.width == encoder.width


def test_a_centred_tower_from_features(encoder: TextEncoder, sentences: list[str], tmp_path: Path) -> None:
    plain = encoder.encode(sentences)
    encoder.add_centring(plain)
    y = encoder.encode(sentences)
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(y[1:] - y[:1], plain[1:] - plain[:1], atol=1e-6)
    model = DualEncoder(ModelConfig(text=TextConfig(name="here")), encoder, None)
    model.save_pretrained(tmp_path)
    np.testing.assert_array_equal(
        DualEncoder.from_pretrained(tmp_path).encode_text(sentences), model.encode_text(sentences)
    )
    with pytest.raises(ConfigError, match=r"centring: expected features of width 32, got shape \(9, 5\)"):
        encoder.add_centring(np.ones((9, 5)))
    with pytest.raises(TypeError, match="takes a list of texts"):
        encoder.add_centring("a red shirt")


def test_a_trained_tower_learns_its_whitening_too(bert_dir: Path, sentences: list[str]) -> None:
    encoder = build_text_encoder(TextConfig(name=str(bert_dir), train="full"))
    encoder.add_whitening(sentences, 8)
    assert all(parameter.requires_grad for parameter in encoder.after.parameters())


def test_shorter_vectors(bert_dir: Path, minilm_dir: Path, texts: list[str], tmp_path: Path) -> None:
    for folder, unit in ((bert_dir, False), (minilm_dir, True)):
        model = DualEncoder.from_pretrained(folder)
        whole = model.encode_text(texts)
        short = model.encode_text(texts, truncate_dim=7)
        np.testing.assert_allclose(np.linalg.norm(short, axis=1), 1, atol=1e-6)
        np.testing.assert_allclose(short, whole[:, :7] / np.linalg.norm(whole[:, :7], axis=1)[:, None], atol=1e-6)
        saved = DualEncoder.build(ModelConfig(text=TextConfig(name=str(folder), truncate_dim=7)))
        assert saved.text is not None
        assert model.text is not None
        assert saved.text.width == 7
        np.testing.assert_allclose(saved.encode_text(texts), short, atol=1e-6)
        features = saved.text.encode(texts)
        if unit:
            np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-6)
        else:
            np.testing.assert_array_equal(features, model.text.encode(texts)[:, :7])
        saved.save_pretrained(tmp_path / folder.name)
        again = DualEncoder.from_pretrained(tmp_path / folder.name)
        assert again.fingerprint("text") == saved.fingerprint("text") != model.fingerprint("text")
        np.testing.assert_array_equal(again.encode_text(texts), saved.encode_text(texts))


def test_widths_that_are_refused(bert_dir: Path) -> None:
    model = DualEncoder.from_pretrained(bert_dir)
    for dim in (0, 33):
        with pytest.raises(ModelError, match=f"truncate_dim: {dim} is not between 1 and the width 32"):
            model.encode_text(["fox"], truncate_dim=dim)
    with pytest.raises(ModelError, match="truncate_dim: 33 is not between 1 and the text tower's width 32"):
        build_text_encoder(TextConfig(name=str(bert_dir), truncate_dim=33))


def test_a_model_with_heads_keeps_its_text_features(clip_dir: Path, sentences: list[str]) -> None:
    model = DualEncoder.from_pretrained(clip_dir)
    assert model.text is not None
    with pytest.raises(ModelError, match="whitening is for a model of texts alone"):
        model.text.add_whitening(sentences)
    with pytest.raises(ModelError, match="centring is for a model of texts alone"):
        model.text.add_centring(sentences)
    with pytest.raises(ModelError, match="a shorter width is for a model of texts alone"):
        model.text.truncate(4)
    with pytest.raises(ValueError, match=r"text\.truncate_dim is for a model of texts alone"):
        ModelConfig(text=TextConfig(name=str(clip_dir), truncate_dim=4), image=ImageConfig(name=str(clip_dir)))
    short = model.encode_text(["shoes"], truncate_dim=4)
    whole = model.encode_text(["shoes"])
    np.testing.assert_allclose(short[0], whole[0, :4] / np.linalg.norm(whole[0, :4]), atol=1e-6)
