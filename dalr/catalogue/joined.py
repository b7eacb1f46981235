"""Several manifests as one, so that what they share can be seen."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from dalr.data.images import is_url, resolve_image
from dalr.data.manifest import Manifest


def join_manifests(manifests: Mapping[str, Manifest]) -> Manifest:
    """The rows of all manifests, one after the other; a manifest without splits is the split of its name.

    Image paths become absolute, since the manifests may lie in different folders; they were checked against their
    own roots when they were read. Columns that are not in all manifests hold None elsewhere.
    """
    parts = list(manifests.items())
    if len(parts) == 1:
        return parts[0][1]
    first = parts[0][1]
    names = dict.fromkeys(name for _, part in parts for name in part.columns)
    offsets = np.cumsum([0] + [len(part.files) for _, part in parts])
    roles = [part.roles for _, part in parts]
    return replace(
        first,
        source=", ".join(part.source for _, part in parts),
        root=Path(os.sep),
        keys=[key for _, part in parts for key in part.keys],
        images=[image for _, part in parts for image in _absolute(part)],
        texts=[text for _, part in parts for text in part.texts],
        group=[group for _, part in parts for group in (part.group or [None] * len(part))]
        if any(part.group for _, part in parts)
        else None,
        weight=np.concatenate([part.weight for _, part in parts]),
        split=[split for name, part in parts for split in (part.split or [name] * len(part))],
        columns={
            name: [cell for _, part in parts for cell in part.columns.get(name, [None] * len(part))] for name in names
        },
        bad=[bad for _, part in parts for bad in part.bad],
        files=[file for _, part in parts for file in part.files],
        file_numbers=np.concatenate(
            [part.file_numbers + offset for (_, part), offset in zip(parts, offsets[:-1], strict=True)]
        ),
        row_numbers=np.concatenate([part.row_numbers for _, part in parts]),
        roles=replace(
            first.roles,
            image=next((role.image for role in roles if role.image), None),
            text=next((role.text for role in roles if role.text), ()),
        ),
        notes=[note for _, part in parts for note in part.notes],
        stored=[image for _, part in parts for image in (part.stored or [None] * len(part))]
        if any(part.stored for _, part in parts)
        else None,
    )


def _absolute(manifest: Manifest) -> list[str | None]:
    root = os.path.realpath(manifest.root)
    return [
        image
        if image is None or is_url(image) or (manifest.stored and manifest.stored[row])
        else str(resolve_image(root, image))
        if "\\" in image
        else os.path.join(root, image)
        for row, image in enumerate(manifest.images)
    ]
