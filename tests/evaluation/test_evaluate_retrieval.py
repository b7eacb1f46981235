"""Retrieval of a whole model on a manifest.

Invariants
- The numbers are those of `retrieval` on what `encode_text` and `encode_image` give.
- A second evaluation opens no image, also when the heads have been trained in between.
- Copies of one photo are one image; an image that cannot be read is left out, logged and mentioned.
- A model without both towers is refused.
"""

import logging
from pathlib import Path

import pytest
import torch
from tiny_catalogue import tiny_catalogue, tiny_model, write_manifest

from dalr.data.manifest import Manifest
from dalr.errors import DataError, ModelError
from dalr.evaluation.catalogue import evaluate_retrieval
from dalr.evaluation.relevance import relevance
from dalr.evaluation.retrieval import retrieval
from dalr.features import image_keys


def test_equals_the_metrics_of_what_the_model_encodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, manifest = tiny_model(), Manifest.load(tiny_catalogue(tmp_path))
    paths = [manifest.image_path(row) for row in range(len(manifest))]
    related = relevance(manifest.texts, image_keys(paths))
    assert (len(related.text_rows), len(related.image_rows)) == (14, 12)

    def expected() -> dict[str, object]:
        texts = model.encode_text([manifest.texts[row] or "" for row in related.text_rows])
        return retrieval(texts, model.encode_image([paths[row] for row in related.image_rows]), related)

    assert evaluate_retrieval(model, manifest, cache=tmp_path / "cache") == expected()

    before = expected()
    with torch.no_grad():
        for parameter in [*model.text_head.parameters(), *model.image_head.parameters()]:
            parameter.normal_()
    after = expected()
    assert after != before
    monkeypatch.setattr(Manifest, "open_image", lambda *_: pytest.fail("an image was opened"))
    assert evaluate_retrieval(model, manifest, cache=tmp_path / "cache") == after


def test_bad_images_are_left_out_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tiny_catalogue(tmp_path, 6)
    (tmp_path / "images" / "2.png").write_bytes(b"no image")
    (tmp_path / "images" / "3.png").unlink()
    manifest = Manifest.load(tmp_path / "products.csv")
    with caplog.at_level(logging.WARNING):
        found = evaluate_retrieval(tiny_model(), manifest, cache=tmp_path / "cache", resamples=10)
    assert found["image_to_text"]["queries"] == found["text_to_image"]["candidates"] == 4
    assert found["image_to_text"]["candidates"] == 8
    assert found["text_to_image"]["queries"] == 6
    assert found["definition"].endswith("2 images could not be read and were left out.")
    assert "products.csv:4" in caplog.text
    assert "products.csv:5" in caplog.text


def test_what_cannot_be_evaluated_is_refused(tmp_path: Path) -> None:
    manifest = Manifest.load(tiny_catalogue(tmp_path, 3))
    with pytest.raises(ModelError, match="both towers"):
        evaluate_retrieval(tiny_model(image=False), manifest)
    for number in range(3):
        (tmp_path / "images" / f"{number}.png").write_bytes(b"no image")
    broken = Manifest.load(write_manifest(tmp_path, [(f"images/{number}.png", "text") for number in range(3)]))
    with pytest.raises(DataError, match="not one of 3 images can be read"):
        evaluate_retrieval(tiny_model(), broken)
