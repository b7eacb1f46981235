"""Loading models of the transformers library: quietly, in float32, and never with weights left at random."""

import contextlib
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError

from dalr.encoders.tower import MORE_THAN_TENSORS
from dalr.errors import ModelError, one_line

PAIRS = ("clip", "siglip")  # architectures with a text half and an image half
HALVES = {  # a half on its own: its side and its class
    "clip_text_model": ("text", "CLIPTextModel"),
    "clip_vision_model": ("image", "CLIPVisionModel"),
    "siglip_text_model": ("text", "SiglipTextModel"),
    "siglip_vision_model": ("image", "SiglipVisionModel"),
}
KERNELS = ("sdpa", "eager")  # of attention, that every machine has and that follow a mask over pairs of tokens
# Keys of a config that say where a model is from or how it trains, not what it computes.
VOLATILE = (
    "_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache",
    "gradient_checkpointing", "_attn_implementation", "_attn_implementation_autoset", "_attn_implementation_internal",
    "_experts_implementation", "id2label", "label2id", "problem_type", "finetuning_task", "tokenizer_class",
    "output_hidden_states", "output_attentions", "return_dict",
)  # fmt: skip


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no load reports of transformers inside the block: a library does not print."""
    from transformers.utils import logging as reports

    level, bars = reports.get_verbosity(), reports.is_progress_bar_enabled()
    reports.set_verbosity_error()
    reports.disable_progress_bar()
    try:
        yield
    finally:
        reports.set_verbosity(level)
        if bars:
            reports.enable_progress_bar()


def load_config(folder: Path) -> Any:
    """The folder's transformers config; ModelError when this version of transformers does not know it."""
    from transformers import AutoConfig

    try:
        with quiet():
            config = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{folder}: not a model that transformers can read ({one_line(error)})") from None
    if config._attn_implementation not in (None, *KERNELS):
        # That of the machine it was saved on; what it computes is the same with any.
        config._attn_implementation = KERNELS[0]
    return config


def side_of(config: Any) -> Literal["text", "image", "both"]:
    """Which towers a transformers config can give."""
    if hasattr(config, "text_config") and hasattr(config, "vision_config"):
        return "both"
    if config.model_type in HALVES:
        return "text" if HALVES[config.model_type][0] == "text" else "image"
    if hasattr(config, "image_size") or hasattr(config, "num_channels"):
        return "image"  # also where there is a vocabulary: BEiT's is of visual tokens
    return "text" if getattr(config, "vocab_size", None) else "image"


def load_model(folder: Path, config: Any, side: Literal["text", "image"], pretrained: bool = True) -> Any:
    """The transformers model of one side, in float32 and eval mode. With `pretrained=False` its weights are fresh.

    From a CLIP or SigLIP pair the half asked for is taken, with its projection into the shared space.
    Raises ModelError when the folder has no such side, or when its weights do not cover the architecture.
    """
    found = side_of(config)
    if found == "both":
        if config.model_type not in PAIRS:
            raise ModelError(
                f"{folder}: an image–text model of type '{config.model_type}' cannot be taken apart; "
                f"expected one of: {', '.join(PAIRS)}"
            )
        return _half(_load(_auto("AutoModel"), folder, config, pretrained), config.model_type, side)
    if found != side:
        other = "a text" if found == "text" else "an image"
        raise ModelError(f"{folder}: '{config.model_type}' is {other} encoder; it cannot be the {side} tower")
    if config.model_type in HALVES:
        architecture = (getattr(config, "architectures", None) or [""])[0]
        kind = HALVES[config.model_type][1] + ("WithProjection" if architecture.endswith("WithProjection") else "")
        return _load(_auto(kind), folder, config, pretrained)
    if side == "text":
        from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES as ENCODERS

        if ENCODERS.get(config.model_type, "").endswith("EncoderModel"):  # T5 and its kin, without their decoder
            return _load(_auto(ENCODERS[config.model_type]), folder, config, pretrained)
    return _load(_auto("AutoModel"), folder, config, pretrained)


def describe_config(config: Any) -> dict[str, Any]:
    """What of a config decides the output, as JSON values that survive save and load."""
    described: dict[str, Any] = _stable(config.to_dict())
    return described


def load_with_head(folder: Path, config: Any) -> tuple[Any, list[str]]:
    """The folder's model under its language-model head, in float32, and the tensors of the head that it lacks.

    An encoder gets the head of masked language modelling, a decoder that of causal. What is lacking is drawn from
    torch's generator. Raises ModelError for an architecture without such a head, or when the body is incomplete.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES as MASKED

    name = MASKED.get(config.model_type) or CAUSAL.get(config.model_type)
    if name is None:
        raise ModelError(
            f"{folder}: transformers has no language-model head for the architecture '{config.model_type}'"
        )
    model, missing = read_model(_auto(name), folder, config)
    tied = {f"{path}.weight" for path, part in model.named_modules() if part is model.get_output_embeddings()}
    body = f"{model.base_model_prefix}."
    _check_whole(folder, [name for name in missing if name.startswith(body)])
    return model, [name for name in missing if not name.startswith(body) and name not in tied]


def read_model(kind: Any, folder: Path, config: Any) -> tuple[Any, list[str]]:
    """The folder's weights in a class of transformers, in float32, and the tensors that the file lacks.

    Raises ModelError where they cannot be read into that class.
    """
    import torch

    with quiet():
        try:
            model, report = kind.from_pretrained(folder, config=config, dtype=torch.float32, output_loading_info=True)
        except pickle.UnpicklingError:
            raise ModelError(f"{folder}: its weights file {MORE_THAN_TENSORS}") from None
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise ModelError(f"{folder}: its weights cannot be loaded ({one_line(error)})") from None
    return model, sorted(report["missing_keys"])


def _load(kind: Any, folder: Path, config: Any, pretrained: bool) -> Any:
    import torch

    if not pretrained:
        with quiet():
            config.dtype = torch.float32
            build = getattr(kind, "from_config", kind)
            return build(config).eval()
    model, missing = read_model(kind, folder, config)
    _check_whole(folder, missing)
    if any("pooler" in name for name in missing):
        model.pooler = None
    return model.eval()


def _check_whole(folder: Path, missing: list[str]) -> None:
    lacking = [name for name in missing if "pooler" not in name]
    if lacking:
        raise ModelError(
            f"{folder}: the weights lack {len(lacking)} of the model's tensors, such as '{lacking[0]}'; "
            "expected the whole encoder"
        )


def _half(pair: Any, kind: str, side: str) -> Any:
    """One half of a loaded pair. CLIP keeps the projection's width in the pair's config only: it is carried over."""
    if kind == "siglip":
        return pair.text_model if side == "text" else pair.vision_model
    import transformers

    config = pair.config.text_config if side == "text" else pair.config.vision_config
    config.projection_dim = pair.config.projection_dim
    if side == "text":
        half = transformers.CLIPTextModelWithProjection(config)
        half.text_model, half.text_projection = pair.text_model, pair.text_projection
    else:
        half = transformers.CLIPVisionModelWithProjection(config)
        half.vision_model, half.visual_projection = pair.vision_model, pair.visual_projection
    half.config.architectures = [type(half).__name__]
    return half.eval()


def _auto(name: str) -> Any:
    import transformers

    return getattr(transformers, name)


def _stable(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _stable(item) for key, item in value.items() if key not in VOLATILE and item is not None}
    if isinstance(value, list | tuple):
        return [_stable(item) for item in value]
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)
