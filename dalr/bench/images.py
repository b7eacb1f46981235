"""Image embedding from files to features, decoding included: ours against the loop as one first writes it.

Each measurement runs in a fresh process, since the allocator's setting holds for a whole process. Both loops see
the same files (read once before, so that no one pays for a cold disk), and take turns.
"""

import multiprocessing
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from dalr.data.images import open_image
from dalr.data.manifest import Manifest
from dalr.encoders import ImageEncoder
from dalr.encoders.fast_cpu import ahead, keep_pages
from dalr.errors import DataError, ModelError
from dalr.model import DualEncoder
from dalr.progress import ProgressSink

# What is changed in the plain loop, one at a time, to see what each part brings.
PARTS: dict[str, dict[str, Any]] = {
    "channels_last": {"channels_last": True},
    "batch 16": {"batch_size": 16},
    "allocator that keeps its pages": {"allocator": True},
    "2 decoding threads": {"workers": 2},
    "all four": {"channels_last": True, "batch_size": 16, "allocator": True, "workers": 2},
}
WARM_UP = 16
Measured = tuple[float, npt.NDArray[np.float32]]


def simple_loop(
    encoder: ImageEncoder,
    paths: Sequence[Path],
    *,
    batch_size: int = 64,
    channels_last: bool = False,
    allocator: bool = False,
    workers: int = 0,
) -> npt.NDArray[np.float32]:
    """Features (N, V) by the plainest loop: open, transform, stack 64, run. The options change one thing each."""
    if allocator:
        keep_pages()
    layout = torch.channels_last if channels_last else torch.contiguous_format
    pixels = ahead(lambda path: encoder.transform(Image.open(path).convert("RGB")), paths, workers, 2 * batch_size)
    features = []
    with torch.no_grad():
        for start in range(0, len(paths), batch_size):
            batch = torch.stack([next(pixels) for _ in paths[start : start + batch_size]])
            features.append(encoder.network(batch.contiguous(memory_format=layout)).float().numpy())
    return np.concatenate(features)


def ours(encoder: ImageEncoder, paths: Sequence[Path]) -> npt.NDArray[np.float32]:
    """Features (N, V) by `ImageEncoder.encode` with its defaults, as every command uses it."""
    return encoder.encode(paths, open_image=open_image)


def measure(source: str, paths: Sequence[Path], options: dict[str, Any] | None) -> Measured:
    """(seconds, features) of one loop in this process, after a short warm-up; `options` of None is ours."""
    encoder = DualEncoder.from_pretrained(source).image
    assert encoder is not None
    encoder.eval()

    def run(some: Sequence[Path]) -> npt.NDArray[np.float32]:
        return ours(encoder, some) if options is None else simple_loop(encoder, some, **options)

    run(paths[:WARM_UP])
    start = time.perf_counter()
    features = run(paths)
    return time.perf_counter() - start, features


def bench_images(
    source: str,
    manifest: Manifest,
    *,
    images: int = 256,
    rounds: int = 3,
    parts: bool = True,
    progress: ProgressSink | None = None,
) -> dict[str, Any]:
    """Compare ours with the plain loop on the first `images` readable image files, `rounds` times in turn.

    Returns:
        images, rounds, threads; `plain` and `ours` with images_per_second (median, low, high); `ratio` (ours to
        plain within a round: median, low, high); `parts`: for each single change to the plain loop its
        images_per_second and ratio to the plain median; `difference`: the largest one between the features of
        ours and of the plain loop.

    Raises:
        ModelError: the model has no image tower. DataError: no image can be read.
    """
    encoder = DualEncoder.from_pretrained(source).image
    if encoder is None:
        raise ModelError(f"{source}: has no image tower; there are no images to embed")
    del encoder
    paths = readable_paths(manifest, images)
    total, done = 2 * rounds + (len(PARTS) if parts else 0), 0

    def timed(options: dict[str, Any] | None) -> Measured:
        nonlocal done
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            result = pool.submit(measure, source, paths, options).result()
        done += 1
        if progress:
            progress(done, total)
        return result

    plain_seconds, our_seconds = [], []
    difference = 0.0
    for number in range(rounds):
        # Who goes first changes, so that a drift of the machine's speed favours nobody.
        turns: list[dict[str, Any] | None] = [{}, None] if number % 2 == 0 else [None, {}]
        first, second = (timed(options) for options in turns)
        plain, own = (first, second) if number % 2 == 0 else (second, first)
        plain_seconds.append(plain[0])
        our_seconds.append(own[0])
        difference = max(difference, float(np.abs(plain[1] - own[1]).max()))
    base = statistics.median(plain_seconds)
    single = {name: timed(options)[0] for name, options in PARTS.items()} if parts else {}
    return {
        "images": len(paths),
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        "plain": _spread([len(paths) / seconds for seconds in plain_seconds]),
        "ours": _spread([len(paths) / seconds for seconds in our_seconds]),
        "ratio": _spread([a / b for a, b in zip(plain_seconds, our_seconds, strict=True)]),
        "parts": {
            name: {"images_per_second": round(len(paths) / seconds, 1), "ratio": round(base / seconds, 2)}
            for name, seconds in single.items()
        },
        "difference": difference,
    }


def readable_paths(manifest: Manifest, count: int) -> list[Path]:
    """The first `count` image files that open; reading them also brings them into memory."""
    paths: list[Path] = []
    for row, written in enumerate(manifest.images):
        if len(paths) == count:
            break
        if written is None:
            continue
        try:
            path = manifest.image_path(row)
            open_image(path, max_pixels=manifest.max_pixels)
        except DataError:
            continue
        paths.append(path)
    if not paths:
        raise DataError(f"{manifest.source}: no image can be read")
    return paths


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 2),
        "low": round(min(values), 2),
        "high": round(max(values), 2),
    }
