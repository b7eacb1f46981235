"""`dalr bench loss` and the memory of the complete DALR loss.

1. Tiled and dense complete losses are equal in value and gradient.
2. Peak memory above the inputs grows with B·tile, not with B²: twice the rows take at most about twice the memory, and
   the dense form at the smaller size takes several times as much already.
3. The command prints one JSON object with the keys that its help names; bad options are refused.
4. (slow) At B = 16,384 and D = 256 the peak is under 600 MB.

Not vacuous: each measurement is a fresh process whose peak the kernel reports, and 2 also measures the dense form,
which breaks the bound that the tiled one keeps.
"""

import json

import pytest
import torch
from typer.testing import CliRunner

import dalr.cli.bench  # noqa: F401 - registers the command
from dalr.bench.loss import Inputs, complete_loss, measure_apart
from dalr.cli import bench_app


def test_tiled_equals_dense() -> None:
    gradients, values = [], []
    for tile in (None, 32):
        inputs = Inputs.random(96, 16, text_width=8, image_width=12)
        value = complete_loss(inputs, tile)
        value.backward()
        values.append(value.detach())
        leaves = [*inputs.z_views, *inputs.p_views, inputs.v_BD]
        gradients.append([leaf.grad for leaf in leaves])
    torch.testing.assert_close(values[1], values[0], rtol=1e-5, atol=1e-5)
    for tiled, dense in zip(gradients[1], gradients[0], strict=True):
        torch.testing.assert_close(tiled, dense, rtol=1e-4, atol=1e-6)
        assert dense.abs().max() > 1e-4


def test_memory_grows_with_rows_not_with_their_square() -> None:
    small, large, dense = (measure_apart(rows, 256, tile) for rows, tile in ((1024, 32), (2048, 32), (1024, None)))
    assert small.loss == pytest.approx(dense.loss, rel=1e-5)
    assert large.peak_mb < 2.6 * small.peak_mb
    assert large.peak_mb < 45 * 2048 * 256 * 4 / 1e6  # 45 matrices (B, D); measured: 25 to 35
    assert dense.peak_mb > 2 * small.peak_mb
    # Memory that the backward pass must leave behind: the gradients of the five inputs.
    assert small.peak_mb > 5 * 1024 * 256 * 4 / 1e6


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(bench_app, ["loss", *arguments])
    return result.exit_code, result.stdout


def test_command_prints_one_object() -> None:
    code, text = run("--rows", "256", "--dim", "16", "--tile", "64", "--dense-rows", "128", "--json")
    assert code == 0
    found = json.loads(text)
    assert set(found) == {"dim", "text_width", "image_width", "threads", "tiled", "small"}
    assert (found["dim"], found["tiled"]["rows"], found["small"]["dense"]["rows"]) == (16, 256, 128)
    assert found["small"]["dense"]["tile"] is None
    assert found["small"]["loss_difference"] < 1e-3
    for line in (found["tiled"], found["small"]["tiled"], found["small"]["dense"]):
        assert set(line) == {"rows", "tile", "seconds", "peak_mb", "loss"}
        assert line["seconds"] > 0


def test_bad_options_are_refused() -> None:
    assert run("--tile", "0")[0] == 2
    assert run("--rows", "x")[0] == 2


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_full_size_stays_under_600_mb() -> None:
    found = measure_apart(16384, 256, 128)
    assert found.peak_mb < 600
