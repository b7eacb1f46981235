"""Who sees whom: additive attention masks, and decoders whose tokens see what follows them.

B texts, L tokens. Masks are additive numbers, never booleans: with a boolean mask eager attention lets the future
through without a word.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dalr.encoders.text_parts import TextBackbone
from dalr.errors import ConfigError

# What networks raise that do not take such a mask.
CANNOT_SWITCH = (AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError)


def additive_mask(attention_mask_BL: Tensor, causal: bool | Tensor, dtype: torch.dtype) -> Tensor:
    """(B, 1, L, L) numbers to add to attention scores: 0 where query i may see key j, else the dtype's lowest number.

    A key counts where `attention_mask_BL` is not 0; other numbers than 1 tell texts packed into one row apart, and a
    query sees the keys of its own number. With `causal` (of all rows, or one a row (B,)) it sees them only up to its
    own place. The lowest finite number, not -inf, and padding sees what is no padding: no query is left with nothing.
    """
    keys_B1L, queries_BL1 = attention_mask_BL[:, None, :], attention_mask_BL[:, :, None]
    seen_BLL = (keys_B1L != 0) & ((queries_BL1 == keys_B1L) | (queries_BL1 == 0))
    if isinstance(causal, Tensor):
        seen_BLL = torch.where(causal[:, None, None], _up_to_query(seen_BLL), seen_BLL)
    elif causal:
        seen_BLL = _up_to_query(seen_BLL)
    zeros = torch.zeros(seen_BLL.shape, dtype=dtype, device=attention_mask_BL.device)
    return zeros.masked_fill(~seen_BLL, torch.finfo(dtype).min)[:, None]


def _up_to_query(seen_BLL: Tensor) -> Tensor:
    # Padding lies behind the text, so that it still sees some of it.
    return seen_BLL.tril()


def make_bidirectional(backbone: TextBackbone, name: str) -> bool:
    """Let every token of `backbone` see the whole text. False where it did so already, and nothing was changed.

    BehnamGhader et al. 2024, "LLM2Vec". Whether the network follows the mask is tried out on it. Raises ConfigError,
    naming the architecture, for one that does not (a recurrent one, a tower of open_clip).
    """
    if _sees_future(backbone):
        return False
    reason = ""
    backbone.bidirectional = True
    try:
        if _sees_future(backbone):
            return True
    except CANNOT_SWITCH:
        reason = " (it takes no mask over pairs of tokens)"
    backbone.bidirectional = False
    kind = getattr(getattr(getattr(backbone, "model", None), "config", None), "model_type", "open_clip")
    raise ConfigError(
        f"{name}: the architecture '{kind}' cannot be made bidirectional{reason}; leave text.attention at own, and of "
        "language modelling take CLM alone"
    )


def sees_future(network: nn.Module, states: Callable[[dict[str, Tensor]], Tensor]) -> bool:
    """Whether in `states(tokens)`, (B, L, H) of a network put into eval mode, the first token's depends on the last."""
    ids_BL = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 5]], device=next(network.parameters()).device)
    tokens = {"input_ids": ids_BL, "attention_mask": torch.ones_like(ids_BL)}
    was_training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            h_BLH = states(tokens)
    finally:
        network.train(was_training)
    return bool((h_BLH[0, 0] - h_BLH[1, 0]).abs().max() > 1e-6 * h_BLH.abs().max())


def _sees_future(backbone: TextBackbone) -> bool:
    return sees_future(backbone, lambda tokens: backbone.states(tokens, False, False).last_BLH)
