"""Paths of a whole manifest against its root: the check of `resolve_image`, at the speed of a million rows."""

import os
from pathlib import Path

from dalr.data.images import resolve_image
from dalr.errors import DataError


class Roots:
    """Says for each written path why it is refused, or "".

    Each folder is resolved once. Only a path whose folder is inside the root and whose last part is no symbolic
    link is accepted on that ground; everything else takes the full way through `resolve_image`.
    """

    def __init__(self, root: Path, allow_urls: bool) -> None:
        self.root = root
        self.allow_urls = allow_urls
        self._top = os.path.realpath(root)
        self._inside: dict[str, str | None] = {}

    def refusal(self, written: str) -> str:
        """The reason why `written` may not be opened, or an empty string."""
        if "\0" not in written and "\\" not in written and ":" not in written:
            folder, name = os.path.split(written)
            if name.strip() and name not in (".", ".."):
                real = self._folder(folder)
                if real is not None and not os.path.islink(os.path.join(real, name)):
                    return ""
        if self.allow_urls and "://" in written:
            return "" if written.lower().startswith(("http://", "https://")) else "only http and https are fetched"
        try:
            resolve_image(self.root, written)
        except DataError as error:
            return f"image {error}" if str(error).startswith("has") else str(error)
        return ""

    def _folder(self, folder: str) -> str | None:
        """The real path of a folder below the root, or None where it is not below it."""
        if folder not in self._inside:
            real = os.path.realpath(os.path.join(self._top, folder))
            below = real == self._top or real.startswith(self._top.rstrip(os.sep) + os.sep)
            self._inside[folder] = real if below else None
        return self._inside[folder]
