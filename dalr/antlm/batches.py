"""Batches of language modelling: packed rows by number, hidden and labelled as the phase of the step says.

Batch `t` is a pure function of the seed, the rows and the schedule, as every stream of this package is.

Legend: B rows · L tokens · N rows of the text.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from dalr.antlm.masking import MaskingConfig, Vocabulary, mask_rows
from dalr.antlm.objective import IGNORED
from dalr.antlm.packing import PackedText
from dalr.antlm.schedule import Objective, Timeline
from dalr.data.streams import Stream, bits_for, process_slice
from dalr.objectives import Batch

Ids = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Labeller:
    """Turns rows of tokens into what a network reads and what it has to say.

    Attributes:
        words: of the tokenizer; None where nothing is ever masked.
        masking: how.
        predicts_next: a masked token is the label of the place before it.
    """

    words: Vocabulary | None
    masking: MaskingConfig
    predicts_next: bool = False

    def tokens(
        self, ids_BL: Ids, segments_BL: Ids, causal_B: Flags, share: float, generator: np.random.Generator
    ) -> dict[str, torch.Tensor]:
        """`input_ids`, `segments`, `labels` and `causal` of rows, of which `causal_B` are for the causal objective."""
        inputs_BL, labels_BL = ids_BL.copy(), np.full_like(ids_BL, IGNORED)
        inside_BL = np.zeros(ids_BL.shape, dtype=bool)  # places whose next token is of the same text
        inside_BL[:, :-1] = (segments_BL[:, 1:] == segments_BL[:, :-1]) & (segments_BL[:, 1:] != 0)
        next_BL = np.roll(ids_BL, -1, axis=1)
        labels_BL[causal_B] = np.where(inside_BL, next_BL, IGNORED)[causal_B]
        masked = ~causal_B
        if masked.any():
            assert self.words is not None
            real_BL = segments_BL[masked] != 0
            if self.predicts_next:
                # The first token of a text has no place before it that could predict it.
                real_BL[:, 1:] &= inside_BL[masked][:, :-1]
                real_BL[:, 0] = False
            inputs_BL[masked], chosen_BL = mask_rows(
                ids_BL[masked], real_BL, self.words, self.masking, share, generator
            )
            labels = np.where(chosen_BL, ids_BL[masked], IGNORED)
            if self.predicts_next:
                labels = np.roll(labels, -1, axis=1)
            labels_BL[masked] = labels
        arrays = {"input_ids": inputs_BL, "segments": segments_BL, "labels": labels_BL, "causal": causal_B}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


class LanguageData:
    """The training text as numbered batches.

    Args:
        text: packed rows.
        batch_size: rows of a global batch.
        seed: of order and masking.
        timeline: the phase of each step.
        labeller: what is hidden.
        mix_causal: share of causal rows in a MIX step.
        accumulate: batches of one optimizer step.
    """

    prefetch = True

    def __init__(
        self,
        text: PackedText,
        *,
        batch_size: int,
        seed: int,
        timeline: Timeline,
        labeller: Labeller,
        mix_causal: float,
        accumulate: int = 1,
    ) -> None:
        self.text, self.batch_size, self.seed = text, batch_size, seed
        self.timeline, self.labeller, self.mix_causal, self.accumulate = timeline, labeller, mix_causal, accumulate
        self.stream = Stream(len(text), batch_size, seed, text.fingerprint)
        self.batches_per_epoch = len(text) / batch_size

    def batch(self, t: int, rank: int = 0, world: int = 1) -> Batch:
        """The rows of global batch `t` that process `rank` of `world` computes."""
        step = min(t // self.accumulate, self.timeline.steps - 1)
        kind = self.timeline.kind(step)
        rows = self.stream.rows(t)
        # Drawn for the global batch, so that a run does not hang on the number of its processes.
        generator = np.random.Generator(bits_for("masks", self.seed, t))
        tokens = self.labeller.tokens(
            self.text.ids_NL[rows].astype(np.int64),
            self.text.segments_NL[rows].astype(np.int64),
            self._causal(kind, generator),
            self.labeller.masking.share_at(step / max(1, self.timeline.steps - 1)),
            generator,
        )
        part = process_slice(np.arange(self.batch_size), rank, world)
        return Batch(
            kind=kind,
            index_B=torch.from_numpy(rows[part]),
            ids_BK=torch.full((len(part), 1), -1),
            weight_B=torch.ones(len(part)),
            text={name: tensor[part] for name, tensor in tokens.items()},
        )

    def _causal(self, kind: Objective, generator: np.random.Generator) -> Flags:
        count = {"CLM": self.batch_size, "MLM": 0, "MIX": round(self.mix_causal * self.batch_size)}[kind]
        flags = np.arange(self.batch_size) < count
        return generator.permutation(flags) if kind == "MIX" else flags
