"""What holds for every loss.

1. Tiled = dense in value and gradient, for blocks that divide the batch, that do not, and for single rows.
2. The analytic gradient is the numeric one (gradcheck, float64), dense and tiled.
3. No tensor of a tiled loss, forward or backward, has B² elements or near: every tensor that torch makes is seen.
4. float64 stays float64; bf16 and autocast are computed in float32; the value is close to the exact one.
5. Rows at cosine ±1, a row of zeros, a batch of one row, of none, a batch of one group: value and gradient are finite.
6. All-zero weights give 0 and a zero gradient; weights count relative to their sum; a weight of 0 silences a row's
   own term.
7. The order of the rows does not matter; the length of the rows does not matter.
8. Teachers, weights and scores get no gradient.
9. Losses that share products (`shared_products`) equal those that do not.

Not vacuous: the data has groups, unequal weights, missing ids and a learnable temperature; test 1 also demands that
the gradient is not zero, and test 3 that the dense form does fail its bound.
"""

from dataclasses import replace

import pytest
import torch
from loss_table import ALL, PAIR_WISE, ROW_WISE, WEIGHTED, Data, Loss, finite, make, value_and_gradients
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dalr import losses

row_wise = pytest.mark.parametrize("loss", ROW_WISE.values(), ids=ROW_WISE.keys())
every = pytest.mark.parametrize("loss", ALL.values(), ids=ALL.keys())


@row_wise
@pytest.mark.parametrize("tile", [1, 4, 13, 50])
def test_tiled_equals_dense(loss: Loss, tile: int) -> None:
    dense, dense_gradients = value_and_gradients(loss, make())
    tiled, tiled_gradients = value_and_gradients(loss, make(), tile=tile)
    torch.testing.assert_close(tiled, dense, rtol=1e-12, atol=1e-12)
    for found, wanted in zip(tiled_gradients, dense_gradients, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)
    assert max(gradient.abs().max() for gradient in dense_gradients) > 1e-3


@row_wise
def test_tiled_gradient_scales_and_repeats(loss: Loss) -> None:
    """A tiled loss is an ordinary node of the graph: it may be weighted, and asked for its gradient twice."""
    data = make()
    value = 2.5 * loss(data, tile=4)
    once = torch.autograd.grad(value, data.a, retain_graph=True)[0]
    twice = torch.autograd.grad(value, data.a)[0]
    torch.testing.assert_close(once, twice, rtol=0, atol=0)
    torch.testing.assert_close(once, 2.5 * value_and_gradients(loss, make())[1][0], rtol=1e-10, atol=1e-12)


@row_wise
def test_tiled_without_gradient(loss: Loss) -> None:
    with torch.no_grad():
        found = loss(make(), tile=4)
    assert not found.requires_grad
    torch.testing.assert_close(found, value_and_gradients(loss, make())[0], rtol=1e-12, atol=1e-12)


@every
def test_gradcheck(loss: Loss) -> None:
    data = make(rows=7, dim=3, seed=2)
    tiles: list[dict[str, int]] = [{}, {"tile": 4}] if loss in ROW_WISE.values() else [{}]
    for tile in tiles:

        def of(a: Tensor, b: Tensor, c: Tensor, t: Tensor, tile: dict[str, int] = tile) -> Tensor:
            return loss(replace(data, a=a, b=b, c=c, temperature=t), **tile)

        # Fast mode compares one random projection of the Jacobian with differences: no entry can hide.
        assert torch.autograd.gradcheck(of, data.learnable(), eps=1e-6, atol=1e-5, fast_mode=True)


