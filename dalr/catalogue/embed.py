"""A catalogue's store: the embeddings of its texts and images on disk, with the rows they belong to.

    catalogue.json     model (source and fingerprints), data, which stores and which rows file are in force
    rows-HASH.jsonl    one row a line: key, caption, image as written, group, content keys of both sides
    text-HASH/         FeatureStore of the text side, one for each model
    image-HASH/        FeatureStore of the image side
    bad_rows.jsonl     rows whose image could not be used, and why

`catalogue.json` is replaced last and at once: a reader finds the old catalogue or the new one. Embedding again runs
only what is new; another model gets stores of its own, and those that are no longer in force are removed.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dalr.data.manifest import BadRow, Manifest
from dalr.errors import ModelError, StoreError
from dalr.evaluation.embeddings import SideFeatures, image_features, text_features
from dalr.features import FeatureSpec, FeatureStore
from dalr.files import hash_bytes, hash_json, write_atomically, write_json
from dalr.model import DualEncoder, Side
from dalr.progress import ProgressSink

FORMAT = 1
HEAD = "catalogue.json"
SIDES: tuple[Side, ...] = ("text", "image")
UNFINISHED = "embedding"
CHUNK = 4096


@dataclass(frozen=True)
class EmbedResult:
    """What `embed_catalogue` did.

    Attributes:
        rows: of the manifest.
        embedded: distinct items in the store by side. new: those embedded by this call.
        bad: rows whose image could not be used.
    """

    rows: int
    embedded: dict[Side, int]
    new: dict[Side, int]
    space: str
    bad: list[BadRow]


def embed_catalogue(
    model: DualEncoder,
    source: str,
    manifest: Manifest,
    folder: str | Path,
    *,
    sides: Sequence[Side] | None = None,
    cache: str | Path | None = None,
    progress: ProgressSink | None = None,
) -> EmbedResult:
    """Embed a manifest's texts and images into the store at `folder`, made if it is not there.

    Args:
        model: whose embeddings; both sides are in its shared space, or in the space of its only tower.
        source: where the model was loaded from, so that a search can load it again.
        manifest: the rows.
        sides: `text`, `image` or both; None takes what the model and the rows have. A side that is left out stays
            in the store if its model and the rows are the same.
        cache: folder of the feature cache; None is the user's own.

    Raises:
        StoreError: `folder` holds something else. ModelError, DataError: a side that cannot be embedded.
    """
    folder = Path(folder)
    started = (folder / HEAD).exists()
    before = _read_head(folder) if started and not _unfinished(folder) else None
    if not started and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StoreError(f"{folder}: is not empty and not a catalogue's store (it has no {HEAD}); choose another --out")
    wanted = list(dict.fromkeys(sides)) if sides else _available(model, manifest)
    readers = {"text": text_features, "image": image_features}
    features = {side: readers[side](model, manifest, cache, progress) for side in wanted}

    space = "shared" if model.text is not None and model.image is not None else "sentence" if model.text else "image"
    prints = {side: model.fingerprint(side) for side in SIDES if getattr(model, side) is not None}
    data = {"source": manifest.source, "root": str(manifest.root.resolve()), "fingerprint": manifest.fingerprint()}
    stores: dict[Side, str] = {}
    keys: dict[Side, list[str | None]] = {}
    if before and before["data"]["fingerprint"] == data["fingerprint"] and before["fingerprints"] == prints:
        rows = read_rows(folder, before)
        stores = {side: name for side, name in before["stores"].items() if side not in wanted}
        keys = {side: [row[f"{side}_key"] for row in rows] for side in stores}
    new: dict[Side, int] = {}
    if not started:
        # From here on the folder is ours: a run that is killed below goes on into it.
        write_json(folder / HEAD, {"format": FORMAT, "status": UNFINISHED})
    for side, found in features.items():
        stores[side], new[side] = _store_side(model, folder, found, prints[side], space)
        keys[side] = found.keys

    rows_file = _write_rows(folder, manifest, keys)
    bad = [*manifest.bad, *(row for found in features.values() for row in found.bad)]
    if "image" in features or manifest.bad:
        write_atomically(folder / "bad_rows.jsonl", "".join(json.dumps(asdict(row)) + "\n" for row in bad))
    head = {
        "format": FORMAT,
        "model": str(Path(source).resolve()) if Path(source).exists() else source,
        "fingerprints": prints,
        "space": space,
        "data": data,
        "rows": len(manifest),
        "rows_file": rows_file,
        "stores": stores,
    }
    write_json(folder / HEAD, head)
    _remove_old(folder, {*stores.values(), rows_file})
    embedded = {side: len({key for key in keys[side] if key}) for side in stores}
    return EmbedResult(len(manifest), embedded, new, space, bad)


def _available(model: DualEncoder, manifest: Manifest) -> list[Side]:
    present = {
        "text": model.text is not None and any(manifest.texts),
        "image": model.image is not None and any(manifest.images),
    }
    found = [side for side in SIDES if present[side]]
    if not found:
        has = " and ".join(side for side in SIDES if getattr(model, side) is not None)
        raise ModelError(f"{manifest.source}: its rows have nothing for a model with {has} tower only")
    return found


def _store_side(model: DualEncoder, folder: Path, found: SideFeatures, fingerprint: str, space: str) -> tuple[str, int]:
    """Project one side's features into its store; returns the store's name and how many rows are new."""
    width = found.embeddings(model, np.array([_first(found.keys)])).shape[1]
    spec = FeatureSpec(fingerprint=fingerprint, side=found.side, width=width, details={"space": space})
    name = f"{found.side}-{hash_json(spec.model_dump())[:16]}"
    store = FeatureStore.open(folder / name, spec)
    before = len(store)
    usable = [row for row, key in enumerate(found.keys) if key is not None]
    store.embed(
        [found.keys[row] for row in usable],
        usable,
        lambda rows: found.embeddings(model, np.array(rows)),
        chunk=CHUNK,
    )
    return name, len(store) - before


def _first(keys: Sequence[str | None]) -> int:
    return next(row for row, key in enumerate(keys) if key is not None)


def _write_rows(folder: Path, manifest: Manifest, keys: dict[Side, list[str | None]]) -> str:
    lines = []
    for row, key in enumerate(manifest.keys):
        value = {
            "key": key,
            "text": manifest.texts[row],
            "image": manifest.images[row],
            "group": manifest.group[row] if manifest.group is not None else None,
            **{f"{side}_key": keys[side][row] if side in keys else None for side in SIDES},
        }
        lines.append(json.dumps(value) + "\n")
    text = "".join(lines)
    name = f"rows-{hash_bytes(text.encode())[:16]}.jsonl"
    write_atomically(folder / name, text)
    return name


def _read_head(folder: Path) -> dict[str, Any]:
    """`catalogue.json`, checked; StoreError when it is missing or cannot be used."""
    path = folder / HEAD
    try:
        head: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = head["format"]
        missing = {"model", "fingerprints", "space", "data", "rows_file", "stores"} - head.keys()
        if head.get("status") == UNFINISHED:
            raise StoreError(f"{folder}: was not embedded to the end; run dalr embed again, it goes on")
    except FileNotFoundError:
        raise StoreError(f"{folder}: is not a catalogue's store (it has no {HEAD}); make one with dalr embed") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise StoreError(f"{path}: cannot be read; delete {folder} and run dalr embed again") from None
    if version != FORMAT or missing:
        raise StoreError(f"{path}: has format {version}, this dalr reads {FORMAT}; run dalr embed into a new folder")
    return head


def _unfinished(folder: Path) -> bool:
    """Whether the first run into this folder was killed before there was a catalogue."""
    try:
        return bool(json.loads((folder / HEAD).read_text(encoding="utf-8")).get("status") == UNFINISHED)
    except (OSError, ValueError, AttributeError):
        return False


def read_rows(folder: Path, head: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of the catalogue, in the manifest's order."""
    path = folder / head["rows_file"]
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    except (OSError, ValueError):
        raise StoreError(f"{path}: is missing or torn; run dalr embed again") from None


def read_catalogue(folder: str | Path) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, FeatureStore]]:
    """(catalogue.json, its rows, its stores by side). StoreError when the folder is not a catalogue's store."""
    folder = Path(folder)
    head = _read_head(folder)
    return (
        head,
        read_rows(folder, head),
        {side: FeatureStore.open(folder / name) for side, name in head["stores"].items()},
    )


def _remove_old(folder: Path, used: set[str]) -> None:
    """Remove stores and row files that an earlier `catalogue.json` named."""
    for path in folder.iterdir():
        kind = path.name.split("-")[0]
        if path.name in used or kind not in ("text", "image", "rows"):
            continue
        if path.is_dir() and (path / "store.json").exists():
            shutil.rmtree(path)
        elif path.is_file() and path.suffix == ".jsonl":
            path.unlink()
