"""Share what several losses of one batch have in common.

A batch's losses meet the same tensors again and again: the contrast and both soft alignments of DALR all need the
cosines of the same sentences and images. Inside `with shared_products():` each is computed once, forward and
backward. It serves the dense form; a tiled loss keeps no matrix that could be shared.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

_memo: ContextVar[dict[tuple[object, ...], tuple[Tensor, tuple[Tensor, ...]]] | None] = ContextVar("memo", default=None)


@contextmanager
def shared_products() -> Iterator[None]:
    """Within this context dense losses share unit rows, cosine matrices and group masks of the same tensors.

    "The same" means the same tensor object, which must not be changed in place meanwhile. Values and gradients are
    those of the losses taken one by one.
    """
    token = _memo.set({})
    try:
        yield
    finally:
        _memo.reset(token)


def once(make: Callable[[], Tensor], name: str, *tensors: Tensor, **options: object) -> Tensor:
    """`make()`, or what it gave before for the same name, tensors and options inside `shared_products`."""
    memo = _memo.get()
    if memo is None:
        return make()
    key = (name, *(id(tensor) for tensor in tensors), *options.values())
    if key not in memo:
        memo[key] = (make(), tensors)  # the tensors stay alive as long as their ids serve as keys
    return memo[key][0]


def cosines(a_RD: Tensor, b_BD: Tensor) -> Tensor:
    """Cosines `(R, B)` of unit rows; `(a, b)` and `(b, a)` share one matrix."""
    if len(a_RD) < len(b_BD):
        return a_RD @ b_BD.T  # one block of several
    known = (_memo.get() or {}).get(("cosines", id(b_BD), id(a_RD)))
    return known[0].T if known else once(lambda: a_RD @ b_BD.T, "cosines", a_RD, b_BD)
