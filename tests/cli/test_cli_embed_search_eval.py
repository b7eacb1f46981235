"""`dalr embed`, `dalr search`, `dalr eval retrieval`, `dalr eval sts` and `dalr bench images`, as a user calls them.

Invariants
- --json puts exactly one object on stdout, with the keys that the help names; messages go to stderr.
- Exit code 0 when done, 2 for bad usage or bad input, with one line that says what is wrong and what to do.
- A table for a person names the same numbers; piped, it is neither cut nor coloured.
- embed → search finds a product by its own photo; a changed model is refused.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_catalogue import draw_photo, tiny_catalogue, tiny_model, write_manifest

from dalr.data.manifest import Manifest

METRICS = ["recall@1", "recall@5", "recall@10", "mrr", "ndcg@10", "map@10", "median_rank"]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_model().save_pretrained(folder)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tiny_catalogue(tmp_path / "data")


def test_embed_then_search(dalr: Run, model: Path, data: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    draw_photo(data.parent / "images" / "9.png", 9)
    (data.parent / "images" / "8.png").write_bytes(b"no image")
    code, out, err = dalr("embed", "--model", model, "--data", data, "--out", store, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert list(found) == ["store", "model", "space", "rows", "embedded", "new", "bad", "bad_rows", "fingerprints"]
    assert (found["rows"], found["embedded"], found["bad"]) == (14, {"text": 14, "image": 11}, 1)
    assert found["model"] == str(model)
    assert found["bad_rows"][0]["row"] == 10
    code, out, err = dalr("embed", "--model", model, "--data", data, "--out", store)
    assert code == 0, err
    assert "14 texts (0 new), 11 images (0 new)" in out
    assert "products.csv:10" in out

    photo = data.parent / "images" / "9.png"
    code, out, err = dalr("search", "--store", store, photo, "-k", 3, "--json")
    assert code == 0, err
    answer = json.loads(out)
    assert list(answer) == ["store", "query", "against", "mode", "where", "recall", "results"]
    assert answer["query"] == {"text": None, "image": str(photo), "image_weight": 0.5}
    assert answer["against"] == "image"
    assert len(answer["results"]) == 3
    best = answer["results"][0]
    assert list(best) == ["rank", "score", "key", "caption", "image", "rows", "thumbnail", "attributes"]
    assert (best["rank"], best["image"], best["caption"]) == (1, str(photo), Manifest.load(data).texts[9])
    assert best["score"] == pytest.approx(1, abs=1e-4)

    by_image = json.loads(dalr("search", "--store", store, "--image", photo, "-k", 3, "--json")[1])
    assert by_image["results"] == answer["results"]
    both = json.loads(dalr("search", "--store", store, "a red dress", "--image", photo, "--json")[1])
    assert both["query"] == {"text": "a red dress", "image": str(photo), "image_weight": 0.5}
    assert len(both["results"]) == 10
    code, out, err = dalr("search", "--store", store, "a red dress", "-k", 2)
    assert code == 0, err
    assert out.splitlines()[0] == "2 of 11"
    assert len(out.splitlines()) == 4
    assert "\x1b" not in out
    assert str(data.parent / "images") in out


def test_search_refuses_a_store_whose_model_has_changed(dalr: Run, model: Path, data: Path, tmp_path: Path) -> None:
    moved = tmp_path / "trained"
    shutil.copytree(model, moved)
    store = tmp_path / "store"
    assert dalr("embed", "--model", moved, "--data", data, "--out", store, "--side", "image")[0] == 0
    assert dalr("search", "--store", store, "a bag")[0] == 0
    tiny_model(seed=1).save_pretrained(moved)
    code, out, err = dalr("search", "--store", store, "a bag", "--json")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert "run dalr embed again" in err
    assert dalr("search", "--store", store, "a bag", "--model", model)[0] == 0


def test_bad_usage_is_one_line_and_two(dalr: Run, model: Path, data: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    photo = data.parent / "images" / "0.png"
    assert dalr("embed", "--model", model, "--data", data, "--out", store)[0] == 0
    before = data.read_bytes()
    for arguments, message in [
        (("search", "--store", tmp_path / "none", "a"), "is not a catalogue's store"),
        (("search", "--store", store), "there is no query"),
        (("search", "--store", store, photo, "--image", photo), "two images are given"),
        (("search", "--store", store, "a", "--image", tmp_path / "none.png"), "there is no such image file"),
        (("search", "--store", store, "a", "--against", "video"), "expected image or text"),
        (("search", "--store", store, "a", "--image-weight", "0.2"), "give both"),
        (("search", "--store", store, "a", "--html", data), "expected the name of a page, ending in .html"),
        (("search", "--store", store, "--db", store, "a"), "not both"),
        (("search", "--store", store, photo.parent / "a photo.png"), "there is no such image file"),
        (("check", data, "--bad-rows", data), "is a file that is read"),
        (("mine", "--model", model, "--data", data, "--out", data), "is a file that is read"),
        (("audit", "--model", model, "--data", data, "--out", data.parent), "is not an audit's folder"),
        (("report", "--run", model, "--data", data, "--out", data.parent), "is not a report's folder"),
        (("embed", "--model", model, "--data", data, "--out", store, "--side", "both"), "expected image or text"),
        (("embed", "--model", tmp_path / "none", "--data", data, "--out", store), "none"),
        (("embed", "--model", model, "--data", tmp_path / "none.csv", "--out", store), "none.csv"),
        (("embed", "--model", model, "--data", data, "--out", store, "--text-column", "txt"), "no column 'txt'"),
        (("eval", "retrieval", "--model", model, "--data", data, "--split", "val"), "no split"),
        (("eval", "sts", "--model", model, "--data", tmp_path), "STS12-en-test"),
        (("eval", "retrieval", "--model", model, "--data", data, "--device", "warp9"), "--device warp9"),
    ]:
        code, out, err = dalr(*arguments, "--json")
        assert (code, out) == (2, ""), arguments
        assert message in err
        assert len(err.splitlines()) == 1, err
    assert data.read_bytes() == before


def test_rows_that_are_left_out_are_told(dalr: Run, model: Path, data: Path, tmp_path: Path) -> None:
    header, *rows = data.read_text().splitlines()
    data.write_text("\n".join([header, *rows, "," * header.count(",")]) + "\n")
    draw_photo(data.parent / "images" / "9.png", 9)
    left = f"products.csv:{len(rows) + 2}"
    code, out, err = dalr("embed", "--model", model, "--data", data, "--out", tmp_path / "store")
    assert code == 0, err
    assert f"skipped: {left}: has neither an image nor a text" in out
    assert json.loads((tmp_path / "store" / "bad_rows.jsonl").read_text().splitlines()[0])["row"] == len(rows) + 2
    code, _, err = dalr("eval", "retrieval", "--model", model, "--data", data, "--json")
    assert code == 0, err
    assert f"left out: 1 rows; the first, {left}: has neither" in err


def test_eval_retrieval_with_named_columns(dalr: Run, model: Path, data: Path) -> None:
    manifest = Manifest.load(data)
    rows = [
        (key, image, f"words {number} of no use", text, f"p{number % 3}", "val" if number % 2 else "test")
        for number, (key, image, text) in enumerate(zip(manifest.keys, manifest.images, manifest.texts, strict=True))
    ]
    header = ("id", "picture_file", "remark", "heading", "product", "part")
    table = write_manifest(data.parent, rows, header)
    columns = ("--image-column", "picture_file", "--text-column", "heading", "--split-column", "part", "--split", "val")
    code, out, err = dalr("eval", "retrieval", "--model", model, "--data", table, *columns, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert list(found) == ["text_to_image", "image_to_text", "definition"]
    for direction, queries in (("text_to_image", 7), ("image_to_text", 6)):  # two rows have copies of one photo
        assert list(found[direction]) == [*METRICS, "queries", "candidates", "ci95"]
        assert list(found[direction]["ci95"]) == METRICS
        assert (found[direction]["queries"], found[direction]["candidates"]) == (queries, 13 - queries)
        assert 0 < found[direction]["mrr"] <= 100
    grouped = (*columns, "--group-column", "product", "--json")
    more = json.loads(dalr("eval", "retrieval", "--model", model, "--data", table, *grouped)[1])
    assert more["text_to_image"]["recall@5"] > found["text_to_image"]["recall@5"]
    code, out, err = dalr("eval", "retrieval", "--model", model, "--data", table, *columns)
    assert code == 0, err
    assert f"{found['text_to_image']['mrr']:.2f}" in out
    assert found["definition"] in out
    assert "7 queries, 6 candidates" in out


def test_eval_sts(dalr: Run, model: Path, tmp_path: Path) -> None:
    words = ["a red dress", "a blue shoe", "green bag", "a white lamp", "black dress", "yellow shoe"]
    pairs = [(a, b) for a in words for b in words if a < b]
    for year in ("STS12", "STS13", "STS14", "STS15", "STS16"):
        folder = tmp_path / f"{year}-en-test"
        folder.mkdir()
        (folder / "STS.input.one.txt").write_text("".join(f"{a}\t{b}\n" for a, b in pairs))
        (folder / "STS.gs.one.txt").write_text("".join(f"{number % 6}\n" for number in range(len(pairs))))
    (tmp_path / "STSBenchmark").mkdir()
    lines = [f"g\tf\ty\t0\t{number % 5}\t{a}\t{b}\n" for number, (a, b) in enumerate(pairs)]
    (tmp_path / "STSBenchmark" / "sts-test.csv").write_text("".join(lines))
    (tmp_path / "SICK").mkdir()
    lines = [f"0\t{a}\t{b}\t{number % 4}\tNEUTRAL\n" for number, (a, b) in enumerate(pairs)]
    (tmp_path / "SICK" / "SICK_test_annotated.txt").write_text(
        "".join(["pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment\n", *lines])
    )
    code, out, err = dalr("eval", "sts", "--model", model, "--data", tmp_path, "--json")
    assert code == 0, err
    found = json.loads(out)
    scores = ["STS12", "STS13", "STS14", "STS15", "STS16", "STSB", "SICKR", "avg"]
    assert list(found) == [*scores, "pearson", "pairs", "dev", "files", "dropped", "aggregate"]
    assert all(-100 <= found[name] <= 100 and -100 <= found["pearson"][name] <= 100 for name in scores)
    code, out, err = dalr("eval", "sts", "--model", model, "--data", tmp_path)
    assert f"{found['STSB']:.2f}" in out


@pytest.mark.slow
def test_bench_images(dalr: Run, model: Path, data: Path) -> None:
    code, out, err = dalr(
        "bench", "images", "--model", model, "--data", data, "--images", 16, "--rounds", 1, "--no-parts", "--json"
    )
    assert code == 0, err
    found = json.loads(out)
    assert list(found) == ["images", "rounds", "threads", "plain", "ours", "ratio", "parts", "difference"]
    assert found["images"] == 14
    assert found["ratio"]["median"] > 0
    assert found["difference"] < 1e-4  # both loops give the same features


def test_a_real_process_puts_one_object_on_stdout(model: Path, data: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dalr", "embed", "--model", model, "--data", data, "--out", tmp_path / "store"]
    done = subprocess.run([*map(str, command), "--json"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["embedded"] == {"text": 14, "image": 12}
