"""The contract between a method and the training loop.

A method says how a batch becomes embeddings (`embed`) and how the embeddings of all processes together become a
loss (`loss`). Between the two lies the one seam where rows of other processes join in (`Step`) or where a large
batch is cut into chunks (the cached two-pass step): a method knows neither.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dalr.errors import ConfigError
from dalr.losses import gather_constant, gather_rows
from dalr.losses.cached import cached_backward
from dalr.model import DualEncoder
from dalr.objectives.batch import Batch, Kind

Embed = Callable[[DualEncoder, Batch], dict[str, Tensor]]
# Of batches, in the length of their texts.
MOST_SHAPES = 64


@dataclass(frozen=True)
class LossParts:
    """A loss and the terms it is made of.

    Attributes:
        total: the scalar to minimise, Σ weight · term.
        parts: each term before its weight, a scalar.
        weights: each term's weight.
    """

    total: Tensor
    parts: Mapping[str, Tensor]
    weights: Mapping[str, float]

    @staticmethod
    def of(parts: Mapping[str, Tensor], weights: Mapping[str, float]) -> "LossParts":
        """The weighted sum of terms; every name in `parts` must have a weight."""
        total = torch.stack([weights[name] * value for name, value in parts.items()]).sum()
        return LossParts(total, dict(parts), {name: weights[name] for name in parts})

    def values(self) -> dict[str, float]:
        """Each term's value before its weight, and `loss`, the total."""
        stacked = torch.stack([self.total, *self.parts.values()]).detach().float().cpu().tolist()
        return dict(zip(["loss", *self.parts], stacked, strict=True))


class Objective(nn.Module):
    """One training method. Subclasses give `kinds`, `embed` and `loss`; all may own parameters.

    Attributes:
        kinds: the kinds of batch that it can learn from.
    """

    kinds: tuple[Kind, ...] = ("pairs",)

    def embed(self, model: DualEncoder, batch: Batch) -> dict[str, Tensor]:
        """Named embeddings of a batch, each (B, width). Rows must not influence each other here."""
        raise NotImplementedError(f"{type(self).__name__} must define embed")

    def loss(self, embeddings: Mapping[str, Tensor], batch: Batch) -> LossParts:
        """The loss of the whole global batch from the embeddings of all its rows."""
        raise NotImplementedError(f"{type(self).__name__} must define loss")

    def forward(self, model: DualEncoder, batch: Batch) -> LossParts:
        """(model, batch) → LossParts, on one process."""
        return self.loss(self.embed(model, batch), batch)

    def unused_modules(self, model: DualEncoder) -> list[nn.Module]:
        """Parts of the model that no batch ever reaches; `Step` freezes them."""
        return []

    def idle_parameters(self, model: DualEncoder, kind: Kind) -> list[nn.Parameter]:
        """Parameters that a batch of this kind leaves without a gradient, although other kinds do not."""
        return []

    def settings(self) -> Any:
        """What tells it from another method with the same parameters, as JSON values."""
        return type(self).__name__

    def set_step(self, step: int, total: int) -> None:
        """Called before each step, `step` (from 0) of `total`: whatever moves over a run hangs on these two alone."""

    def end_epoch(self, epoch: int) -> dict[str, float]:
        """Called after epoch `epoch` (from 1); returns figures to log."""
        return {}


class Step(nn.Module):
    """Model and objective as the one module that accelerate wraps.

    Every process embeds its own rows, all embeddings are gathered (with gradients) and each process computes the
    loss of the global batch: negatives come from all processes, and the mean of the processes' gradients equals
    the gradient that one process would have with all the rows.

    With `compiled` the embedding of a batch, which is where the time goes, runs as code made by torch.compile.
    """

    def __init__(self, model: DualEncoder, objective: Objective, compiled: bool = False) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.embed = compiled_embedding(model, objective) if compiled else objective.embed
        for module in objective.unused_modules(model):
            module.requires_grad_(False)

    def forward(self, batch: Batch, gradient_norms: bool = False) -> tuple[LossParts, dict[str, float]]:
        """The loss of the global batch, and on request each term's gradient norm at the embeddings."""
        embeddings = self.embed(self.model, batch)
        gathered = {name: gather_rows(value) for name, value in embeddings.items()}
        parts = self.objective.loss(gathered, gather_batch(batch))
        norms = term_gradient_norms(parts, list(embeddings.values())) if gradient_norms else {}
        return self._touch_idle(parts, batch.kind), norms

    def cached_backward(self, batch: Batch, chunk: int) -> LossParts:
        """Forward and backward in chunks of `chunk` rows with the negatives of the whole batch (GradCache).

        Gao et al. 2021, "Scaling deep contrastive learning batch size under memory limited setup".
        """
        chunks = [batch.rows(slice(start, start + chunk)) for start in range(0, len(batch), chunk)]
        whole = gather_batch(batch)
        found: list[LossParts] = []

        def loss(embeddings: Mapping[str, Tensor]) -> Tensor:
            gathered = {name: gather_rows(value) for name, value in embeddings.items()}
            found.append(self._touch_idle(self.objective.loss(gathered, whole), batch.kind))
            return found[0].total

        cached_backward(lambda part: self.embed(self.model, part), chunks, loss)
        return found[0]

    def _touch_idle(self, parts: LossParts, kind: Kind) -> LossParts:
        """Give parameters that this kind of batch does not reach a zero gradient, as DDP needs."""
        idle = self.objective.idle_parameters(self.model, kind)
        if not idle:
            return parts
        nothing = torch.stack([parameter.reshape(-1)[0] * 0.0 for parameter in idle]).sum()
        return LossParts(parts.total + nothing, parts.parts, parts.weights)


def compiled_embedding(model: DualEncoder, objective: Objective) -> Embed:
    """`objective.embed` compiled, such that the code for a batch hangs on that batch's shape alone.

    Code for moving shapes would depend on which shape came first, and a resumed run would differ in the last bits
    from one that never stopped. So every shape gets code of its own, and token lengths are rounded up, that there are
    few. Dropout draws as it does uncompiled, so that the second pass of the cached step repeats the first.
    """
    if model.text is not None:
        if model.text.moving_dropout is not None:
            raise ConfigError("train.compile: the rates of curriculum dropout move each step; set train.compile=false")
        model.text.pad_to_multiple_of = 8
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MOST_SHAPES)
    return torch.compile(objective.embed, dynamic=False, options={"fallback_random": True, "deterministic": True})


def gather_batch(batch: Batch) -> Batch:
    """What the loss reads of a batch, from all processes: ids, weights and teachers, not the inputs."""
    constants = Batch(
        kind=batch.kind,
        index_B=batch.index_B,
        ids_BK=batch.ids_BK,
        negative_ids_BK=batch.negative_ids_BK,
        weight_B=batch.weight_B,
        target_B=batch.target_B,
        text_teachers=batch.text_teachers,
        image_teachers=batch.image_teachers,
    )
    return constants.map(gather_constant)


def term_gradient_norms(parts: LossParts, embeddings: Sequence[Tensor]) -> dict[str, float]:
    """Each weighted term's gradient norm with respect to the embeddings (not the parameters: one pass, no sync)."""
    wanted = [value for value in embeddings if value.requires_grad]
    norms: dict[str, float] = {}
    for name, value in parts.parts.items():
        if not value.requires_grad or not wanted:
            norms[name] = 0.0
            continue
        gradients = torch.autograd.grad(value * parts.weights[name], wanted, retain_graph=True, allow_unused=True)
        present = [gradient.float().norm() for gradient in gradients if gradient is not None]
        norms[name] = float(torch.stack(present).norm()) if present else 0.0
    return norms
