"""FeatureStore: embeddings in a folder, each under its content key, together with what exactly made them.

`store.json` holds the FeatureSpec (model fingerprint, side, width, dtype, details); `shards.py` says how the rows
lie; `bad.jsonl` lists what could not be embedded, and why.
"""

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from dalr.config import Config
from dalr.data.fetch import cache_root
from dalr.errors import DataError, StoreError, one_line
from dalr.features.shards import Shards, hash_row
from dalr.files import hash_bytes, hash_json, write_json
from dalr.progress import ProgressSink

FORMAT = 1
# A place is a shard's number above these bits and a row's number below them.
ROW_BITS = 40
# A process that finds other writers starts this share of the work further on, so that they meet late.
STRIDE = 0.618

Encode = Callable[[Sequence[Any]], npt.NDArray[Any]]
Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]


class FeatureSpec(Config):
    """What made the rows of a store: two stores with equal specs hold interchangeable rows."""

    fingerprint: str = Field(min_length=1, description="of the encoder: weights, preprocessing, pooling")
    side: Literal["text", "image"]
    width: int = Field(gt=0)
    dtype: Literal["float32", "float16"] = "float32"
    details: dict[str, Any] = Field(default_factory=dict, description="anything else that changes the numbers")


@dataclass(frozen=True)
class BadItem:
    """An item that could not be embedded: its position in the call, its key ('' when it has none), and why."""

    position: int
    key: str
    reason: str


