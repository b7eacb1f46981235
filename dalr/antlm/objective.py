"""The loss of language modelling, causal and masked, over the rows of all processes.

Legend: B rows · L tokens · M places that are predicted · V vocabulary.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from dalr.lm import LanguageModel
from dalr.model import DualEncoder
from dalr.objectives import Batch, LossParts, Objective

IGNORED = -100


class LanguageModelling(Objective):
    """Cross-entropy of the predicted tokens: the mean over all predicted places of the global batch.

    The batch's kind is the phase (CLM, MLM, MIX); its `text` holds `input_ids`, `segments` (see
    `LanguageModel.states`), `labels` (the token that a place predicts, or -100) and `causal`, one a row. The network is
    the model's text tower; this objective owns its head.
    """

    kinds = ("CLM", "MLM", "MIX")

    def __init__(self, language_model: LanguageModel) -> None:
        super().__init__()
        self.language_model = language_model

    def embed(self, model: DualEncoder, batch: Batch) -> dict[str, Tensor]:
        """`nll`, the summed loss of each row (B,), and of the same shape `count`, how many places, and `causal`."""
        assert isinstance(batch.text, dict)
        nll_B, count_B, _ = row_losses(self.language_model, batch.text)
        return {"nll": nll_B, "count": count_B, "causal": batch.text["causal"].float()}

    def loss(self, embeddings: Mapping[str, Tensor], batch: Batch) -> LossParts:
        """`clm` and `mlm`, each a mean over its places, weighted by their share of all places."""
        nll_B, count_B, causal_B = embeddings["nll"], embeddings["count"], embeddings["causal"] > 0
        every = count_B.sum().clamp(min=1)
        parts, weights = {}, {}
        for name, rows_B in (("clm", causal_B), ("mlm", ~causal_B)):
            if bool(rows_B.any()):
                places = count_B[rows_B].sum()
                parts[name] = nll_B[rows_B].sum() / places.clamp(min=1)
                weights[name] = float(places / every)
        return LossParts.of(parts, weights)


def row_losses(language_model: LanguageModel, tokens: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Of each row the summed cross-entropy, the places that are predicted, and those predicted right: (B,) each."""
    h_BLH = language_model.states(tokens["input_ids"], tokens["segments"], tokens["causal"])
    labels_BL = tokens["labels"]
    predicted_BL = labels_BL != IGNORED
    rows_M = predicted_BL.nonzero()[:, 0]
    logits_MV = language_model.logits(h_BLH[predicted_BL]).float()
    labels_M = labels_BL[predicted_BL]
    nll_M = F.cross_entropy(logits_MV, labels_M, reduction="none")
    right_M = (logits_MV.detach().argmax(dim=-1) == labels_M).float()
    nothing = torch.zeros(len(labels_BL), device=nll_M.device)
    nll_B = nothing.index_add(0, rows_M, nll_M)
    return nll_B, predicted_BL.sum(dim=1).float(), nothing.index_add(0, rows_M, right_M)
