"""How well a language model knows text that it was not trained on."""

import math

import numpy as np
import torch

from dalr.antlm.batches import Labeller
from dalr.antlm.objective import row_losses
from dalr.antlm.packing import PackedText
from dalr.lm import LanguageModel

BATCH, SEED = 32, 20241203


def figure_names(labeller: Labeller) -> tuple[str, ...]:
    """What `held_out_figures` gives with this labeller."""
    return ("clm.perplexity", *(("mlm.perplexity", "mlm.accuracy") if labeller.words is not None else ()))


def held_out_figures(
    language_model: LanguageModel, text: PackedText, labeller: Labeller, rows: int = 512
) -> dict[str, float]:
    """`clm.perplexity`, `mlm.perplexity` and `mlm.accuracy` (× 100) on the first `rows` rows of a packed text.

    Perplexities are over the vocabulary's tokens: e to the mean loss of the places predicted. The places masked are the
    same for every model with this tokenizer and `masking`, but one that predicts the next token (`MIX`), which is never
    asked for a first token. Both are measured whatever the model was trained on.
    """
    found: dict[str, float] = {}
    count = min(rows, len(text))
    with torch.inference_mode():
        for name, causal in (("clm", True), ("mlm", False)):
            if not causal and labeller.words is None:
                continue
            generator = np.random.Generator(np.random.Philox(key=SEED))
            sums = torch.zeros(3, dtype=torch.float64)
            for start in range(0, count, BATCH):
                part = slice(start, min(start + BATCH, count))
                ids, segments = (side[part].astype(np.int64) for side in (text.ids_NL, text.segments_NL))
                flags = np.full(len(ids), causal)
                tokens = labeller.tokens(ids, segments, flags, labeller.masking.share, generator)
                tokens = {key: value.to(language_model.device) for key, value in tokens.items()}
                sums += torch.stack([value.sum().double().cpu() for value in row_losses(language_model, tokens)])
            nll, places, right = sums.tolist()
            found[f"{name}.perplexity"] = round(math.exp(min(nll / max(places, 1), 50)), 4)
            if not causal:
                found["mlm.accuracy"] = round(100 * right / max(places, 1), 4)
    return found
