"""The summary page: what it measures, what it shows, and that it stands alone.

Invariants
- The page needs nothing else: every picture is a data URI, no script, no address.
- Text of the catalogue is shown as text: markup in captions and titles is escaped.
- Its retrieval figures are those of `evaluate_retrieval`; a gallery query's frame is on a right answer, and its rank is
  the place of that answer.
- `caption_fits` equals a slow double loop; pictures and captions of the same product are never strangers.
- With a truth file, `found` counts exactly the known rows among as many worst ones; an unknown id is refused.
- A run that is not finished is refused, as bad usage.
"""

import csv
import json
import re
import shutil
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dalr.catalogue.page import render, write_summary
from dalr.catalogue.pages import duration
from dalr.catalogue.pages.charts import chart
from dalr.catalogue.summary import Summary, read_truth, summarise
from dalr.catalogue.suspects import caption_fits
from dalr.catalogue.thumbnails import picture_uri
from dalr.config import parse_config
from dalr.data.manifest import Manifest
from dalr.errors import DataError, UsageError
from dalr.evaluation.catalogue import evaluate_retrieval
from dalr.evaluation.embeddings import image_features, text_features
from dalr.model import DualEncoder
from dalr.run import RunConfig
from dalr.run.training import run_training

Run = Callable[..., tuple[int, str, str]]

