"""Who sees whom: additive attention masks, and decoders whose tokens see what follows them.

B texts, L tokens. Masks are additive numbers, never booleans: with a boolean mask eager attention lets the future
through without a word.
"""

from typing import Any

import torch
from torch import Tensor

from dalr.encoders.text_parts import TextBackbone
from dalr.errors import ConfigError, one_line


def additive_mask(attention_mask_BL: Tensor, causal: bool, dtype: torch.dtype) -> Tensor:
    """(B, 1, L, L) numbers to add to attention scores: 0 where query i may see key j, else the dtype's lowest number.

    A key counts where `attention_mask_BL` is not 0, and with `causal` only up to the query's own place. The lowest
    finite number, not -inf: a padded query that sees nothing then gives no NaN.
    """
    seen_B1LL = (attention_mask_BL != 0)[:, None, None, :].expand(-1, 1, attention_mask_BL.shape[1], -1)
    if causal:
        seen_B1LL = seen_B1LL.tril()
    zeros = torch.zeros(seen_B1LL.shape, dtype=dtype, device=attention_mask_BL.device)
    return zeros.masked_fill(~seen_B1LL, torch.finfo(dtype).min)


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
    except (AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        reason = f" ({one_line(error)})"
    backbone.bidirectional = False
    kind = getattr(getattr(getattr(backbone, "model", None), "config", None), "model_type", "open_clip")
    raise ConfigError(
        f"text.attention: the architecture '{kind}' of {name} cannot be made bidirectional{reason}; leave it at own"
    )


def _sees_future(backbone: TextBackbone) -> bool:
    """Whether the first token's state depends on the last token."""
    ids_BL = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 5]])
    tokens: dict[str, Any] = {"input_ids": ids_BL, "attention_mask": torch.ones_like(ids_BL)}
    was_training = backbone.training
    backbone.eval()
    try:
        with torch.inference_mode():
            h_BLH = backbone.states(tokens, False, False).last_BLH
    finally:
        backbone.train(was_training)
    return bool((h_BLH[0, 0] - h_BLH[1, 0]).abs().max() > 1e-6 * h_BLH.abs().max())
