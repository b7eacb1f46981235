"""The HTML pages: templates beside this file, one style; a page has everything that it needs inside it.

Every text of a catalogue is escaped.
"""

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

METRIC_NAMES = {"mrr": "MRR", "ndcg@10": "NDCG@10", "map@10": "MAP@10", "median_rank": "median rank"}


def render_page(template: str, **values: Any) -> str:
    """The page that a template makes of these values."""
    page: str = _environment().get_template(template).render(**values)
    return "\n".join(line.rstrip() for line in page.splitlines() if line.strip()) + "\n"


@functools.cache
def _environment() -> "Environment":
    """The templates, each compiled once."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["count"] = lambda value: f"{value:,}"
    environment.filters["metric_name"] = lambda name: METRIC_NAMES.get(name, name)
    environment.filters["duration"] = duration
    return environment


def duration(seconds: float) -> str:
    """`48 s`, `2 min 5 s`, `3 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
