"""Things that are there twice, row by row: rows, pictures, captions, and what stands in two splits."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dalr.catalogue.audit.captions import Fault, word_set
from dalr.catalogue.lookalikes import alike_rows, lookalikes
from dalr.catalogue.photos import PhotoSurvey
from dalr.data.groups import connected_components, group_ids, joint_ids, rows_by_id
from dalr.data.manifest import Manifest

Ints = npt.NDArray[np.int64]


def products(manifest: Manifest, keys: Sequence[str | None]) -> Ints:
    """The product of each of N rows, int64 (N,): its group, else rows joined by a picture or a caption."""
    return connected_components(manifest.ids(keys))


def same_looks(manifest: Manifest, survey: PhotoSurvey) -> Ints:
    """A number by row that equal and equal-looking pictures share, int64 (N,); -1 without a picture."""
    contents = survey.contents()
    alike = alike_rows(lookalikes(manifest, survey), survey)
    return np.where(alike >= 0, int(contents.max(initial=-1)) + 1 + alike, contents)


def repeat_faults(manifest: Manifest, survey: PhotoSurvey, looks: Ints, product: Ints) -> list[list[Fault]]:
    """For each of N rows what of it is there again, each a name and a reason that names the other row.

    Several captions of one picture and several pictures of one product are no fault. The same row again is, a picture
    or (but for order, case and signs) a caption of another product is, and whatever stands in two splits.
    """
    found: list[list[Fault]] = [[] for _ in range(len(manifest))]
    captions = group_ids([None] * len(manifest), manifest.texts)[:, 1]
    words = group_ids([None] * len(manifest), [word_set(text) if text else None for text in manifest.texts])[:, 1]
    contents = survey.contents()
    for members in rows_by_id(joint_ids(contents, captions)):
        for row in members[1:]:
            found[row].append(("duplicate row", f"the same picture and caption as {manifest.where(members[0])}"))
    for ids, differs, told in (
        (looks, contents, ("look-alike", "the picture looks like that of")),
        (contents, None, ("shared picture", "the same picture as")),
        (words, captions, ("similar caption", "the same words as")),
    ):
        for members in rows_by_id(ids):
            _other_products(manifest, members, product, differs, found, told)
    if manifest.split is not None:
        for ids, what in ((looks, "picture"), (captions, "caption")):
            _crossing(manifest, ids, what, found)
    return found


def _other_products(
    manifest: Manifest,
    members: Ints,
    product: Ints,
    differs: Ints | None,
    found: list[list[Fault]],
    told: Fault,
) -> None:
    """Name, for each row, the first of another product (and, with `differs`, of another value there)."""
    if len({int(product[row]) for row in members}) < 2:
        return
    name, words = told
    for row in members:
        others = (
            other
            for other in members
            if product[other] != product[row] and (differs is None or differs[other] != differs[row])
        )
        other = next(others, None)
        if other is not None:
            found[row].append((name, f"{words} {manifest.where(other)}"))


def _crossing(manifest: Manifest, ids: Ints, what: str, found: list[list[Fault]]) -> None:
    assert manifest.split is not None
    for members in rows_by_id(ids):
        first: dict[str, int] = {}
        for row in members:
            if manifest.split[row]:
                first.setdefault(str(manifest.split[row]), row)
        if len(first) < 2:
            continue
        for row in members:
            other = next((at for split, at in first.items() if split != manifest.split[row]), None)
            if manifest.split[row] and other is not None:
                reason = f"its {what} stands in {manifest.split[other]} too ({manifest.where(other)})"
                found[row].append(("crosses splits", reason))
