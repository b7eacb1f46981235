"""The report: what it measures, what it shows, and that its folder stands alone.

Invariants
- The folder needs nothing else: every picture is a file below it, no script, no address; 3 MB bound the first page.
- Text of the catalogue is shown as text: markup in captions and titles is escaped.
- Its retrieval figures are those of `evaluate_retrieval`; a query's frame is on a right answer, its rank is the place
  of that answer, the worst come last and the best first.
- Recall by category is that of the category's own queries; the heat map is the mean of all cosines.
- Of an audit the findings are on pages, all of them, the likeliest first; an audit of other rows is refused.
- A run that is not finished is refused, as bad usage.
"""

import csv
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dalr.catalogue.audit import AuditConfig, audit_catalogue, read_truth, write_audit
from dalr.catalogue.pages import duration
from dalr.catalogue.pages.charts import chart
from dalr.catalogue.report import Report, gather_report, write_report
from dalr.catalogue.report.figures import Categories, heat_map
from dalr.catalogue.report.writing import GENERATOR, PAGE, next_steps
from dalr.catalogue.thumbnails import picture_uri
from dalr.config import parse_config
from dalr.data.manifest import Manifest
from dalr.errors import DataError, UsageError
from dalr.evaluation.catalogue import evaluate_retrieval
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
def report(run: Path, model: DualEncoder, catalogue: Path) -> Report:
    return gather_report(run, model, Manifest.load(catalogue), title=HOSTILE, by="type")


@pytest.fixture
def audit(model: DualEncoder, catalogue: Path, tmp_path: Path) -> Path:
    """An audit of the catalogue, with a truth of two rows, and thresholds by which all rows are findings."""
    manifest = Manifest.load(catalogue)
    (tmp_path / "truth.csv").write_text(f"id\n{manifest.keys[0]}\n{manifest.keys[3]}\n")
    truth = read_truth(tmp_path / "truth.csv", manifest)
    settings = AuditConfig.model_validate({"pictures": {"side": 10_000}})
    write_audit(tmp_path / "audit", manifest, audit_catalogue(model, manifest, settings), settings, "tiny", truth)
    return tmp_path / "audit"


def test_the_folder_stands_alone(report: Report, tmp_path: Path) -> None:
    page = write_report(tmp_path / "report", report)
    html = page.read_text(encoding="utf-8")
    assert page == tmp_path / "report/index.html"
    assert GENERATOR in html
    sources = re.findall(r'src="([^"]*)"', html)
    assert sources
    assert all((tmp_path / "report" / source).is_file() for source in sources)
    assert html.count('loading="lazy"') == len(sources)
    assert page.stat().st_size < 3_000_000
    assert "<script" not in html
    assert "://" not in html
    assert "url(" not in html
    assert "<svg" in html, "the loss curve"
    # The hostile caption is on the page, as text.
    assert "&lt;script&gt;alert(" in html
    assert HOSTILE in report.title


def test_what_is_shown_is_what_was_measured(report: Report, model: DualEncoder, catalogue: Path) -> None:
    whole = Manifest.load(catalogue)
    manifest = whole.part("test")
    assert report.split == "test"
    assert report.retrieval == evaluate_retrieval(model, manifest)
    images = list(dict.fromkeys(manifest.images))
    vectors = model.encode_image([manifest.root / name for name in images if name])
    assert len(report.examples.random) == 6
    for query in [*report.examples.random, *report.examples.worst, *report.examples.best]:
        order = np.argsort(-(vectors @ model.encode_text([query.text])[0]), kind="stable")
        right = {image for image, text in zip(manifest.images, manifest.texts, strict=True) if text == query.text}
        assert [whole.images[hit.row] for hit in query.hits] == [images[at] for at in order[:5]]
        assert [hit.right for hit in query.hits] == [images[at] in right for at in order[:5]]
        assert whole.images[query.answer] in right
        assert query.rank == 1 + min(place for place, at in enumerate(order) if images[at] in right)
    worst = [query.rank for query in report.examples.worst]
    assert worst == sorted(worst, reverse=True)
    assert all(query.rank == 1 for query in report.examples.best)


def test_categories(report: Report, model: DualEncoder, catalogue: Path) -> None:
    manifest = Manifest.load(catalogue).part("test")
    queries = sum(one.queries for one in report.recall_by)
    assert queries == report.retrieval["text_to_image"]["queries"]
    mean = sum(one.recall * one.queries for one in report.recall_by) / queries
    assert mean == pytest.approx(report.retrieval["text_to_image"]["recall@1"], abs=1e-3)
    assert [one.mrr for one in report.recall_by] == sorted(one.mrr for one in report.recall_by)
    assert report.map is not None
    assert sum(point.text for point in report.map.points) == report.retrieval["text_to_image"]["queries"]
    assert all(0 <= point.x <= 100 and 0 <= point.y <= 100 for point in report.map.points)
    texts = model.encode_text([text or "" for text in manifest.texts])
    pictures = model.encode_image([manifest.image_path(row) for row in range(len(manifest))])
    assert report.gap["right"] == pytest.approx(float((texts * pictures).sum(1).mean()), abs=1e-4)


