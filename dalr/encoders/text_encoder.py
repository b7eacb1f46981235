"""The text tower: texts → token ids → states → one vector, whatever library the network is from.

B texts in a batch, N texts in all, L tokens, H width of the result.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dalr.encoders.batching import packed_batches
from dalr.encoders.dropout import CurriculumDropout
from dalr.encoders.fast_cpu import keep_pages
from dalr.encoders.long_texts import split_long
from dalr.encoders.lora import merged_state
from dalr.encoders.names import TOWER_FILE
from dalr.encoders.pooling import Pooling
from dalr.encoders.prompts import Prompt, build_prompt, find_prompt
from dalr.encoders.sentence_folder import build_after
from dalr.encoders.text_parts import NEWER_FIELDS, TextParts
from dalr.encoders.tower import Tower, save_weights
from dalr.encoders.whitening import fit_centring, fit_whitening
from dalr.errors import ConfigError, ModelError
from dalr.files import write_json
from dalr.progress import ProgressSink

logger = logging.getLogger(__name__)
# A training batch with more than so many places a token is run in parts of at most so many places.
PADDING_LIMIT, TRAINING_TOKENS = 2.1, 512


class TextEncoder(Tower):
    """A text tower. `width` is H, `max_length` the number of tokens after which a text is cut.

    `pad_to_multiple_of` rounds the length of a batch up, so that there are few different ones (for compiled code).
    Training tokenises once (`tokenize`), pads per batch (`collate`, with the same prompt) and calls the module;
    `encode` does all three without gradients. Results are not normalised, unless the encoder's folder says so.

    A `prompt` is the name of one of `prompts`, or the prompt's own text; None is the default one, "" none at all.
    """

    def __init__(self, parts: TextParts) -> None:
        super().__init__()
        self.spec = parts.spec
        self.tokenizer = parts.tokenizer
        self.backbone = parts.backbone
        self.pooling = Pooling(parts.spec.pooling, parts.backbone.width, parts.backbone.own_width)
        if parts.attention_query is not None and self.pooling.query_H is not None:
            self.pooling.query_H.data.copy_(parts.attention_query)
        self.after = parts.after
        self.max_length = parts.spec.max_length
        self.width = self._probe_width()
        self.pad_to_multiple_of = 1
        self.moving_dropout: CurriculumDropout | None = None
        self.has_head = False  # a model with heads on this tower's features says so
        self._cut_reported = False
        self._prompts: dict[str, Prompt] = {}

    @property
    def prompts(self) -> dict[str, str]:
        """The named prompts, by name; the default one is `spec.prompt`."""
        return dict(self.spec.prompts)

    def prompt_text(self, prompt: str | None = None) -> str:
        """The prompt itself that a name, a prompt's text or None stands for. ConfigError for an unknown name."""
        return find_prompt(prompt, self.spec.prompts, self.spec.prompt)

    def tokenize(self, texts: Sequence[str], prompt: str | None = None) -> list[list[int]]:
        """Token ids of each text, prompt and special tokens included, cut to `max_length`.

        The first call that cuts anything says how many texts and the longest, by logging; later ones do not.
        An empty list gives an empty list; an empty text gives its special tokens. Raises ConfigError for a prompt
        that is unknown or cannot be used.
        """
        ids, lengths = self._prompt(prompt).encode(texts)
        cut = [length for length in lengths if length > self.max_length]
        if cut and not self._cut_reported:
            self._cut_reported = True
            logger.warning(
                "%d of %d texts are longer than max_length = %d tokens and were cut (the longest has %d)",
                len(cut), len(lengths), self.max_length, max(cut),
            )  # fmt: skip
        return ids

    def token_counts(self, texts: Sequence[str], prompt: str | None = None) -> list[int]:
        """How many tokens each text has before any cut, prompt and special tokens included."""
        return self._prompt(prompt).encode(texts)[1]

    def collate(self, ids: Sequence[Sequence[int]], prompt: str | None = None) -> dict[str, Tensor]:
        """Rows of `tokenize` with the same prompt → `input_ids`, `attention_mask`: (B, L) int64, padded on the right.

        Where the prompt keeps tokens from being pooled, `pooling_mask` is 1 on those that are pooled.
        """
        shape = self._prompt(prompt)
        longest = self.max_length if self.spec.fixed_length else max((len(row) for row in ids), default=0)
        longest = min(-(-longest // self.pad_to_multiple_of) * self.pad_to_multiple_of, self.max_length)
        input_ids_BL = torch.full((len(ids), longest), self.tokenizer.pad_id, dtype=torch.int64)
        attention_mask_BL = torch.zeros((len(ids), longest), dtype=torch.int64)
        for row, tokens in enumerate(ids):
            input_ids_BL[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.int64)
            attention_mask_BL[row, : len(tokens)] = 1
        batch = {"input_ids": input_ids_BL, "attention_mask": attention_mask_BL}
        if shape.selects:
            batch["pooling_mask"] = torch.zeros_like(attention_mask_BL)
            for row, tokens in enumerate(ids):
                first, stop = shape.pooled(len(tokens))
                batch["pooling_mask"][row, first:stop] = 1
        return batch

    def forward(self, tokens: dict[str, Tensor]) -> Tensor:
        """What `collate` returned, on the tower's device → h_BH.

        In training on a CPU a batch that is mostly padding is run in parts of like length; on a GPU one call is faster.
        """
        parts = self._parts(tokens["attention_mask"])
        if not parts:
            return self._embed(tokens)
        found = [
            self._embed({name: value[rows, :longest] for name, value in tokens.items()}) for rows, longest in parts
        ]
        order = torch.cat([rows for rows, _ in parts])
        return torch.cat(found)[order.argsort()]

    def _parts(self, mask_BL: Tensor) -> list[tuple[Tensor, int]]:
        """(row numbers, longest) of the parts in which a batch is run; none where it is run whole."""
        steady = self.spec.fixed_length or self.pad_to_multiple_of > 1  # compiled code is made for whole shapes
        if steady or not self.training or mask_BL.device.type != "cpu":
            return []
        lengths = mask_BL.sum(dim=1)
        if mask_BL.numel() <= PADDING_LIMIT * int(lengths.sum()):
            return []
        packed = packed_batches(lengths.tolist(), TRAINING_TOKENS)
        return [(torch.tensor(rows), int(lengths[rows].max())) for rows in packed]

    def _embed(self, tokens: dict[str, Tensor]) -> Tensor:
        inputs = {name: tokens[name] for name in ("input_ids", "attention_mask")}
        states = self.backbone.states(inputs, self.pooling.needs_lower, self.pooling.needs_own)
        mask_BL = tokens.get("pooling_mask", tokens["attention_mask"])
        return self.after(self.pooling(states, mask_BL))  # type: ignore[no-any-return]

    def encode(
        self,
        texts: Sequence[str],
        prompt: str | None = None,
        *,
        token_budget: int | None = None,
        progress: ProgressSink | None = None,
    ) -> np.ndarray:
        """(N, H) float32 features in input order, in eval mode and without gradients; no texts give (0, H).

        Texts are sorted by length and packed so that rows × longest ≤ `token_budget` in every batch (None: 2,048
        on a CPU, where small batches stay in the cache, else 8,192). A tower with `long_texts: chunk` embeds a text
        longer than `max_length` in pieces and averages them.
        `progress(done, total)` is called after each batch; it counts pieces where there are any.
        """
        if self.spec.long_texts == "cut":
            return self._encode(self.tokenize(texts, prompt), prompt, token_budget, progress)
        pieces = split_long(texts, self._prompt(prompt), self.tokenizer, self.max_length, self.spec.chunk_overlap)
        features_PH = self._encode(pieces.ids, prompt, token_budget, progress)
        return pieces.average(features_PH, unit=self._unit_length)

    def add_whitening(
        self, data: Sequence[str] | np.ndarray, dim: int | None = None, *, shrinkage: float = 0.0
    ) -> None:
        """Append a layer that gives the features of `data` mean 0 and covariance I, in its `dim` widest directions.

        `data` are texts, or features of this tower as `encode` returns them (N, H). Arguments and errors as in
        `fit_whitening`; also ModelError where a model has heads on this tower's features.
        """
        mean_H, matrix_KH = fit_whitening(self._features(data, "whitening"), dim, shrinkage)
        self._append_linear(mean_H, matrix_KH)

    def add_centring(self, data: Sequence[str] | np.ndarray) -> None:
        """Append a layer that takes the mean of `data` (texts, or features of this tower) off every vector."""
        mean_H = fit_centring(self._features(data, "centring"))
        self._append_linear(mean_H, np.eye(self.width))

    def truncate(self, dim: int) -> None:
        """Append a layer that keeps the first `dim` numbers, at length one where the features were so before.

        Raises ModelError where `dim` is more than the width, or a model has heads on this tower's features.
        """
        self._without_head("a shorter width")
        if not 1 <= dim <= self.width:
            raise ModelError(f"truncate_dim: {dim} is not between 1 and the text tower's width {self.width}")
        self._append({"type": "truncate", "dim": dim}, *([{"type": "normalize"}] if self._unit_length else []))

    def description(self) -> dict[str, Any]:
        """Everything but the weights that decides the features, as JSON values."""
        spec = self.spec.model_dump(mode="json", exclude={"architecture"})
        # Fields that came later count only where they are used: a tower from before keeps its fingerprint.
        spec = {name: value for name, value in spec.items() if name not in NEWER_FIELDS or value != NEWER_FIELDS[name]}
        return {**spec, "backbone": self.backbone.describe(), "tokenizer": self.tokenizer.digest()}

    def save(self, folder: str | Path) -> None:
        """Write the tower into an existing folder: weights with adapters merged, tokenizer, `tower.json`.

        Where the network is one of transformers, the folder also loads with AutoModel and AutoTokenizer.
        """
        folder = Path(folder)
        state = merged_state(self)
        self.backbone.save(folder, _below(state, "backbone."))
        self.tokenizer.save(folder)
        rest = {name: value for name, value in state.items() if not name.startswith("backbone.")}
        if rest:
            save_weights(folder / "tower.safetensors", rest)
        write_json(folder / TOWER_FILE, {"format": 1, "side": "text", **self.spec.model_dump(mode="json")})

    def _encode(
        self, ids: list[list[int]], prompt: str | None, token_budget: int | None, progress: ProgressSink | None
    ) -> np.ndarray:
        result_NH = np.zeros((len(ids), self.width), dtype=np.float32)
        lengths = [self.max_length if self.spec.fixed_length else len(row) for row in ids]
        was_training, device, done = self.training, self.device, 0
        on_cpu = device.type == "cpu"
        if on_cpu:
            keep_pages()
        self.eval()
        try:
            with torch.inference_mode():
                for rows in packed_batches(lengths, token_budget or (2048 if on_cpu else 8192)):
                    batch = self.collate([ids[row] for row in rows], prompt)
                    tokens = {key: value.to(device) for key, value in batch.items()}
                    result_NH[rows] = self(tokens).float().cpu().numpy()
                    done += len(rows)
                    if progress:
                        progress(done, len(ids))
        finally:
            self.train(was_training)
        return result_NH

    def _prompt(self, prompt: str | None) -> Prompt:
        text = self.prompt_text(prompt)
        if text not in self._prompts:
            self._prompts[text] = build_prompt(text, self.tokenizer, self.spec)
        return self._prompts[text]

    @property
    def _unit_length(self) -> bool:
        return bool(self.spec.after) and self.spec.after[-1]["type"] == "normalize"

    def _features(self, data: Sequence[str] | np.ndarray, what: str) -> np.ndarray:
        """The features to fit on: given, or of the texts given."""
        self._without_head(what)
        if isinstance(data, str):
            raise TypeError(f"{what} takes a list of texts, or features")
        features_NH = data if isinstance(data, np.ndarray) else self.encode(data)
        if features_NH.ndim != 2 or features_NH.shape[1] != self.width:
            raise ConfigError(f"{what}: expected features of width {self.width}, got shape {features_NH.shape}")
        return features_NH

    def _without_head(self, what: str) -> None:
        if self.has_head:
            raise ModelError(f"{what} is for a model of texts alone: this one has heads on its text features")

    def _append_linear(self, mean_H: np.ndarray, matrix_KH: np.ndarray) -> None:
        """Append y = W (x - μ)."""
        out, inside = matrix_KH.shape
        layer = {"type": "dense", "in": inside, "out": out, "bias": True, "activation": "Identity", "residual": False}
        added: Any = self._append(layer)[0]
        with torch.no_grad():
            added.linear.weight.copy_(torch.from_numpy(matrix_KH))
            added.linear.bias.copy_(torch.from_numpy(-matrix_KH @ mean_H))

    def _append(self, *layers: dict[str, Any]) -> list[torch.nn.Module]:
        built = list(build_after(layers).to(self.device))
        for module in built:
            module.requires_grad_(self.train_mode == "full").train(self.training)
            self.after.append(module)
        self.spec = self.spec.model_copy(update={"after": (*self.spec.after, *layers)})
        self.width = self._probe_width()
        return built

    def _probe_width(self) -> int:
        width = self.pooling.width
        for layer in self.after:
            width = getattr(layer, "out_features", width)
        return width


def _below(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