class LargestTensor(TorchDispatchMode):
    """Remembers the largest number of elements that any operation returned."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, list | tuple) else [out]:
            # Expanded views hold no memory of their own.
            if isinstance(tensor, Tensor) and 0 not in tensor.stride():
                self.largest = max(self.largest, tensor.numel())
        return out


def largest_tensor(loss: Loss, **tile: int) -> int:
    data = make(rows=96, dim=4)
    with LargestTensor() as seen:
        loss(data, **tile).backward()
    return seen.largest


@row_wise
def test_tiled_makes_no_large_tensor(loss: Loss) -> None:
    assert largest_tensor(loss, tile=8) <= 2 * 8 * 96  # twice: triplet has positives and negatives side by side
    assert largest_tensor(loss) >= 96 * 96


@pytest.mark.parametrize("loss", PAIR_WISE.values(), ids=PAIR_WISE.keys())
def test_pair_wise_makes_no_large_tensor(loss: Loss) -> None:
    assert largest_tensor(loss) <= 96 * 32


@every
def test_dtypes(loss: Loss) -> None:
    exact = value_and_gradients(loss, make(rows=32))[0]
    assert exact.dtype == torch.float64
    single = value_and_gradients(loss, make(rows=32).copied(torch.float32))
    assert single[0].dtype == torch.float32
    assert abs(single[0] - exact) < 1e-4 * max(1.0, abs(exact))
    tiles: list[dict[str, int]] = [{}, {"tile": 5}] if loss in ROW_WISE.values() else [{}]
    for tile in tiles:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = value_and_gradients(loss, make(rows=32).copied(torch.float32), **tile)
        assert found[0].dtype == torch.float32
        # Equal but for the order of float32 sums: had anything run in bf16, the error would be near 1e-2.
        torch.testing.assert_close(found[0], single[0], rtol=1e-5, atol=1e-6)
    half = make(rows=32).copied(torch.bfloat16)
    rounded = half.copied(torch.float32)
    found = value_and_gradients(loss, half)
    if loss is not PAIR_WISE["matching"]:  # its logits are made by the test itself, in bf16
        torch.testing.assert_close(found[0], value_and_gradients(loss, rounded)[0], rtol=1e-4, atol=1e-5)
    assert found[0].dtype == torch.float32
    assert found[1][0].dtype == torch.bfloat16


def degenerate(name: str, dtype: torch.dtype) -> Data:
    data = make(rows=1 if name == "one row" else 9).copied(dtype)
    ids, a, b = data.ids, data.a, data.b
    if name == "equal rows":  # every cosine is 1
        a = b = torch.ones_like(a).requires_grad_()
    elif name == "opposite rows":  # every cosine of a with b is -1
        a, b = torch.ones_like(a).requires_grad_(), (-torch.ones_like(b)).requires_grad_()
    elif name == "axis rows":  # every cosine is -1, 0 or 1
        signs = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, 1.0, 1.0, -1.0, 1.0], dtype=dtype)
        a = (torch.eye(9, 5, dtype=dtype).roll(1, 0) + torch.eye(9, 5, dtype=dtype).roll(5, 0)) * signs[:, None]
        a, b = a.clone().requires_grad_(), a.flip(0).clone().requires_grad_()
    elif name == "zero row":
        a = torch.cat([torch.zeros_like(a[:1]), a[1:].detach()]).requires_grad_()
    elif name == "one group":
        ids = torch.zeros(9, 2, dtype=torch.int64)
    elif name == "two groups":  # one row has candidates in plenty, the others one each
        ids = torch.tensor([[1, -1]] + [[0, -1]] * 8)
    elif name == "no ids":
        ids = torch.full((9, 2), -1)
    return replace(data, a=a, b=b, ids=ids, text=torch.ones_like(data.text) if name == "equal rows" else data.text)


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "name",
    ["equal rows", "opposite rows", "axis rows", "zero row", "one row", "one group", "two groups", "no ids"],
)
def test_degenerate_batches_are_finite(loss: Loss, name: str, dtype: torch.dtype) -> None:
    tiles: list[dict[str, int]] = [{}, {"tile": 2}] if loss in ROW_WISE.values() else [{}]
    for tile in tiles:
        value, gradients = value_and_gradients(loss, degenerate(name, dtype), **tile)
        assert finite(value, *gradients)
        assert max(gradient.abs().max() for gradient in gradients) < 1e4


@pytest.mark.parametrize("name", WEIGHTED)
def test_weights(name: str) -> None:
    loss, data = ALL[name], make()
    assert data.weight is not None
    tiles: list[dict[str, int]] = [{}, {"tile": 4}] if name in ROW_WISE else [{}]
    for tile in tiles:
        nothing = value_and_gradients(loss, replace(data, weight=torch.zeros_like(data.weight)), **tile)
        assert nothing[0] == 0
        assert all((gradient == 0).all() for gradient in nothing[1])
    value = loss(data)
    torch.testing.assert_close(loss(replace(data, weight=7.0 * data.weight)), value)
    even, ones = replace(data, weight=None), replace(data, weight=torch.ones_like(data.weight))
    torch.testing.assert_close(loss(even), loss(ones))
    assert abs(loss(even) - value) > 1e-6
    alone = torch.eye(len(data.a), dtype=data.a.dtype)
    single = torch.stack([loss(replace(data, weight=row)) for row in alone])
    torch.testing.assert_close(single @ data.weight / data.weight.sum(), value)


@pytest.mark.parametrize("name", [name for name in ALL if name not in ("consistency", "matching")])
def test_order_of_rows(name: str) -> None:
    loss, order = ALL[name], torch.randperm(13, generator=torch.Generator().manual_seed(1))
    value, gradients = value_and_gradients(loss, make())
    moved, moved_gradients = value_and_gradients(loss, make().permuted(order))
    torch.testing.assert_close(moved, value)
    for found, wanted in zip(moved_gradients, gradients, strict=True):
        torch.testing.assert_close(found, wanted[order] if wanted.ndim else wanted)


@pytest.mark.parametrize("name", [name for name in ALL if name != "matching"])
def test_length_of_rows(name: str) -> None:
    data = make()
    scale = torch.linspace(0.01, 100.0, 13, dtype=torch.float64)[:, None]
    longer = replace(data, a=data.a * scale, c=data.c * 3.0, text=data.text * scale)
    torch.testing.assert_close(ALL[name](longer), ALL[name](data))


@every
def test_constants_get_no_gradient(loss: Loss) -> None:
    data = make()
    assert data.weight is not None
    constants = {"text": data.text, "image": data.image, "weight": data.weight, "score": data.score}
    data = replace(data, **{name: value.clone().requires_grad_() for name, value in constants.items()})
    loss(data).backward()
    assert all(getattr(data, name).grad is None for name in constants)


def test_shared_products_change_nothing() -> None:
    def total(data: Data) -> Tensor:
        # Twice, so that everything that can be shared is; and (b, a) after (a, b), which share one matrix.
        swapped = replace(data, a=data.b, b=data.a)
        return torch.stack([loss(d) for loss in ALL.values() for d in (data, data, swapped)]).sum()

    plain = value_and_gradients(total, make())
    with losses.shared_products():
        data = make()
        value = total(data)
    shared = torch.autograd.grad(value, data.learnable())
    torch.testing.assert_close(value, plain[0])
    for found, wanted in zip(shared, plain[1], strict=True):
        torch.testing.assert_close(found, wanted)


def test_shared_products_multiply_once() -> None:
    data = make()

    class Products(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            self.count += func is torch.ops.aten.mm.default
            return func(*args, **(kwargs or {}))

    def both() -> int:
        with Products() as seen:
            first = losses.info_nce(data.a, data.b, temperature=0.1)
            second = losses.info_nce(data.b, data.a, temperature=0.1)
            (first + second).backward()
        return seen.count

    apart = both()
    with losses.shared_products():
        together = both()
    assert (apart, together) == (6, 3)  # one product forward, two backward, for each loss or for both
    assert both() == 6  # nothing is kept after the context


@every
def test_empty_batch(loss: Loss) -> None:
    value, gradients = value_and_gradients(loss, make(rows=0))
    assert value == 0
    assert finite(*gradients)


def test_shapes_are_checked() -> None:
    data = make()
    with pytest.raises(ValueError, match="one shape"):
        losses.info_nce(data.a, data.b[:-1], temperature=0.1)
    with pytest.raises(ValueError, match="weight"):
        losses.info_nce(data.a, data.b, temperature=0.1, weight=torch.ones(3))
    with pytest.raises(ValueError, match="group"):
        losses.info_nce(data.a, data.b, temperature=0.1, group=torch.zeros(3, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="tile"):
        losses.info_nce(data.a, data.b, temperature=0.1, tile=0)
    with pytest.raises(ValueError, match="top_k"):
        losses.list_mle(data.a, data.b, data.teacher(), temperature=0.1, top_k=0)
    with pytest.raises(ValueError, match="margin: expected an angle"):
        losses.info_nce(data.a, data.b, temperature=0.1, margin=4.0)
