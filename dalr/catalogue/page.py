"""The summary as one HTML file that needs nothing else: pictures and the chart are inside, no script, no font."""

from pathlib import Path

from dalr.catalogue.pages import METRIC_NAMES, render_page
from dalr.catalogue.pages.charts import chart
from dalr.catalogue.summary import Summary, curve
from dalr.files import write_atomically

METRICS = ("recall@1", "recall@5", "recall@10", "mrr", "ndcg@10", "map@10", "median_rank")


def write_summary(path: str | Path, summary: Summary) -> None:
    """Write the page at `path`, whole or not at all. Raises DataError for a picture that cannot be read."""
    write_atomically(path, render(summary))


def render(summary: Summary) -> str:
    """The page as HTML; every text of the catalogue is escaped."""
    metric = summary.run.get("metric") or "mrr"
    name = METRIC_NAMES.get(metric, metric) + " on the validation part"
    found = (
        chart(name, curve(summary.history, "evaluation", metric)),
        chart("loss on the training part", curve(summary.history, "step", "loss"), from_zero=True),
    )
    return render_page("summary.html", s=summary, charts=[one for one in found if one is not None], metrics=METRICS)
