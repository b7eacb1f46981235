"""Time and peak memory of the complete DALR loss, tiled against dense, each measured in a fresh process.

What counts is resident memory above the inputs: the process builds the inputs, runs a small loss once so that
libraries and thread pools are there, resets the kernel's high-water mark, then goes forward and backward.
"""

import gc
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dalr import losses
from dalr.progress import ProgressSink

TEXT_WIDTH, IMAGE_WIDTH = 384, 1280
MEGABYTE = 1e6


@dataclass(frozen=True)
class Measurement:
    """One forward and backward pass: seconds, peak resident megabytes (10⁶ bytes) above the inputs, the value."""

    rows: int
    tile: int | None
    seconds: float
    peak_mb: float
    loss: float


@dataclass(frozen=True)
class Inputs:
    """A batch as the DALR loss takes it: sentence views, shared views, images, teachers, groups and weights."""

    z_views: list[Tensor]
    p_views: list[Tensor]
    v_BD: Tensor
    text_BH: Tensor
    image_BV: Tensor
    ids_BK: Tensor
    weight_B: Tensor

    @staticmethod
    def random(rows: int, dim: int, *, text_width: int = TEXT_WIDTH, image_width: int = IMAGE_WIDTH) -> "Inputs":
        """Gaussian embeddings in which one row in eight shares its image or its caption with another."""
        draw = torch.Generator().manual_seed(0)

        def leaf() -> Tensor:
            return torch.randn(rows, dim, generator=draw).requires_grad_()

        return Inputs(
            z_views=[leaf(), leaf()],
            p_views=[leaf(), leaf()],
            v_BD=leaf(),
            text_BH=torch.randn(rows, text_width, generator=draw),
            image_BV=torch.randn(rows, image_width, generator=draw),
            ids_BK=torch.randint(0, 16 * rows, (rows, 2), generator=draw),
            weight_B=torch.rand(rows, generator=draw),
        )


def complete_loss(inputs: Inputs, tile: int | None, *, top_k: int = 32) -> Tensor:
    """`L_info + L_cross + L_cons + L_soft_cross + L_soft_intra + L_rank` of one batch, all weights 1."""
    text, image = losses.TeacherRows([inputs.text_BH]), losses.TeacherRows([inputs.image_BV])
    (z1, z2), (p1, p2), v = inputs.z_views, inputs.p_views, inputs.v_BD
    common: dict[str, Any] = {"group": inputs.ids_BK, "weight": inputs.weight_B, "tile": tile}
    soft: dict[str, Any] = {"student_temperature": 0.05, "teacher_temperature": 0.05, **common}
    mismatch_B = losses.derangement(inputs.ids_BK, torch.Generator().manual_seed(1))
    total = losses.info_nce(z1, z2, temperature=0.05, **common)
    total = total + losses.cross_modal([p1, p2], v, temperature=0.05, **common)
    total = total + losses.consistency(p1, v, mismatch_B, weight=inputs.weight_B)
    total = total + 0.5 * losses.soft_alignment(p1, v, text, **soft)
    total = total + 0.5 * losses.soft_alignment(v, p1, image, **soft)
    total = total + losses.soft_alignment(z1, z2, text, **soft)
    return total + losses.list_mle(z1, z2, text, temperature=0.05, top_k=top_k, **common)


def bench_loss(
    rows: int = 16384,
    dim: int = 256,
    tile: int = 128,
    dense_rows: int = 2048,
    progress: ProgressSink | None = None,
) -> dict[str, Any]:
    """Measure the tiled loss at `rows`, and tiled and dense at `dense_rows`, where the dense form still fits.

    Returns {"dim", "text_width", "image_width", "threads", "tiled", "small": {"tiled", "dense",
    "loss_difference"}}; each measurement is {"rows", "tile", "seconds", "peak_mb", "loss"}.
    """
    dense_rows = min(rows, dense_rows)
    found: list[Measurement] = []
    for size, block in ((rows, tile), (dense_rows, min(tile, max(1, dense_rows // 2))), (dense_rows, None)):
        found.append(measure_apart(size, dim, block))
        if progress is not None:
            progress(len(found), 3)
    large, small, dense = found
    return {
        "dim": dim,
        "text_width": TEXT_WIDTH,
        "image_width": IMAGE_WIDTH,
        "threads": torch.get_num_threads(),
        "tiled": asdict(large),
        "small": {"tiled": asdict(small), "dense": asdict(dense), "loss_difference": abs(small.loss - dense.loss)},
    }


def measure_apart(rows: int, dim: int, tile: int | None) -> Measurement:
    """`measure` in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
        return fresh.submit(measure, rows, dim, tile).result()


def measure(rows: int, dim: int, tile: int | None) -> Measurement:
    """Time and peak memory of one forward and backward pass in this process."""
    small = Inputs.random(64, dim)
    complete_loss(small, 16 if tile else None).backward()  # type: ignore[no-untyped-call]
    inputs = Inputs.random(rows, dim)
    gc.collect()
    before = _reset_peak()
    start = time.perf_counter()
    loss = complete_loss(inputs, tile)
    loss.backward()  # type: ignore[no-untyped-call]
    seconds = time.perf_counter() - start
    return Measurement(rows, tile, seconds, (_memory("VmHWM") - before) / MEGABYTE, loss.item())


def _reset_peak() -> float:
    """Set the high-water mark to what is resident now, and return that, in bytes."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return _memory("VmHWM")  # not allowed here: what comes after is compared with the highest so far
    return _memory("VmRSS")


def _memory(field: str) -> float:
    """Bytes of a field of /proc/self/status; elsewhere the highest resident size so far."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith(field + ":"))
        return float(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak) if os.uname().sysname == "Darwin" else peak * 1024.0
