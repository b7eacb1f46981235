"""The page to work in, in a real browser.

Invariants
- A search by words and by a dropped picture shows the right picture first; a filter holds; one that cannot be read is
  told, and so is a picture that cannot be decoded; two models answer side by side.
- A decision is on disk after a click or a key; a letter typed into a box is no decision; a fix needs a caption.
- After all findings are decided, or the page is opened again, the decisions are shown; the corrected manifest has them.
- A caption with HTML, or with a template's signs, shows as text.
- Nothing is asked of any other machine; a port in use is one line.
"""

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tiny_shop import Shop, products

from dalr.catalogue.app import HOST, Review, build_app, launch_app
from dalr.catalogue.audit import AuditConfig, audit_catalogue, read_audit, read_decisions, write_audit
from dalr.data.manifest import Manifest
from dalr.errors import UsageError

CHROMIUM = shutil.which("chromium")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
HOSTILE = "<img src=x onerror=\"document.title='hacked'\"> ${1+1} {{value}} mug"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs the browser chromium")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    rows = products()
    rows[1][2] = HOSTILE
    shop = Shop(tmp_path_factory.mktemp("app") / "shop", rows)
    shop.index(thumbnails=shop.folder / "small")
    return shop


@pytest.fixture
def audit(shop: Shop, tmp_path: Path) -> Path:
    """An audit by whose thresholds every row with a picture is a finding."""
    manifest = shop.manifest()
    settings = AuditConfig.model_validate({"pictures": {"side": 10_000}})
    result = audit_catalogue(shop.model, manifest, settings)
    write_audit(tmp_path / "audit", manifest, result, settings, "tiny")
    return tmp_path / "audit"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def open_page(browser: Any) -> Iterator[Any]:
    served, pages = [], []

    def open_(app: Any) -> Any:
        served.append(app)
        url = launch_app(app, free_port())
        page = browser.new_page()
        pages.append(page)
        page.set_default_timeout(20_000)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(url)
        return page

    asked: list[str] = []
    yield open_
    for page in pages:
        page.close()
    for app in served:
        app.close(verbose=False)
    assert asked
    assert all(url.startswith((f"http://{HOST}:", "data:", "blob:")) for url in asked)


def captions(page: Any, column: int = 0) -> list[str]:
    page.wait_for_selector(f"#dalr-results-{column} .gallery li")
    found: list[str] = page.locator(f"#dalr-results-{column} .gallery li p:first-of-type").all_text_contents()
    return found


def test_search(shop: Shop, open_page: Any, tmp_path: Path) -> None:
    page = open_page(build_app([("one", shop.table()), ("two", shop.table())], None))
    words = page.get_by_label("Words", exact=True)
    page.get_by_label("words", exact=True).check()
    words.fill("again")
    words.press("Enter")
    assert captions(page) == ["the first one again"]
    assert captions(page, 1) == ["the first one again"]
    # What was found is shown: the picture of that row.
    shown = page.locator("#dalr-results-0 .gallery img").first
    assert shown.get_attribute("src").startswith("data:image/")
    assert shown.evaluate("picture => picture.naturalWidth") > 0

    page.get_by_label("vector", exact=True).check()
    words.fill("a mug")
    page.get_by_label("Filter (SQL)").fill("price = 70")
    page.click("#dalr-search")
    page.wait_for_function("document.querySelectorAll('#dalr-results-0 .gallery li').length == 1")
    page.wait_for_function("document.querySelector('#dalr-results-0 p').textContent.includes('number 7')")
    page.get_by_label("Filter (SQL)").fill("price = ")
    page.click("#dalr-search")
    page.get_by_text("--where price =: cannot be read").first.wait_for()
    assert captions(page) == ["a green mug number 7"], "what was there stays"

    page.get_by_label("Filter (SQL)").fill("")
    words.fill("")
    page.set_input_files("input[type=file]", str(shop.folder / "images/6.png"))
    page.wait_for_selector("button[aria-label='Remove Image'], button[aria-label='Clear']")
    page.click("#dalr-search")
    page.wait_for_function("document.querySelectorAll('#dalr-results-0 .gallery li').length == 12")
    best = shop.table().search(image=shop.folder / "images/6.png", k=12)
    scores = page.locator("#dalr-results-0 .gallery .tag span").all_text_contents()
    assert scores == [f"{hit.score:.3f}" for hit in best]
    assert scores[0] == "1.000"