class FeatureStore:
    """Embeddings on disk under content keys (32 hex digits; see `text_keys` and `image_keys`).

        store = FeatureStore.in_cache(FeatureSpec(fingerprint=tower.fingerprint(), side="text", width=tower.width))
        store.embed(keys, texts, tower.encode)     # only what is missing
        store.rows(keys)                           # float32 (n, width)

    An object sees what was committed when it was opened, what it embeds itself, and, after `refresh`, what other
    processes have added since.
    """

    def __init__(self, folder: Path, spec: FeatureSpec) -> None:
        self.folder = folder
        self.spec = spec
        self._shards = Shards(folder, spec.width, np.float16 if spec.dtype == "float16" else np.float32)

    @classmethod
    def open(cls, folder: str | Path, spec: FeatureSpec | None = None) -> "FeatureStore":
        """Open the store in `folder`; with a `spec`, make it when there is none.

        Raises StoreError when the folder is not a store (and no spec is given), or holds rows made by something
        else than `spec`: rows of two models are never mixed.
        """
        folder = Path(folder)
        head = folder / "store.json"
        if spec is not None and not head.exists():
            write_json(head, {"format": FORMAT, **spec.model_dump()})
        try:
            values = json.loads(head.read_text(encoding="utf-8"))
            version = values.pop("format")
            found = FeatureSpec.model_validate(values) if version == FORMAT else None
        except FileNotFoundError:
            raise StoreError(f"{folder}: is not a feature store (it has no store.json)") from None
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise StoreError(f"{head}: cannot be read as a feature store's description ({error}); delete it") from None
        if found is None:
            raise StoreError(f"{head}: has format {version}, this dalr reads {FORMAT}; delete the folder, embed again")
        if spec is not None and found != spec:
            names = [name for name in FeatureSpec.model_fields if getattr(found, name) != getattr(spec, name)]
            told = ", ".join(f"{name} {getattr(found, name)!r}, not {getattr(spec, name)!r}" for name in names)
            raise StoreError(f"{folder}: holds rows made by something else ({told}); use another folder or delete it")
        return cls(folder, found)

    @classmethod
    def in_cache(cls, spec: FeatureSpec, root: str | Path | None = None) -> "FeatureStore":
        """The store for exactly this spec below `root` (default: `cache_root()`): each spec has its own folder."""
        name = f"{spec.side}-{hash_json(spec.model_dump())[:16]}"
        return cls.open(Path(root or cache_root()) / "features" / name, spec)

    def __len__(self) -> int:
        return len(self._shards.numbers)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and _raw(key) in self._shards.numbers

    def keys(self) -> list[str]:
        """All keys, in the order in which their rows were committed."""
        return [raw.hex() for raw in self._shards.numbers]

    def refresh(self) -> None:
        """See the rows that other processes have committed since."""
        self._shards.refresh()

    def missing(self, keys: Sequence[str | None]) -> list[str]:
        """The distinct keys that have no row yet, in their first order."""
        known = self._shards.numbers
        return [key for key in dict.fromkeys(keys) if key is not None and _raw(key) not in known]

    def locate(self, keys: Sequence[str]) -> Places:
        """Where the rows of `keys` lie, for `take`: look up once, read many times. StoreError for an absent key."""
        records = self._records(keys)
        places: Places = (records["shard"] << ROW_BITS) | records["row"]
        return places

    def take(self, places: Places) -> Floats:
        """The rows at `places` (from `locate`): float32 (n, width), in their order."""
        result = np.empty((len(places), self.spec.width), dtype=np.float32)
        shards, rows = places >> ROW_BITS, places & ((1 << ROW_BITS) - 1)
        for shard in np.unique(shards).tolist():
            chosen = shards == shard
            result[chosen] = self._shards.read(shard)[rows[chosen]]
        return result

    def rows(self, keys: Sequence[str]) -> Floats:
        """The rows of `keys`: float32 (n, width), in their order. StoreError names an absent key."""
        return self.take(self.locate(keys))

    def content_hash(self, keys: Sequence[str]) -> str:
        """One hash over these keys, in their order, and the values of their rows as recorded when written."""
        records = self._records(keys)
        return hash_bytes(np.ascontiguousarray(records["key"]).tobytes(), records["hash"].tobytes())

    def embed(
        self,
        keys: Sequence[str | None],
        items: Sequence[Any],
        encode: Encode,
        *,
        chunk: int = 256,
        progress: ProgressSink | None = None,
    ) -> list[BadItem]:
        """Embed the items whose keys have no row yet; return those that could not be, also noted in the store.

        `encode` turns a list of items into (len, width) finite numbers. Each `chunk` is on disk before the next
        one starts, so that a killed run goes on where it stopped. When a chunk fails with DataError, OSError or
        ValueError it is halved until the bad items stand alone; any other error is the encoder's own and is
        raised, as is StoreError for a wrong shape. A key of None is an item whose content could not be read; `encode`
        is asked once more, for the reason.
        """
        if len(keys) != len(items):
            raise ValueError(f"{len(keys)} keys for {len(items)} items")
        self.refresh()
        item_of = {key: item for key, item in zip(reversed(keys), reversed(items), strict=True) if key is not None}
        absent = self.missing(keys)
        reasons: dict[str, str] = {}
        if absent:
            with self._shards.writer() as writer:
                chunks = [absent[start : start + chunk] for start in range(0, len(absent), chunk)]
                first = int(writer.shard * STRIDE % 1 * len(chunks))
                done = 0
                for some in chunks[first:] + chunks[:first]:
                    self.refresh()
                    wanted = self.missing(some)
                    good, values, failed = self._encode(wanted, [item_of[key] for key in wanted], encode)
                    if good:
                        writer.append([_raw(key) for key in good], values)
                    self._note(failed)
                    reasons.update(failed)
                    done += len(some)
                    if progress:
                        progress(done, len(absent))
        return [
            BadItem(at, key or "", self._reason(items[at], encode) if key is None else reasons[key])
            for at, key in enumerate(keys)
            if key is None or key in reasons
        ]

    def bad(self) -> dict[str, str]:
        """Keys that could not be embedded, with the last reason, less those that have a row by now."""
        try:
            lines = (self.folder / "bad.jsonl").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return {}
        found: dict[str, str] = {}
        for line in lines:
            # A killed writer may leave half a line.
            with contextlib.suppress(ValueError):
                key, reason = json.loads(line)
                found[key] = reason
        return {key: reason for key, reason in found.items() if key not in self}

    def verify(self) -> list[str]:
        """Read every row and compare it with its recorded hash; drop and return the keys of damaged ones.

        The next `embed` makes a dropped row anew.
        """
        self.refresh()
        raws = list(self._shards.numbers)
        records = self._shards.records(raws)
        damaged = [
            raw
            for raw, record in zip(raws, records, strict=True)
            if hash_row(self._shards.read(int(record["shard"]))[record["row"]]) != record["hash"]
        ]
        if damaged:
            self._shards.forget(damaged)
        return [raw.hex() for raw in damaged]

    def _records(self, keys: Sequence[str]) -> npt.NDArray[Any]:
        try:
            return self._shards.records([_raw(key) for key in keys])
        except KeyError:
            absent = self.missing(keys)
            raise StoreError(
                f"{self.folder}: {len(absent)} of {len(keys)} rows are not in the store (first key: {absent[0]}); "
                "embed them first"
            ) from None

    def _encode(
        self, keys: list[str], items: list[Any], encode: Encode
    ) -> tuple[list[str], npt.NDArray[Any], dict[str, str]]:
        """(keys embedded, their rows, reason by key of the others), halving a list that fails."""
        if not keys:
            return [], np.empty((0, self.spec.width)), {}
        try:
            values = np.asarray(encode(items))
        except (DataError, OSError, ValueError) as error:
            if len(keys) == 1:
                reason = one_line(error)
                return [], np.empty((0, self.spec.width)), {keys[0]: reason}
            middle = len(keys) // 2
            left = self._encode(keys[:middle], items[:middle], encode)
            right = self._encode(keys[middle:], items[middle:], encode)
            return left[0] + right[0], np.concatenate([left[1], right[1]]), left[2] | right[2]
        if values.shape != (len(keys), self.spec.width):
            raise StoreError(
                f"{self.folder}: the encoder returned shape {values.shape} for {len(keys)} items; "
                f"the store expects ({len(keys)}, {self.spec.width})"
            )
        finite = np.isfinite(values).all(axis=1)
        if np.abs(values[finite]).max(initial=0) > np.finfo(self._shards.dtype).max:
            raise StoreError(f"{self.folder}: a value does not fit into {self.spec.dtype}; use dtype float32")
        reasons = {keys[at]: "its embedding is not finite" for at in np.flatnonzero(~finite)}
        return [keys[at] for at in np.flatnonzero(finite)], values[finite], reasons

    def _reason(self, item: Any, encode: Encode) -> str:
        """Why an item without a key cannot be embedded."""
        _, _, failed = self._encode([""], [item], encode)
        return failed.get("", "could not be read when its content was hashed")

    def _note(self, reasons: dict[str, str]) -> None:
        if reasons:
            lines = "".join(json.dumps(pair) + "\n" for pair in reasons.items())
            with self._shards.turn(), open(self.folder / "bad.jsonl", "a", encoding="utf-8") as stream:
                # The newline in front ends the half line that a killed writer may have left.
                stream.write("\n" + lines)


def _raw(key: str) -> bytes:
    """The 16 bytes of a key; StoreError for anything but 32 lower-case hex digits."""
    try:
        if len(key) == 32 and key == key.lower():
            return bytes.fromhex(key)
    except ValueError:
        pass
    raise StoreError(f"'{key}' is not a content key (32 hex digits); make keys with text_keys or image_keys")
