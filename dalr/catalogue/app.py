"""The page to work in: search a table, compare two models, and decide what the audit found. On this machine alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dalr.catalogue.audit import Audited, AuditedRow, Decision, read_decisions, record_decision
from dalr.catalogue.gallery import shown_hits
from dalr.catalogue.pages import render_page
from dalr.catalogue.search import image_or_text
from dalr.catalogue.table_search import MODES, SearchTable
from dalr.catalogue.thumbnails import picture_uri
from dalr.errors import DalrError, DataError, MissingExtraError, UsageError

if TYPE_CHECKING:
    import gradio as gr

HOST = "127.0.0.1"
STYLE = Path(__file__).parent / "pages" / "app.css"
# A letter presses its button, unless a person is writing.
KEYS = """() => document.addEventListener("keydown", (event) => {
  const at = document.activeElement;
  if (event.ctrlKey || event.metaKey || event.altKey || (at && /INPUT|TEXTAREA|SELECT/.test(at.tagName))) return;
  const names = {r: "right", w: "wrong", f: "fix", ArrowRight: "next", ArrowLeft: "before"};
  const button = document.getElementById("dalr-" + names[event.key]);
  if (button && button.offsetParent !== null) { event.preventDefault(); button.click(); }
})"""


@dataclass(frozen=True)
class Review:
    """The findings of an audit, one after the other, each with what people decided of it."""

    audited: Audited
    findings: list[AuditedRow]

    @classmethod
    def of(cls, audited: Audited) -> "Review":
        """All findings, the likeliest mismatch first."""
        return cls(audited, audited.findings())

    def first_open(self) -> int:
        """The first finding that nobody has decided, or the first of all."""
        return next((at for at, row in enumerate(self.current()) if row.decision is None), 0)

    def current(self) -> list[AuditedRow]:
        """The findings with the decisions that are on disk now."""
        decisions, _ = read_decisions(self.audited.folder)
        return [row.under(decisions.get(self.audited.manifest.keys[row.row])) for row in self.findings]

    def decide(self, at: int, choice: str, text: str | None) -> None:
        """Write a decision of a finding to the disk; UsageError for a fix without a caption."""
        row = self.findings[at]
        if choice == "fix" and not (text or "").strip():
            raise UsageError("a fix needs the right caption; write it into the box, then press fix")
        key, fixed = self.audited.manifest.keys[row.row], (text or "").strip() if choice == "fix" else None
        record_decision(self.audited.folder, Decision(key, row.content, choice, fixed))  # type: ignore[arg-type]

    def show(self, at: int) -> str:
        """A finding as HTML."""
        row, manifest = self.current()[at], self.audited.manifest
        decision = row.decision
        return render_page(
            "app_finding.html",
            number=at + 1,
            of=len(self.findings),
            state="open" if decision is None else f"decided: {decision.choice}",
            text=manifest.texts[row.row],
            fixed=None if decision is None else decision.text,
            reason=row.reason,
            where=manifest.where(row.row),
            own=self._picture(row.row),
            better=None if row.better is None else self._picture(row.better),
            better_text=None if row.better is None else manifest.texts[row.better] or "",
        )

    def _picture(self, row: int) -> str | None:
        try:
            return picture_uri(self.audited.manifest.image_source(row))
        except DataError:
            return None


def build_app(tables: Sequence[tuple[str, SearchTable]], review: Review | None) -> "gr.Blocks":
    """The page.

    Args:
        tables: (name, table with its model set) of one model, or of two to compare.
        review: the findings of an audit, or None.

    Raises MissingExtraError without Gradio.
    """
    try:
        import gradio as gr
    except ImportError:
        raise MissingExtraError("gradio", "app", "the page to work in") from None
    with gr.Blocks(analytics_enabled=False, title="dalr") as page:
        gr.Markdown("# dalr")
        if tables:
            with gr.Tab("Search"):
                _search_tab(gr, tables)
        if review is not None:
            with gr.Tab("Audit"):
                _review_tab(gr, review)
    return page


def launch_app(page: "gr.Blocks", port: int) -> str:
    """Serve the page on this machine alone, in the background, and return its address.

    Raises UsageError where the port is taken.
    """
    import gradio as gr

    theme = gr.themes.Base(
        primary_hue="teal",
        neutral_hue="stone",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    try:
        _, url, _ = page.launch(
            server_name=HOST,
            server_port=port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            footer_links=[],
            ssr_mode=False,
            theme=theme,
            css=STYLE.read_text(encoding="utf-8"),
            js=KEYS,
        )
    except OSError as error:
        if "port" not in str(error):
            raise
        raise UsageError(f"--port {port}: is taken by another program; choose another") from None
    return str(url)


def _search_tab(gr: Any, tables: Sequence[tuple[str, SearchTable]]) -> None:
    with gr.Row():
        text = gr.Textbox(label="Words", placeholder="red striped mug", scale=3, elem_id="dalr-words", autofocus=True)
        where = gr.Textbox(label="Filter (SQL)", placeholder="colour = 'red' AND price < 50", scale=2)
        mode = gr.Radio(list(MODES), value="vector", label="Ranked by", scale=2)
    with gr.Row():
        image = gr.Image(label="Or a picture", type="filepath", sources=["upload", "clipboard"], height=180, scale=1)
        with gr.Column(scale=2):
            weight = gr.Slider(0, 1, value=0.5, step=0.05, label="Share of the picture, where both are given")
            count = gr.Slider(4, 60, value=12, step=4, label="Results")
            button = gr.Button("Search", variant="primary", elem_id="dalr-search")
    columns = ", ".join(tables[0][1].attributes)
    gr.Markdown(f"{len(tables[0][1]):,} rows. Columns for filters: `{columns}`", elem_classes="dalr-note")
    with gr.Row():
        results: list[Any] = []
        for name, _ in tables:
            with gr.Column():
                if len(tables) > 1:
                    gr.Markdown(f"### {name}")
                results.append(gr.HTML(elem_id=f"dalr-results-{len(results)}"))

    def search(text: str, image: str | None, weight: float, mode: str, where: str, count: int) -> list[str]:
        if image is not None:
            image_or_text(image)  # says what is wrong with it
        asked: dict[str, Any] = {"text": text.strip() or None, "image": image, "image_weight": weight, "mode": mode}
        return [
            render_page(
                "app_results.html", hits=shown_hits(table.search(**asked, where=where.strip() or None, k=int(count)))
            )
            for _, table in tables
        ]

    inputs = [text, image, weight, mode, where, count]
    for event in (button.click, text.submit, where.submit):
        event(_told(gr, search, len(results)), inputs, results, api_name=False)


def _review_tab(gr: Any, review: Review) -> None:
    if not review.findings:
        gr.Markdown("The audit has no findings.")
        return
    at = gr.State(review.first_open)
    finding = gr.HTML(elem_id="dalr-finding")
    fix = gr.Textbox(label="The right caption, for a fix", elem_id="dalr-caption")
    with gr.Row():
        before = gr.Button("← before", elem_id="dalr-before")
        right = gr.Button("right (r)", elem_id="dalr-right")
        wrong = gr.Button("wrong (w)", variant="stop", elem_id="dalr-wrong")
        fixed = gr.Button("fix (f)", variant="primary", elem_id="dalr-fix")
        after = gr.Button("next →", elem_id="dalr-next")
    with gr.Row():
        export = gr.Button("Write the corrected manifest", elem_id="dalr-export", scale=1)
        told = gr.Markdown(elem_id="dalr-told", elem_classes="dalr-note")
    last = len(review.findings) - 1

    def moved(step: int) -> Any:
        def move(at: int) -> tuple[int, str, str]:
            at = min(last, max(0, at + step))
            return at, review.show(at), review.audited.manifest.texts[review.findings[at].row] or ""

        return move

    def decide(choice: str) -> Any:
        def record(at: int, text: str) -> tuple[int, str, str]:
            review.decide(at, choice, text)
            found: tuple[int, str, str] = moved(1)(at)
            return found

        return record

    def write() -> str:
        path = review.audited.write_cleaned()
        done = sum(row.decision is not None for row in review.current())
        return f"{done:,} of {len(review.findings):,} findings are decided; written: `{path}`"

    outputs = [at, finding, fix]
    before.click(_told(gr, moved(-1), 3), [at], outputs, api_name=False)
    after.click(_told(gr, moved(1), 3), [at], outputs, api_name=False)
    for button, choice in ((right, "right"), (wrong, "wrong"), (fixed, "fix")):
        button.click(_told(gr, decide(choice), 3), [at, fix], outputs, api_name=False)
    export.click(_told(gr, write, 1), None, [told], api_name=False)
    gr.on(None, moved(0), [at], outputs, api_name=False)


def _told(gr: Any, function: Any, outputs: int) -> Any:
    """The function, whose errors a person can act on become a message on the page that leaves all else as it is."""

    def guarded(*values: Any) -> Any:
        try:
            return function(*values)
        except DalrError as error:
            gr.Warning(str(error).replace("<", "&lt;"))
            return gr.skip() if outputs == 1 else [gr.skip()] * outputs

    return guarded