def test_markup_is_text(shop: Shop, audit: Path, open_page: Any) -> None:
    page = open_page(build_app([("one", shop.table())], Review.of(read_audit(audit, shop.manifest()))))
    page.get_by_label("words", exact=True).check()
    page.get_by_label("Words", exact=True).fill("onerror")
    page.click("#dalr-search")
    assert captions(page) == [HOSTILE]
    page.get_by_role("tab", name="Audit").click()
    for _ in range(14):
        page.wait_for_selector("#dalr-finding .caption")
        if HOSTILE in page.locator("#dalr-finding .caption").inner_text():
            break
        before = page.locator("#dalr-state").inner_text()
        page.click("#dalr-next")
        page.wait_for_function("was => document.querySelector('#dalr-state').innerText != was", arg=before)
    assert HOSTILE in page.locator("#dalr-finding .caption").inner_text()
    assert page.title() == "dalr"


def test_decisions(shop: Shop, audit: Path, open_page: Any) -> None:
    manifest = shop.manifest()
    review = Review.of(read_audit(audit, manifest))
    keys = [manifest.keys[row.row] for row in review.findings]
    assert len(keys) >= 4
    page = open_page(build_app([], review))

    def state(number: int) -> None:
        page.wait_for_function(
            "wanted => document.querySelector('#dalr-state')?.innerText.startsWith(wanted)", arg=f"{number} of"
        )

    state(1)
    page.click("#dalr-wrong")
    state(2)
    assert read_decisions(audit)[0][keys[0]].choice == "wrong"
    page.locator("body").click(position={"x": 2, "y": 2})
    page.keyboard.press("r")
    state(3)
    assert read_decisions(audit)[0][keys[1]].choice == "right"
    box = page.locator("#dalr-caption textarea, #dalr-caption input")
    page.wait_for_timeout(1500)  # the box is filled a moment after the finding is shown; nobody types that fast
    box.fill("  ")
    page.click("#dalr-fix")
    page.get_by_text("a fix needs the right caption").first.wait_for()
    box.fill("")
    box.press_sequentially("a wrong fur coat")
    assert set(read_decisions(audit)[0]) == set(keys[:2]), "letters in a box decide nothing"
    page.click("#dalr-fix")
    state(4)
    assert read_decisions(audit)[0][keys[2]].text == "a wrong fur coat"
    page.locator("body").click(position={"x": 2, "y": 2})
    page.keyboard.press("ArrowLeft")
    state(3)
    assert "decided: fix" in page.locator("#dalr-state").inner_text()
    assert "a wrong fur coat" in page.locator("#dalr-finding").inner_text()
    page.click("#dalr-export")
    page.get_by_text("3 of").first.wait_for()
    page.wait_for_selector("#dalr-told code")
    cleaned = Manifest.load(audit / "cleaned.csv", None) if (audit / "cleaned.csv").is_file() else None
    assert cleaned is not None
    assert keys[0] not in cleaned.keys
    assert cleaned.texts[cleaned.keys.index(keys[2])] == "a wrong fur coat"
    # Opened again, it goes on where people stopped.
    again = open_page(build_app([], Review.of(read_audit(audit, manifest))))
    again.wait_for_function("document.querySelector('#dalr-state')?.innerText.startsWith('4 of')")


def test_a_picture_that_cannot_be_decoded(shop: Shop, open_page: Any, tmp_path: Path) -> None:
    Image.new("RGB", (400, 400), "red").save(tmp_path / "whole.png")
    (tmp_path / "torn.png").write_bytes((tmp_path / "whole.png").read_bytes()[:120])
    page = open_page(build_app([("one", shop.table())], None))
    page.set_input_files("input[type=file]", str(tmp_path / "torn.png"))
    page.wait_for_selector("button[aria-label='Remove Image'], button[aria-label='Clear']")
    page.click("#dalr-search")
    page.get_by_text("is cut short").or_(page.get_by_text("is damaged")).or_(
        page.get_by_text("cannot be")
    ).first.wait_for()


def test_what_cannot_be_opened(shop: Shop, audit: Path, dalr: Any, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        with pytest.raises(UsageError, match="is taken by another program; choose another"):
            launch_app(build_app([("one", shop.table())], None), taken.getsockname()[1])
    for arguments, said in (
        ([], "there is nothing to show; give --db, or --audit with --data"),
        (["--audit", audit], "--audit and --data go together"),
        (["--db", tmp_path / "none"], "has no table 'products'"),
        (["--audit", tmp_path / "none", "--data", shop.folder / "products.csv"], "is not a finished audit"),
    ):
        code, out, err = dalr("app", *arguments)
        assert (code, out) == (2, ""), arguments
        assert said in err