def test_the_heat_map_is_the_mean_of_all_cosines() -> None:
    generator = np.random.default_rng(0)
    texts, images = (unit(generator.normal(size=(size, 8))) for size in (30, 20))
    of_text, of_image = (list(generator.choice(["a", "b", "c"], size)) for size in (30, 20))
    found = heat_map(Categories(of_text, of_image), texts, images, most=2)
    assert found is not None
    assert len(found.names) == 2
    for row, first in enumerate(found.names):
        for column, second in enumerate(found.names):
            lines = [at for at, name in enumerate(of_text) if name == first]
            columns = [at for at, name in enumerate(of_image) if name == second]
            assert found.values[row][column] == pytest.approx((texts[lines] @ images[columns].T).mean(), abs=6e-4)
    assert {found.shade(value) for value in found.range} == {0, 100}
    assert heat_map(Categories(["a"] * 30, ["a"] * 20), texts, images) is None


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_findings_are_on_pages(
    run: Path, model: DualEncoder, catalogue: Path, audit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dalr.catalogue.report.writing.PAGE", 12)
    manifest = Manifest.load(catalogue)
    found = gather_report(run, model, manifest, title="t", audit=audit)
    assert found.audited is not None
    assert len(found.audited.findings()) == 30
    assert found.audited.known_wrong is not None
    assert np.flatnonzero(found.audited.known_wrong).tolist() == [0, 3]
    write_report(tmp_path / "report", found)
    pages = [(tmp_path / f"report/findings-{number}.html").read_text(encoding="utf-8") for number in (1, 2, 3)]
    assert [page.count('<div class="where">') for page in pages] == [12, 12, 6]
    assert "findings-2.html" in pages[0]
    assert "Page" not in pages[0]
    assert sum(page.count("known to be wrong") for page in pages) == 2
    assert "too small" in pages[0] or "pixels" in pages[0]
    assert "&lt;script&gt;alert(" in "".join(pages)
    assert "<script" not in "".join(pages)
    # Fewer findings later leave no page of earlier ones.
    few = [replace(row, findings=row.findings if row.row < 5 else []) for row in found.audited.rows]
    shorter = replace(found.audited, rows=few)
    write_report(tmp_path / "report", replace(found, audited=shorter))
    assert sorted(path.name for path in (tmp_path / "report").glob("*.html")) == ["findings-1.html", "index.html"]
    with pytest.raises(UsageError, match="is an audit of other rows"):
        gather_report(run, model, manifest.select(range(20)), title="t", audit=audit)
    with pytest.raises(UsageError, match="is not a finished audit; make one with dalr audit"):
        gather_report(run, model, manifest, title="t", audit=tmp_path / "none")
    assert PAGE == 60


def test_without_splits(run: Path, model: DualEncoder, catalogue: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    manifest = Manifest.load(catalogue)
    lines = ["image,text"]
    for row in range(6):
        shutil.copy(manifest.image_path(row), tmp_path / "images")
        lines.append(f"{manifest.images[row]},caption {row}")
    (tmp_path / "plain.csv").write_text("\n".join(lines) + "\nimages/none.jpg,a lost one\n")
    found = gather_report(run, model, Manifest.load(tmp_path / "plain.csv"), title="t")
    assert (found.split, found.by, found.heat, found.audited) == (None, None, None, None)
    page = write_report(tmp_path / "report", found).read_text(encoding="utf-8")
    assert "images/none.jpg" in page
    steps = next_steps(found)
    assert steps[0].what.startswith("Mend 1 rows")
    assert (steps[1].command or "").startswith("dalr audit --model")


def test_what_is_refused(run: Path, model: DualEncoder, catalogue: Path, tmp_path: Path, report: Report) -> None:
    with pytest.raises(UsageError, match="not a finished run"):
        gather_report(tmp_path / "nothing", model, Manifest.load(catalogue), title="t")
    with pytest.raises(UsageError, match=r"--by taste: .* has no such column; its further columns are product, type"):
        gather_report(run, model, Manifest.load(catalogue), title="t", by="taste")
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UsageError, match="is not a report's folder"):
        write_report(tmp_path / "file", report)


def test_dalr_report(run: Path, catalogue: Path, audit: Path, tmp_path: Path, dalr: Run) -> None:
    call = partial(dalr, "report", "--run", run, "--data", catalogue, "--out", tmp_path / "pages")
    code, out, _ = call("--audit", audit, "--json")
    assert code == 0
    printed = json.loads(out)
    keys = {"out", "page", "split", "retrieval", "by", "recall_by", "gap", "findings", "next"}
    assert printed.keys() == keys
    assert printed["findings"] == 30
    assert (tmp_path / "pages/index.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    code, out, error = call("--audit", tmp_path / "none")
    assert (code, out) == (2, "")
    assert "none: is not a finished audit" in error
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
