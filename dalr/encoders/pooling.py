"""From token states to one vector a text.

B texts, L tokens, H width; `mask_BL` is 1 on the tokens that count. Half-precision states are averaged in float32.
"""

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

PoolingMode = Literal[
    "cls", "mean", "max", "mean_sqrt_len", "weighted_mean", "last", "first_last_avg", "attention", "embeddings_mean",
    "mask",
]  # fmt: skip
POOLING_MODES: tuple[str, ...] = get_args(PoolingMode)
OWN = "own"  # the pooled output that an architecture computes itself (CLIP text towers)


class TokenStates(NamedTuple):
    """What a text backbone returns: the last layer; where asked for, its own pooling and what lies below.

    `first_BLH` is the first block's output, `embeddings_BLH` what goes into that block.
    """

    last_BLH: Tensor
    first_BLH: Tensor | None = None
    own_BH: Tensor | None = None
    embeddings_BLH: Tensor | None = None


class Pooling(nn.Module):
    """One or several poolings of the same states; several are concatenated in the given order.

    - `cls` the first token · `last` the last token
    - `mean` · `mean_sqrt_len` (sum / √n) · `weighted_mean` (token i weighs i, from 1: SGPT) · `max`
    - `first_last_avg` the mean over tokens of (first block + last layer) / 2
    - `attention` softmax(h·q/√H)-weighted mean with a learned q, which starts at 0, so that it starts as `mean`
    - `embeddings_mean` the mean of the token embeddings below the first block: plain words, beside another mode
    - `mask` the template's mask token (PromptBERT), which is then the one token of `mask_BL`; it stands alone
    - `own` what the architecture itself computes

    A text whose tokens are all masked gives zeros.
    """

    def __init__(self, modes: tuple[str, ...], width: int, own_width: int | None = None) -> None:
        super().__init__()
        self.modes = modes
        self.width = sum(own_width or width if mode == OWN else width for mode in modes)
        self.query_H = nn.Parameter(torch.zeros(width)) if "attention" in modes else None

    @property
    def needs_lower(self) -> bool:
        return bool({"first_last_avg", "embeddings_mean"} & set(self.modes))

    @property
    def needs_own(self) -> bool:
        return OWN in self.modes

    def forward(self, states: TokenStates, mask_BL: Tensor) -> Tensor:
        """Token states and their mask → (B, width)."""
        parts = [self._one(mode, states, mask_BL) for mode in self.modes]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def _one(self, mode: str, states: TokenStates, mask_BL: Tensor) -> Tensor:
        if mode == OWN:
            assert states.own_BH is not None
            return states.own_BH
        h_BLH = _wide(states.last_BLH)
        mask_BL = mask_BL.to(h_BLH.dtype)
        if mode == "first_last_avg":
            assert states.first_BLH is not None
            return _mean((h_BLH + _wide(states.first_BLH)) / 2, mask_BL)
        if mode == "embeddings_mean":
            assert states.embeddings_BLH is not None
            return _mean(_wide(states.embeddings_BLH), mask_BL)
        if mode == "attention":
            assert self.query_H is not None
            scores_BL = h_BLH @ self.query_H.to(h_BLH.dtype) / h_BLH.shape[-1] ** 0.5
            scores_BL = scores_BL.masked_fill(mask_BL == 0, torch.finfo(scores_BL.dtype).min)
            return _mean(h_BLH, scores_BL.softmax(dim=-1) * mask_BL)
        if mode in ("cls", "last"):
            return _token(h_BLH, mask_BL, last=mode == "last")
        if mode == "max":
            lowest = h_BLH.masked_fill(mask_BL.unsqueeze(-1) == 0, float("-inf")).amax(dim=1)
            return lowest.masked_fill(mask_BL.sum(dim=1, keepdim=True) == 0, 0.0)
        if mode == "mean_sqrt_len":
            return _sum(h_BLH, mask_BL) / mask_BL.sum(dim=1, keepdim=True).clamp(min=1).sqrt()
        if mode == "weighted_mean":
            return _mean(h_BLH, mask_BL * torch.arange(1, mask_BL.shape[1] + 1, device=mask_BL.device))
        return _mean(h_BLH, mask_BL)


def _wide(h: Tensor) -> Tensor:
    return h.float() if h.dtype in (torch.float16, torch.bfloat16) else h


def _sum(h_BLH: Tensor, weight_BL: Tensor) -> Tensor:
    return (h_BLH * weight_BL.unsqueeze(-1)).sum(dim=1)


def _mean(h_BLH: Tensor, weight_BL: Tensor) -> Tensor:
    return _sum(h_BLH, weight_BL) / weight_BL.sum(dim=1, keepdim=True).clamp(min=1e-9)


def _token(h_BLH: Tensor, mask_BL: Tensor, last: bool) -> Tensor:
    length = mask_BL.shape[1]
    flat_BL = (mask_BL > 0).to(torch.int32)
    index_B = length - 1 - flat_BL.flip(1).argmax(dim=1) if last else flat_BL.argmax(dim=1)
    chosen = h_BLH[torch.arange(len(h_BLH), device=h_BLH.device), index_B]
    return chosen * mask_BL.amax(dim=1, keepdim=True)
