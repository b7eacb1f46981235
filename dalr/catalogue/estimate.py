"""How long a catalogue will take and how much memory, measured on a few of its rows and scaled up.

Every number says what it was measured on. What is not measured is left out rather than guessed: evaluation,
checkpoints, and what a longer run does to a laptop's clock.
"""

import json
import statistics
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dalr.data.manifest import Manifest
from dalr.errors import DataError
from dalr.model import DualEncoder
from dalr.objectives import Objective
from dalr.train_config import TrainConfig
from dalr.trainer import TrainData, Trainer

IMAGES, TEXTS = 48, 256
WARM_UP = 2


def write_sample(manifest: Manifest, count: int, path: Path) -> int:
    """Write up to `count` rows with a text, evenly spread over the manifest, as JSON Lines with absolute image paths.

    Returns how many rows it wrote. Columns: image, text, group, weight.
    """
    rows = manifest.pairs() if manifest.roles.image else np.flatnonzero([bool(text) for text in manifest.texts])
    chosen = rows[np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int))] if len(rows) else rows
    lines = []
    for row in chosen:
        record: dict[str, Any] = {"text": manifest.texts[row], "weight": float(manifest.weight[row])}
        if manifest.roles.image:
            try:
                record["image"] = str(manifest.image_path(row))
            except DataError:
                continue
        if manifest.group is not None:
            record["group"] = manifest.group[row] or ""
        lines.append(json.dumps(record, ensure_ascii=False))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(lines)


def estimate_embedding(
    model: DualEncoder, manifest: Manifest, sides: Collection[str] = ("image", "text")
) -> dict[str, Any]:
    """Seconds to embed all distinct images and texts of a manifest, decoding included; `sides` leaves one out.

    Returns images, images_per_second, texts, texts_per_second (None for a side that is left out, or has no rows or
    no tower), seconds and measured_on (how many of each).
    """
    images = _distinct(manifest.images)
    texts = sorted({text for text in manifest.texts if text})
    image_rate, image_sample = _image_rate(model, manifest, images) if "image" in sides else (None, 0)
    text_rate, text_sample = _text_rate(model, texts) if "text" in sides else (None, 0)
    seconds = (len(images) / image_rate if image_rate else 0.0) + (len(texts) / text_rate if text_rate else 0.0)
    return {
        "images": len(images),
        "images_per_second": _rounded(image_rate),
        "texts": len(texts),
        "texts_per_second": _rounded(text_rate),
        "seconds": round(seconds, 1),
        "measured_on": {"images": image_sample, "texts": text_sample},
    }


def estimate_steps(
    model: DualEncoder, objective: Objective, data: TrainData, config: TrainConfig, *, scale: float, steps: int = 4
) -> dict[str, Any]:
    """Run `steps` real steps of the loop after a warm-up; seconds a step and peak memory, multiplied by `scale`.

    `scale` is the planned batch over the measured one (1 where the whole batch was run). Memory is the process's
    peak: what it held before the steps once, what they added `scale` times.

    Returns seconds_per_step, memory_mb, gpu_memory_mb (None without a GPU), and what was measured.
    """
    before = peak_memory()
    stamps: list[float] = []
    quick = config.unmeasured().model_copy(
        update={
            "steps": WARM_UP + steps, "log_every": 1, "compile": False,
            "gradient_norms_every": None, "trackers": [], "warmup": 0.0,
        }
    )  # fmt: skip

    def note(event: dict[str, Any]) -> None:
        if event["event"] == "step":
            stamps.append(time.perf_counter())

    trainer = Trainer(model, objective, data, quick, progress=note)
    device = trainer.accelerator.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    trainer.fit()
    durations = [later - earlier for earlier, later in zip(stamps[WARM_UP - 1 :], stamps[WARM_UP:], strict=False)]
    gpu = torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else None
    return {
        "seconds_per_step": float(f"{statistics.median(durations) * scale:.4g}"),
        "memory_mb": round((before + (peak_memory() - before) * scale) / 1e6),
        "gpu_memory_mb": None if gpu is None else round(gpu * scale),
        "measured_on": {
            "batch_size": data.batch_size,
            "steps": len(durations),
            "device": str(device),
            "threads": torch.get_num_threads(),
        },
    }


def peak_memory() -> int:
    """The most resident memory that this process has ever held, in bytes."""
    import resource

    # Linux counts in kilobytes, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _distinct(images: Sequence[str | None]) -> list[int]:
    """The first row of each different image."""
    first: dict[str, int] = {}
    for row, image in enumerate(images):
        if image is not None:
            first.setdefault(image, row)
    return list(first.values())


def _image_rate(model: DualEncoder, manifest: Manifest, rows: list[int]) -> tuple[float | None, int]:
    if model.image is None or not rows:
        return None, 0
    sample = []
    for row in [rows[at] for at in np.unique(np.linspace(0, len(rows) - 1, 2 * IMAGES).astype(int))]:
        try:
            manifest.open_image(row)
        except DataError:
            continue
        sample.append(row)
    sample = sample[:IMAGES]
    if not sample:
        return None, 0
    model.image.encode(sample[:8], open_image=manifest.open_image)
    start = time.perf_counter()
    model.image.encode(sample, open_image=manifest.open_image)
    return len(sample) / (time.perf_counter() - start), len(sample)


def _text_rate(model: DualEncoder, texts: list[str]) -> tuple[float | None, int]:
    if model.text is None or not texts:
        return None, 0
    sample = [texts[at] for at in np.unique(np.linspace(0, len(texts) - 1, TEXTS).astype(int))]
    model.text.encode(sample[:16])
    start = time.perf_counter()
    model.text.encode(sample)
    return len(sample) / (time.perf_counter() - start), len(sample)


def _rounded(rate: float | None) -> float | None:
    return None if rate is None else float(f"{rate:.3g}")