DEMO = Path(__file__).parents[2] / "assets/demo"
HOSTILE = '<script>alert("x")</script> & mug'


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty rows of the demo catalogue, one with a hostile caption."""
    folder = tmp_path_factory.mktemp("catalogue")
    (folder / "images").mkdir()
    with open(DEMO / "products.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    chosen = [row for row in rows if row["split"] == "train"][:20] + [row for row in rows if row["split"] == "test"][
        :10
    ]
    chosen[3]["text"] = chosen[-1]["text"] = HOSTILE
    with open(folder / "products.csv", "w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, list(rows[0]))
        table.writeheader()
        table.writerows(chosen)
    for row in chosen:
        shutil.copy(DEMO / row["image"], folder / row["image"])
    return folder / "products.csv"


@pytest.fixture(scope="module")
def run(catalogue: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "model"
    new = {"layers": 1, "width": 32, "heads": 2, "vocab_size": 200}
    values = {
        "data": {"train": str(catalogue)},
        "model": {
            "text": {"name": "new", "train": "full", "new": new},
            "image": {"name": "timm:test_resnet", "pretrained": False, "train": "full", "image_size": 32},
            "dim": 16,
        },
        "objective": {"name": "clip"},
        "train": {"steps": 3, "batch_size": 8, "log_every": 1},
    }
    run_training(parse_config(RunConfig, values), out)
    return out


@pytest.fixture(scope="module")
def model(run: Path) -> DualEncoder:
    return DualEncoder.from_pretrained(run)


@pytest.fixture
def summary(run: Path, model: DualEncoder, catalogue: Path) -> Summary:
    return summarise(run, model, Manifest.load(catalogue), title=HOSTILE, queries=6, suspects=5)


def test_the_page_stands_alone(summary: Summary, tmp_path: Path) -> None:
    write_summary(tmp_path / "summary.html", summary)
    page = (tmp_path / "summary.html").read_text(encoding="utf-8")
    sources = re.findall(r'src="([^"]*)"', page)
    far = sum(query.rank > 5 for query in summary.gallery)
    assert len(sources) == sum(len(query.hits) for query in summary.gallery) + far + len(summary.suspects.shown)
    assert all(source.startswith("data:image/") for source in sources)
    assert "<script" not in page
    assert "://" not in page
    assert "url(" not in page
    assert "<svg" in page, "the loss curve"
    # The hostile caption is on the page, as text.
    assert "&lt;script&gt;alert(" in page
    assert any(HOSTILE in text for text in (summary.title, *(row.caption for row in summary.suspects.shown)))


def test_what_is_shown_is_what_was_measured(summary: Summary, model: DualEncoder, catalogue: Path) -> None:
    manifest = Manifest.load(catalogue).part("test")
    assert summary.split == "test"
    assert summary.retrieval == evaluate_retrieval(model, manifest)
    images = list(dict.fromkeys(manifest.images))
    vectors = model.encode_image([manifest.root / name for name in images if name])
    assert len(summary.gallery) == 6
    for query in summary.gallery:
        order = np.argsort(-(vectors @ model.encode_text([query.text])[0]), kind="stable")
        right = {image for image, text in zip(manifest.images, manifest.texts, strict=True) if text == query.text}
        assert [hit.image.name for hit in query.hits] == [Path(images[at] or "").name for at in order[:5]]
        assert [hit.right for hit in query.hits] == [images[at] in right for at in order[:5]]
        assert query.answer.name in {Path(image or "").name for image in right}
        assert query.rank == 1 + min(place for place, at in enumerate(order) if images[at] in right)


def test_caption_fits_equals_the_double_loop(model: DualEncoder, catalogue: Path) -> None:
    manifest = Manifest.load(catalogue)
    fits = caption_fits(model, manifest, text_features(model, manifest), image_features(model, manifest))
    texts = model.encode_text([text or "" for text in manifest.texts])
    pictures = model.encode_image([manifest.image_path(row) for row in range(len(manifest))])
    cosines = texts @ pictures.T
    assert fits.rows.tolist() == list(range(len(manifest)))
    assert fits.pictures == len(set(manifest.images))
    for row in range(len(manifest)):
        others = [
            other
            for other in range(len(manifest))
            if manifest.images[other] != manifest.images[row] and manifest.texts[other] != manifest.texts[row]
        ]
        expected = cosines[row, row] - (max(cosines[row, others]) + max(cosines[others, row])) / 2
        assert fits.fit[row] == pytest.approx(expected, abs=1e-5)
        ahead = {manifest.images[other] for other in others if cosines[row, other] >= cosines[row, row]}
        assert abs(int(fits.rank[row]) - 1 - len(ahead)) <= 1  # a rounding apart at most
    assert len(set(fits.rank.tolist())) > 3
    assert fits.fit[fits.worst(len(fits.fit))].tolist() == sorted(fits.fit.tolist())


def test_truth_is_counted(run: Path, model: DualEncoder, catalogue: Path, tmp_path: Path) -> None:
    manifest = Manifest.load(catalogue)
    part = manifest.part("train")
    fits = caption_fits(model, part, text_features(model, part), image_features(model, part))
    order = fits.worst(len(part))

    def counted(rows: np.ndarray) -> tuple[int | None, int | None]:
        path = tmp_path / "truth.csv"
        path.write_text("id,right_text\n" + "".join(f"{part.keys[row]},right\n" for row in rows))
        found = summarise(run, model, manifest, title="t", truth=path, suspects=4).suspects
        assert [row.known for row in found.shown] == [bool(np.isin(row, rows)) for row in order[:4]]
        return found.planted, found.found

    assert counted(order[:3]) == (3, 3)
    assert counted(order[-3:]) == (3, 0)
    assert counted(np.array([order[0], order[-1]])) == (2, 1)
    (tmp_path / "other.csv").write_text("id\nnobody\n")
    with pytest.raises(DataError, match=r"other\.csv:2: .*nobody"):
        read_truth(tmp_path / "other.csv", manifest)
    (tmp_path / "empty.csv").write_text("name\nx\n")
    with pytest.raises(DataError, match="no column 'id'"):
        read_truth(tmp_path / "empty.csv", manifest)


def test_without_splits_or_truth(run: Path, model: DualEncoder, catalogue: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    manifest = Manifest.load(catalogue)
    lines = ["image,text"]
    for row in range(6):
        shutil.copy(manifest.image_path(row), tmp_path / "images")
        lines.append(f"{manifest.images[row]},caption {row}")
    (tmp_path / "plain.csv").write_text("\n".join(lines) + "\nimages/none.jpg,a lost one\n")
    found = summarise(run, model, Manifest.load(tmp_path / "plain.csv"), title="t")
    assert found.split is None
    assert found.suspects.planted is None
    page = render(found)
    assert "images/none.jpg" in page
    assert "swapped on purpose" not in page


def test_an_unfinished_run_is_refused(model: DualEncoder, catalogue: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a finished run"):
        summarise(tmp_path / "nothing", model, Manifest.load(catalogue), title="t")


def test_dalr_report(run: Path, catalogue: Path, tmp_path: Path, dalr: Run) -> None:
    report = partial(dalr, "report", "--run", run, "--data", catalogue, "--out", tmp_path / "page.html")

    code, out, _ = report("--json")
    assert code == 0
    printed = json.loads(out)
    assert printed.keys() == {"out", "split", "retrieval", "suspects", "looked_at", "planted", "found"}
    assert printed["planted"] is None
    assert (tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    code, out, error = report("--truth", str(tmp_path / "none.csv"))
    assert (code, out) == (2, "")
    assert "none.csv" in error
    assert len(error.splitlines()) == 1


def test_small_files_go_in_as_they_are_and_others_as_thumbnails(tmp_path: Path) -> None:
    import base64
    import io

    small = DEMO / "images/p0001.jpg"
    assert base64.b64decode(picture_uri(small).partition(",")[2]) == small.read_bytes()
    noise = np.random.default_rng(0).integers(0, 256, size=(600, 900, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.png")
    uri = picture_uri(tmp_path / "large.png")
    assert Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).size == (224, 149)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError):
        picture_uri(tmp_path / "broken.jpg")


@pytest.mark.parametrize("highest", [0.004, 0.3, 1, 4.85, 37.2, 99.9, 1234.5])
def test_chart_ticks_cover_the_line(highest: float) -> None:
    drawn = chart("t", [(0.0, 0.0), (2.5, highest / 2), (10.0, highest)])
    assert drawn is not None
    assert 3 <= len(drawn.y_ticks) <= 7
    assert drawn.y_ticks == sorted(drawn.y_ticks, reverse=True)
    labels = [float(label) for _, label in drawn.y_ticks]
    assert labels[0] == 0
    assert highest * 0.7 <= labels[-1] <= highest * 1.3
    assert len({round(b - a, 9) for a, b in pairwise(labels)}) == 1
    assert chart("t", [(0.0, 1.0)]) is None


def test_durations() -> None:
    assert [duration(seconds) for seconds in (3.4, 59.6, 125, 3600, 11460)] == [
        "3 s",
        "1 min 0 s",
        "2 min 5 s",
        "1 h 0 min",
        "3 h 11 min",
    ]
