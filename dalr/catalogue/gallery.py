"""What a search found, as one HTML page with the pictures inside."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from dalr.catalogue.pages import render_page
from dalr.catalogue.search import Hit
from dalr.catalogue.thumbnails import picture_uri
from dalr.errors import DataError, UsageError
from dalr.files import write_atomically


def write_gallery(
    path: str | Path,
    hits: Sequence[Hit],
    *,
    text: str | None,
    image: str | None,
    of: int,
    ranked: str,
    where: str | None,
) -> None:
    """Write the results at `path`; one whose picture cannot be read is shown without.

    Args:
        text, image: what was asked for. of: how many were ranked. ranked: by what, in words. where: the filter.

    Raises UsageError where the file cannot be written.
    """
    shown = shown_hits(hits)
    title = text or (Path(image).name if image else "Search")
    page = render_page(
        "results.html", title=title, hits=shown, of=of, ranked=ranked, where=where, asked=_picture(image)
    )
    try:
        write_atomically(path, page)
    except OSError as error:
        raise UsageError(f"{path}: the page cannot be written ({error.strerror})") from None


def shown_hits(hits: Sequence[Hit]) -> list[tuple[Hit, str | None]]:
    """Each result with its picture as a data URI, or None."""
    return [(hit, _picture(hit.thumbnail) or _picture(hit.image)) for hit in hits]


def _picture(path: str | None) -> str | None:
    with contextlib.suppress(DataError):
        return picture_uri(path) if path else None
    return None
