"""Two gloo processes equal one, for every loss.

1. `gather_rows` gives the rows of both processes in order of rank; its gradient is summed over the processes.
2. Each process embeds its half of the batch, gathers, and takes the loss of the whole; the mean of the processes'
   gradients (`average_gradients`) equals the single process's gradient, parameters used inside the loss included.
3. The same with DistributedDataParallel doing the mean.
4. The same with the cached two-pass step.
5. Without torch.distributed all of it does nothing.

Not vacuous: real processes are started once and each asserts the world size 2 for every case; the halves' own losses
(no gathering) are shown to differ from the whole one.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from loss_table import ALL, Data, make
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dalr import losses

ROWS = 14


class Heads(nn.Module):
    """Three linear heads and a temperature: what a loss's gradient must reach."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.heads = nn.ModuleList([nn.Linear(5, 4, bias=False) for _ in range(3)]).double()
        self.temperature = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))

    def embed(self, data: Data) -> dict[str, Tensor]:
        return {name: head(x) for name, head, x in zip("abc", self.heads, (data.a, data.b, data.c), strict=True)}

    def loss(self, name: str, rows: dict[str, Tensor], data: Data) -> Tensor:
        """The named loss of gathered rows; its constants are gathered too."""
        gather = losses.gather_constant
        everything = Data(
            **{key: losses.gather_rows(value) for key, value in rows.items()},
            text=gather(data.text),
            image=gather(data.image),
            ids=None if data.ids is None else gather(data.ids),
            weight=None if data.weight is None else gather(data.weight),
            score=gather(data.score),
            temperature=self.temperature,
        )
        unused = 0.0 * sum(parameter.sum() for parameter in self.parameters())  # DDP wants a gradient for each
        return ALL[name](everything) + unused

    def forward(self, name: str, data: Data) -> Tensor:
        return self.loss(name, self.embed(data), data)


def part(data: Data, rows: slice) -> Data:
    return data.permuted(torch.arange(ROWS)[rows])


def gradients(model: Heads) -> list[Tensor]:
    return [torch.zeros_like(x) if x.grad is None else x.grad.clone() for x in model.parameters()]


def plain(name: str, data: Data) -> tuple[Tensor, list[Tensor]]:
    model = Heads()
    value = model(name, data)
    value.backward()
    losses.average_gradients(model.parameters())
    return value.detach(), gradients(model)


def wrapped(name: str, data: Data) -> tuple[Tensor, list[Tensor]]:
    model = Heads()
    parallel = DistributedDataParallel(model)  # its hooks live as long as it does
    value = parallel(name, data)
    value.backward()
    return value.detach(), gradients(model)


def cached(name: str, data: Data) -> tuple[Tensor, list[Tensor]]:
    model = Heads()
    size = len(data.a)
    chunks = [data.permuted(torch.arange(start, min(start + 3, size))) for start in range(0, size, 3)]
    value = losses.cached_backward(model.embed, chunks, lambda rows: model.loss(name, rows, data))
    losses.average_gradients(model.parameters())
    return value, gradients(model)


STEPS = {"plain": plain, "wrapped": wrapped, "cached": cached}


def process(rank: int, folder: str) -> None:
    """One of the two processes: every loss by every step, results saved for the test to compare."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    assert dist.get_world_size() == 2
    half = part(make(rows=ROWS), slice(rank * ROWS // 2, (rank + 1) * ROWS // 2))
    found: dict[str, Any] = {"world": dist.get_world_size()}
    for step, take in STEPS.items():
        for name in ALL:
            assert dist.get_world_size() == 2
            found[f"{step} {name}"] = take(name, half)
    x = torch.full((2, 3), float(rank), requires_grad=True)
    rows = losses.gather_rows(x)
    (rows * torch.arange(1.0, 5.0)[:, None] * (rank + 1)).sum().backward()
    found["rows"], found["rows gradient"] = rows.detach(), x.grad
    found["ids"] = losses.gather_constant(torch.full((2,), rank))
    found["bf16"] = losses.gather_rows(torch.full((2, 1), float(rank), dtype=torch.bfloat16))
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two real processes found."""
    folder: Path = tmp_path_factory.mktemp("processes")
    multiprocessing.spawn(process, args=(str(folder),), nprocs=2)
    found = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert [one["world"] for one in found] == [2, 2]
    return found


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("step", STEPS)
def test_two_processes_equal_one(two: list[dict[str, Any]], step: str, name: str) -> None:
    value, wanted = plain(name, make(rows=ROWS))
    for one in two:
        found, gradients_found = one[f"{step} {name}"]
        torch.testing.assert_close(found, value)
        for gradient, single in zip(gradients_found, wanted, strict=True):
            torch.testing.assert_close(gradient, single)
    assert max(gradient.abs().max() for gradient in wanted) > 1e-4


def test_halves_alone_would_differ() -> None:
    whole = plain("cross_modal", make(rows=ROWS))[0]
    halves = [plain("cross_modal", part(make(rows=ROWS), rows))[0] for rows in (slice(0, 7), slice(7, 14))]
    assert abs(torch.stack(halves).mean() - whole) > 0.1


def test_gathered_rows(two: list[dict[str, Any]]) -> None:
    wanted = torch.tensor([0.0, 0.0, 1.0, 1.0])[:, None].expand(4, 3)
    for rank, one in enumerate(two):
        assert torch.equal(one["rows"], wanted)
        assert one["ids"].tolist() == [0, 0, 1, 1]
        assert one["bf16"].flatten().tolist() == [0, 0, 1, 1]
        # Row k was weighed k in process 0 and 2k in process 1: its gradient is 3k.
        first = 2 * rank + 1
        assert one["rows gradient"][:, 0].tolist() == [3.0 * first, 3.0 * (first + 1)]


def test_one_process_needs_nothing() -> None:
    x = torch.ones(2, 3, requires_grad=True)
    assert losses.gather_rows(x) is x
    assert not losses.gather_constant(x).requires_grad
    parameter = nn.Parameter(torch.ones(2))
    parameter.grad = torch.ones(2)
    losses.average_gradients([parameter])
    assert parameter.grad.tolist() == [1.0, 1.0]
