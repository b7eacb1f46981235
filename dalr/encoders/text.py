"""Which text tower: its config, and building it from any library's folder, from a saved tower, or anew."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator
from torch import Tensor, nn

from dalr.config import Config
from dalr.encoders.attention import make_bidirectional
from dalr.encoders.dropout import DropoutConfig, apply_dropout
from dalr.encoders.lora import LoraConfig
from dalr.encoders.names import TOWER_FILE, EncoderName, read_json, resolve_name
from dalr.encoders.new_text import NewTextConfig, new_text
from dalr.encoders.pooling import Pooling, PoolingMode
from dalr.encoders.prompts import build_prompt, find_prompt
from dalr.encoders.sentence_folder import build_after, load_sentence_folder
from dalr.encoders.text_encoder import TextEncoder
from dalr.encoders.text_parts import TextParts, TextSpec
from dalr.encoders.tower import Train, load_weights, set_training
from dalr.encoders.transformers_text import load_transformers_text, position_limit
from dalr.errors import ConfigError, ModelError


class TextConfig(Config):
    """Which text encoder, and how it is used and trained.

    What is None is as the encoder's own folder says (else mean pooling, the longest `max_length` that the
    architecture takes, no prompt, `cut`, `own`). Several poolings are concatenated. `prompt` is put before every
    input, or is a template with `{text}` and perhaps `{mask}` (see `prompts.py`), or the name of one of `prompts`,
    which are added to the folder's own. `long_texts: chunk` embeds a text longer than `max_length` in pieces that
    share `chunk_overlap` tokens, and averages them; training cuts. `attention: bidirectional` lets the tokens of a
    decoder see what follows them. `truncate_dim` keeps the first numbers of an embedding. `pretrained: false` keeps
    the architecture and draws fresh weights. `lr_decay` < 1 lowers the learning rate from layer to layer towards the
    input. `dropout` replaces every dropout rate.
    """

    name: str
    train: Train = "frozen"
    pooling: PoolingMode | list[PoolingMode] | None = None
    max_length: int | None = Field(default=None, ge=2)
    prompt: str | None = None
    prompts: dict[str, str] = Field(default_factory=dict)
    long_texts: Literal["cut", "chunk"] | None = None
    chunk_overlap: int | None = Field(default=None, ge=0)
    attention: Literal["own", "bidirectional"] | None = None
    truncate_dim: int | None = Field(default=None, ge=1)
    pretrained: bool = True
    lr_decay: float = Field(default=1.0, gt=0, le=1)
    lora: LoraConfig = LoraConfig()
    dropout: float | None = Field(default=None, ge=0, lt=1)
    dropout_policy: DropoutConfig = DropoutConfig()
    new: NewTextConfig = NewTextConfig()

    @field_validator("prompt", mode="before")
    @classmethod
    def _is_text(cls, value: object) -> object:
        if isinstance(value, dict):  # what YAML makes of a colon and of braces
            raise ValueError("expected a text; put one with a colon or braces into quotes, such as '\"query: \"'")
        return value


def build_text_encoder(config: TextConfig, corpus: Iterable[str] | None = None) -> TextEncoder:
    """The tower that `config` describes. `corpus` is what a `new` encoder's tokenizer is built from.

    Raises ModelError for a name that cannot be loaded as a text encoder, ConfigError for options that do not fit
    it, MissingExtraError for LoRA without peft.
    """
    parts = new_text(_new(config), corpus) if config.name == "new" else _load(resolve_name(config.name), config)
    spec = parts.spec.model_dump()
    if config.pooling is not None:
        spec["pooling"] = (config.pooling,) if isinstance(config.pooling, str) else tuple(config.pooling)
    spec["prompts"] = {**parts.spec.prompts, **config.prompts}
    spec["prompt"] = find_prompt(config.prompt, spec["prompts"], parts.spec.prompt, "text.prompt")
    for field in ("long_texts", "chunk_overlap", "attention"):
        if getattr(config, field) is not None:
            spec[field] = getattr(config, field)
    if config.max_length is not None:
        limit = _limit(parts)
        if limit is not None and config.max_length > limit:
            raise ConfigError(f"text.max_length: {config.max_length} is more than the {limit} tokens of {config.name}")
        spec["max_length"] = config.max_length
    if spec["attention"] == "bidirectional" and not make_bidirectional(parts.backbone, config.name):
        spec["attention"] = "own"
    parts.spec = _checked(TextSpec(**spec), parts, config)
    encoder = TextEncoder(parts)
    if config.truncate_dim is not None:
        encoder.truncate(config.truncate_dim)
    set_training(encoder, encoder.backbone, config.train, config.lora, lambda: _probe(encoder))
    if config.train != "frozen":
        encoder.moving_dropout = apply_dropout(encoder.backbone, config.dropout_policy)
    return encoder


def load_text_encoder(
    folder: str | Path,
    train: Train = "frozen",
    lora: LoraConfig = LoraConfig(),  # noqa: B008 - frozen
) -> TextEncoder:
    """A tower that `TextEncoder.save` wrote. Raises ModelError when the folder is not one."""
    return build_text_encoder(TextConfig(name=str(Path(folder).resolve()), train=train, lora=lora))


def _new(config: TextConfig) -> NewTextConfig:
    return config.new if config.dropout is None else config.new.model_copy(update={"dropout": config.dropout})


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


def _checked(spec: TextSpec, parts: TextParts, config: TextConfig) -> TextSpec:
    """The spec, if its options fit each other. The folder's own named prompts are looked at when they are used."""
    if "attention" in spec.pooling and parts.attention_query is None and config.train == "frozen":
        raise ConfigError(
            "text.pooling: attention is learned, and a frozen tower learns nothing; use mean, or train it"
        )
    if "mask" in spec.pooling and len(spec.pooling) > 1:
        raise ConfigError("text.pooling: mask stands alone, since it takes one token; leave the others out")
    prompts = {"text.prompt": spec.prompt, **{f"text.prompts.{name}": text for name, text in config.prompts.items()}}
    for key, text in prompts.items():
        try:
            room = build_prompt(text, parts.tokenizer, spec).room
        except ConfigError as error:
            raise ConfigError(f"{key}: {error}") from None
        if spec.long_texts == "chunk" and room <= spec.chunk_overlap:
            raise ConfigError(
                f"text.chunk_overlap: {spec.chunk_overlap} is not less than the {max(room, 0)} tokens of a text "
                f"that max_length = {spec.max_length} leaves beside {key}"
            )
    return spec


def _limit(parts: TextParts) -> int | None:
    model = getattr(parts.backbone, "model", None)
    return position_limit(model.config) if model is not None else parts.spec.max_length


def _probe(encoder: TextEncoder) -> Tensor:
    tokens = encoder.collate(encoder.tokenize(["a b"]))
    return encoder({key: value.to(encoder.device) for key, value in tokens.items()})  # type: ignore[no-any-return]
