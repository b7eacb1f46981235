"""The text tower: texts → token ids → states → one vector, whatever library the network is from.

B texts in a batch, N texts in all, L tokens, H width of the result.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from dalr.config import Config
from dalr.encoders.batching import packed_batches
from dalr.encoders.fast_cpu import keep_pages
from dalr.encoders.lora import LoraConfig, merged_state
from dalr.encoders.names import TOWER_FILE, EncoderName, read_json, resolve_name
from dalr.encoders.new_text import NewTextConfig, new_text
from dalr.encoders.pooling import Pooling, PoolingMode
from dalr.encoders.sentence_folder import build_after, load_sentence_folder
from dalr.encoders.text_parts import TextParts, TextSpec
from dalr.encoders.tower import Tower, Train, load_weights, save_weights, set_training
from dalr.encoders.transformers_text import load_transformers_text, position_limit
from dalr.errors import ConfigError, ModelError
from dalr.files import write_json

logger = logging.getLogger(__name__)
Progress = Callable[[int, int], None]


class TextConfig(Config):
    """Which text encoder, and how it is used and trained.

    `pooling`, `max_length` and `prompt` at None are what the encoder's own folder says (else mean, the longest
    that the architecture takes, no prompt). `prompt` is the name of one of the folder's prompts, or the text to
    put before every input. Several poolings are concatenated. `pretrained: false` keeps the architecture and draws
    fresh weights. `lr_decay` < 1 lowers the learning rate from layer to layer towards the input. `dropout` replaces
    every dropout rate.
    """

    name: str
    train: Train = "frozen"
    pooling: PoolingMode | list[PoolingMode] | None = None
    max_length: int | None = Field(default=None, ge=2)
    prompt: str | None = None
    pretrained: bool = True
    lr_decay: float = Field(default=1.0, gt=0, le=1)
    lora: LoraConfig = LoraConfig()
    dropout: float | None = Field(default=None, ge=0, lt=1)
    new: NewTextConfig = NewTextConfig()


class TextEncoder(Tower):
    """A text tower. `width` is H, `max_length` the number of tokens after which a text is cut.

    `pad_to_multiple_of` rounds the length of a batch up, so that there are few different ones (for compiled code).
    Training tokenises once (`tokenize`), pads per batch (`collate`) and calls the module; `encode` does all
    three without gradients. Results are not normalised, unless the encoder's folder says so.
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
        self._cut_reported = False
        self._prompt_tokens = self._count_prompt_tokens()

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, prompt and special tokens included, cut to `max_length`.

        The first call that cuts anything says how many texts and the longest, by logging; later ones do not.
        An empty list gives an empty list; an empty text gives its special tokens.
        """
        ids, lengths = self.tokenizer.encode(self._inputs(texts), self.max_length)
        cut = [length for length in lengths if length > self.max_length]
        if cut and not self._cut_reported:
            self._cut_reported = True
            logger.warning(
                "%d of %d texts are longer than max_length = %d tokens and were cut (the longest has %d)",
                len(cut), len(lengths), self.max_length, max(cut),
            )  # fmt: skip
        return ids

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has before any cut, prompt and special tokens included."""
        return self.tokenizer.encode(self._inputs(texts), self.max_length)[1]

    def collate(self, ids: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """Rows of `tokenize` → `input_ids` and `attention_mask`, both (B, L) int64, padded on the right."""
        longest = self.max_length if self.spec.fixed_length else max((len(row) for row in ids), default=0)
        longest = min(-(-longest // self.pad_to_multiple_of) * self.pad_to_multiple_of, self.max_length)
        input_ids_BL = torch.full((len(ids), longest), self.tokenizer.pad_id, dtype=torch.int64)
        attention_mask_BL = torch.zeros((len(ids), longest), dtype=torch.int64)
        for row, tokens in enumerate(ids):
            input_ids_BL[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.int64)
            attention_mask_BL[row, : len(tokens)] = 1
        return {"input_ids": input_ids_BL, "attention_mask": attention_mask_BL}

    def forward(self, tokens: dict[str, Tensor]) -> Tensor:
        """What `collate` returned, on the tower's device → h_BH."""
        states = self.backbone.states(tokens, self.pooling.needs_lower, self.pooling.needs_own)
        mask_BL = tokens["attention_mask"]
        if self._prompt_tokens:
            mask_BL = mask_BL.clone()
            mask_BL[:, : self._prompt_tokens] = 0
        return self.after(self.pooling(states, mask_BL))  # type: ignore[no-any-return]

    def encode(
        self, texts: Sequence[str], *, token_budget: int | None = None, progress: Progress | None = None
    ) -> np.ndarray:
        """(N, H) float32 features in input order, in eval mode and without gradients; no texts give (0, H).

        Texts are sorted by length and packed so that rows × longest ≤ `token_budget` in every batch (None: 2,048
        on a CPU, where small batches stay in the cache, else 8,192).
        `progress(done, total)` is called after each batch.
        """
        ids = self.tokenize(texts)
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
                    tokens = {key: value.to(device) for key, value in self.collate([ids[row] for row in rows]).items()}
                    result_NH[rows] = self(tokens).float().cpu().numpy()
                    done += len(rows)
                    if progress:
                        progress(done, len(ids))
        finally:
            self.train(was_training)
        return result_NH

    def description(self) -> dict[str, Any]:
        """Everything but the weights that decides the features, as JSON values."""
        spec = self.spec.model_dump(mode="json", exclude={"architecture"})
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

    def _inputs(self, texts: Sequence[str]) -> list[str]:
        texts = [self.spec.prompt + text for text in texts]
        return [text.lower() for text in texts] if self.spec.lowercase else texts

    def _count_prompt_tokens(self) -> int:
        """How many leading tokens pooling leaves out; a closing special token is not one of them."""
        if self.spec.include_prompt or not self.spec.prompt:
            return 0
        alone, extended = self.tokenizer.encode([self.spec.prompt, f"{self.spec.prompt} a"], self.max_length)[0]
        return next((k for k, (a, b) in enumerate(zip(alone, extended, strict=False)) if a != b), len(alone))

    def _probe_width(self) -> int:
        width = self.pooling.width
        for layer in self.after:
            width = getattr(layer, "out_features", width)
        return width


def build_text_encoder(config: TextConfig, corpus: Iterable[str] | None = None) -> TextEncoder:
    """The tower that `config` describes. `corpus` is what a `new` encoder's tokenizer is built from.

    Raises ModelError for a name that cannot be loaded as a text encoder, ConfigError for options that do not fit
    it, MissingExtraError for LoRA without peft.
    """
    parts = new_text(config.new, corpus) if config.name == "new" else _load(resolve_name(config.name), config)
    spec = parts.spec.model_dump()
    if config.pooling is not None:
        spec["pooling"] = (config.pooling,) if isinstance(config.pooling, str) else tuple(config.pooling)
    if config.prompt is not None:
        spec["prompt"] = parts.prompts.get(config.prompt, config.prompt)
    if config.max_length is not None:
        limit = _limit(parts)
        if limit is not None and config.max_length > limit:
            raise ConfigError(f"text.max_length: {config.max_length} is more than the {limit} tokens of {config.name}")
        spec["max_length"] = config.max_length
    parts.spec = TextSpec(**spec)
    if "attention" in parts.spec.pooling and parts.attention_query is None and config.train == "frozen":
        raise ConfigError(
            "text.pooling: attention is learned, and a frozen tower learns nothing; use mean, or train it"
        )
    encoder = TextEncoder(parts)
    set_training(encoder, encoder.backbone, config.train, config.lora, lambda: _probe(encoder))
    return encoder


def load_text_encoder(
    folder: str | Path,
    train: Train = "frozen",
    lora: LoraConfig = LoraConfig(),  # noqa: B008 - frozen
) -> TextEncoder:
    """A tower that `TextEncoder.save` wrote. Raises ModelError when the folder is not one."""
    return build_text_encoder(TextConfig(name=str(Path(folder).resolve()), train=train, lora=lora))


def _load(name: EncoderName, config: TextConfig) -> TextParts:
    where = name.folder or name.architecture
    if name.library == "dual":
        assert name.folder is not None
        name = EncoderName("tower", name.folder / "text")
    if name.library == "tower":
        assert name.folder is not None
        return _load_tower(name.folder, config)
    if name.library == "transformers":
        assert name.folder is not None
        return load_transformers_text(name.folder, config.pretrained, config.dropout)
    if name.library == "sentence_transformers":
        assert name.folder is not None
        return load_sentence_folder(name.folder, config.pretrained, config.dropout)
    if config.dropout is not None:
        raise ConfigError(f"text.dropout: the towers of {name.library} have no dropout; leave it out")
    if name.library == "open_clip":
        from dalr.encoders.open_clip_towers import load_open_clip, open_clip_text

        return open_clip_text(name, *load_open_clip(name, config.pretrained))
    raise ModelError(f"{where}: {name.library} has no text encoders; expected hf:, open_clip:, a folder, or new")


def _load_tower(folder: Path, config: TextConfig) -> TextParts:
    saved = read_json(folder / TOWER_FILE)
    if saved.pop("side", None) != "text" or saved.pop("format", None) != 1:
        raise ModelError(f"{folder}: not the folder of a text tower of this version of dalr")
    spec = TextSpec(**saved)
    if spec.library == "open_clip":
        from dalr.encoders.open_clip_towers import load_saved_open_clip_text

        parts = load_saved_open_clip_text(folder, spec)
    else:
        parts = load_transformers_text(folder, config.pretrained, config.dropout)
    parts.spec = spec
    parts.after = build_after(spec.after)
    if (folder / "tower.safetensors").is_file():
        rest = nn.Module()
        rest.after = parts.after
        rest.pooling = Pooling(spec.pooling, parts.backbone.width, parts.backbone.own_width)
        load_weights(rest, folder / "tower.safetensors")
        if rest.pooling.query_H is not None:
            parts.attention_query = rest.pooling.query_H.detach()
    return parts


def _limit(parts: TextParts) -> int | None:
    model = getattr(parts.backbone, "model", None)
    return position_limit(model.config) if model is not None else parts.spec.max_length


def _probe(encoder: TextEncoder) -> Tensor:
    tokens = encoder.collate(encoder.tokenizer.encode(["a b"], encoder.max_length)[0])
    return encoder({key: value.to(encoder.device) for key, value in tokens.items()})  # type: ignore[no-any-return]


def _below(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
