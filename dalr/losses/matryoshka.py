"""Matryoshka: the first dimensions of an embedding shall already be a good embedding."""

from collections.abc import Callable, Sequence

from torch import Tensor

from dalr.losses.rows import unit_rows


def matryoshka(
    loss: Callable[[list[Tensor]], Tensor],
    tensors: Sequence[Tensor],
    dims: Sequence[int],
    weights: Sequence[float] | None = None,
) -> Tensor:
    """Take a loss at several widths: `L = Σ_d c_d · loss(first d dimensions of each tensor) / Σ_d c_d`.

    (Matryoshka Representation Learning, Kusupati et al. 2022, eq. 1, as a weighted mean, so that the number of
    widths does not change the scale of the loss.) The cut rows are normalised again before the loss sees them.

    | input | shape | |
    |---|---|---|
    | loss | list of unit `(B, d)` → `()` | any loss of these tensors |
    | tensors | `(B, D)` each | uncut embeddings |
    | dims | ints in 1..D | widths; D itself belongs in it |
    | weights | floats ≥ 0 | c_d, default equal |

    Related: every other loss here. ValueError for a width outside 1..D or weights that do not fit.
    """
    weights = [1.0] * len(dims) if weights is None else list(weights)
    width = min(tensor.shape[1] for tensor in tensors)
    if not dims or not all(1 <= dim <= width for dim in dims):
        raise ValueError(f"dims: expected widths in 1..{width}, got {list(dims)}")
    if len(weights) != len(dims) or min(weights) < 0 or sum(weights) <= 0:
        raise ValueError(f"weights: expected {len(dims)} values >= 0 with a positive sum, got {weights}")
    total = tensors[0].new_zeros(())
    for dim, weight in zip(dims, weights, strict=True):
        total = total + weight / sum(weights) * loss(unit_rows(*(tensor[:, :dim] for tensor in tensors)))
    return total
