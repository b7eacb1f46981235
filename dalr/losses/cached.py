"""A contrastive step for batches that do not fit: embed twice, keep one chunk's graph at a time.

GradCache (Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup"). Gradient
accumulation averages the losses of small batches and adds no negatives; this is the loss of the large batch.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

Chunk = TypeVar("Chunk")


def cached_backward(
    embed: Callable[[Chunk], dict[str, Tensor]],
    chunks: Sequence[Chunk],
    loss: Callable[[dict[str, Tensor]], Tensor],
    backward: Callable[[Tensor], Any] = torch.Tensor.backward,
) -> Tensor:
    """Value of `loss(all chunks' embeddings)`, with its gradient added to every parameter, as one large step would.

    1. Embed each chunk without a graph and note the state of the random generators before it.
    2. Compute the loss on the embeddings, joined by rows, and its gradient with respect to them (`∂L/∂z`).
    3. Embed each chunk again with those generator states, so that dropout repeats, and go backward from
       `Σ z · ∂L/∂z`.

    | input | | |
    |---|---|---|
    | embed | chunk → {name: tensor with the chunk's rows first} | run twice a chunk; its gradients are wanted |
    | chunks | at least one | inputs of one step, in order |
    | loss | {name: all rows} → `()` | run once; parameters used in it (a scale, a head) get their gradient too |
    | backward | tensor → any | for the loss alone (`accelerator.backward` scales it; what follows carries that scale) |

    The generators end where one plain step would leave them. `embed` must draw from torch's generators only, and
    change no state between the passes (batch norm's running statistics would be updated twice). Under DDP run it
    inside `no_sync()` and call `average_gradients` afterwards. ValueError without chunks.
    """
    if not chunks:
        raise ValueError("chunks: expected at least one")
    states, embedded = [], []
    with torch.no_grad():
        for chunk in chunks:
            states.append(_generator_states())
            embedded.append(embed(chunk))
    # Autocast caches the weights that it casts; those cast without a graph would cut the second pass off.
    torch.clear_autocast_cache()
    sizes = [len(next(iter(part.values()))) for part in embedded]
    leaves = {name: torch.cat([part[name] for part in embedded]) for name in embedded[0]}
    del embedded
    for leaf in leaves.values():
        leaf.requires_grad_(leaf.is_floating_point())
    value = loss(leaves)
    backward(value)
    gradients = {name: torch.split(leaf.grad, sizes) for name, leaf in leaves.items() if leaf.grad is not None}
    del leaves
    with _generators_kept():
        for number, chunk in enumerate(chunks):
            _set_generator_states(states[number])
            part = embed(chunk)
            pulls = [
                (part[name] * gradient[number]).sum()
                for name, gradient in gradients.items()
                if part[name].requires_grad
            ]
            if pulls:
                torch.stack(pulls).sum().backward()  # type: ignore[no-untyped-call]
    return value.detach()


def _generator_states() -> list[Tensor]:
    """States of the CPU generator and of the current accelerator's, when one is in use."""
    states = [torch.get_rng_state()]
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        states.append(torch.cuda.get_rng_state())
    return states


def _set_generator_states(states: Sequence[Tensor]) -> None:
    torch.set_rng_state(states[0])
    for state in states[1:]:
        torch.cuda.set_rng_state(state)


@contextmanager
def _generators_kept() -> Iterator[None]:
    states = _generator_states()
    try:
        yield
    finally:
        _set_generator_states(states)
