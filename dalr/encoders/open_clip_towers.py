"""The two towers of an open_clip model, each on its own, with its own tokenizer or preprocessing."""

import copy
import json
import logging
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dalr.encoders.image_parts import ImageNetwork, ImageParts, ImageSpec
from dalr.encoders.names import EncoderName, read_json
from dalr.encoders.pooling import OWN, TokenStates
from dalr.encoders.preprocessing import build_transform
from dalr.encoders.text_parts import TextBackbone, TextParts, TextSpec
from dalr.encoders.tokens import OpenClipHFTokenizer, OpenClipTokenizer, Tokenizer
from dalr.encoders.tower import load_weights, save_weights
from dalr.encoders.transformers_models import quiet
from dalr.errors import ModelError, one_line


class OpenClipText(TextBackbone):
    """An open_clip text transformer; its own pooling ends in the shared space of its model."""

    def __init__(self, model: Any, architecture: dict[str, Any]) -> None:
        super().__init__()
        self.model, self.architecture = model, architecture
        self.is_hf = hasattr(model, "transformer") and hasattr(model, "proj")
        self.width = model.transformer.config.hidden_size if self.is_hf else model.width
        self.own_width = int(architecture["embed_dim"])
        # Rows need only be padded to the batch's longest where the pooled token cannot look at what follows it.
        self.padding_is_unseen = (
            not self.is_hf
            and model.attn_mask is not None
            and model.cls_emb is None
            and model.pool_type in ("argmax", "eos")
        )

    def states(self, tokens: dict[str, Tensor], lower: bool, own: bool) -> TokenStates:
        ids_BL = tokens["input_ids"]
        if self.is_hf:
            return self._states_by_transformers(tokens, lower, own)
        if not self.padding_is_unseen and own:
            output = self.model(ids_BL)
            pooled_BD = output[0] if isinstance(output, tuple) else output
            return TokenStates(pooled_BD.unsqueeze(1), None, pooled_BD)
        x_BLH, mask = self.model._embeds(ids_BL)
        if mask is not None and mask.ndim == 2:
            mask = mask[: x_BLH.shape[1], : x_BLH.shape[1]]
        last, embedded_BLH = self.model.transformer.layers - 1, x_BLH
        x_BLH, (first_BLH, *_) = self.model.transformer.forward_intermediates(x_BLH, attn_mask=mask, indices=[0, last])
        x_BLH = self.model.ln_final(x_BLH)
        pooled = self._pool(x_BLH, ids_BL) if own else None
        if self.model.cls_emb is not None:
            x_BLH, first_BLH, embedded_BLH = x_BLH[:, :-1], first_BLH[:, :-1], embedded_BLH[:, :-1]
        return TokenStates(x_BLH, first_BLH, pooled, embedded_BLH) if lower else TokenStates(x_BLH, None, pooled)

    def _pool(self, x_BLH: Tensor, ids_BL: Tensor) -> Tensor:
        """open_clip's own pooling for towers whose pooled token does not look at the padding."""
        from open_clip.transformer import text_global_pool

        model = self.model
        pooled_BH = text_global_pool(x_BLH, ids_BL, pool_type=model.pool_type, eos_token_id=model.eos_id)
        if model.text_projection is None:
            return pooled_BH  # type: ignore[no-any-return]
        linear = isinstance(model.text_projection, nn.Linear)
        return model.text_projection(pooled_BH) if linear else pooled_BH @ model.text_projection  # type: ignore[no-any-return]

    def _states_by_transformers(self, tokens: dict[str, Tensor], lower: bool, own: bool) -> TokenStates:
        if own:
            output = self.model(tokens["input_ids"])
            pooled_BD = output[0] if isinstance(output, tuple) else output
            return TokenStates(pooled_BD.unsqueeze(1), None, pooled_BD)
        output = self.model.transformer(**tokens, output_hidden_states=lower)
        embedded, first = output.hidden_states[:2] if lower else (None, None)
        return TokenStates(output.last_hidden_state, first, None, embedded)

    def describe(self) -> dict[str, Any]:
        return {"open_clip": _json(self.architecture)}

    def save(self, folder: Path, state: dict[str, Tensor]) -> None:
        save_weights(folder / "model.safetensors", state)
        if self.is_hf:
            with quiet():
                self.model.transformer.config.save_pretrained(folder)


class OpenClipImage(ImageNetwork):
    """The visual tower of an open_clip model, projection included."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        output = self.model(pixels_BCHW)
        return output[0] if isinstance(output, tuple) else output  # type: ignore[no-any-return]


def load_open_clip(
    name: EncoderName, pretrained: bool = True, image_size: int | None = None
) -> tuple[Any, dict[str, Any]]:
    """The whole open_clip model and its config. Raises ModelError when open_clip cannot build or load it."""
    import open_clip

    source = f"local-dir:{name.folder}" if name.folder is not None else name.architecture
    if pretrained and name.folder is None and name.weights is None:
        known = [tag for arch, tag in open_clip.list_pretrained() if arch == name.architecture]
        raise ModelError(
            f"open_clip:{name.architecture}: name the weights after a slash, or set pretrained: false; "
            f"known are: {', '.join(known) or 'none'}"
        )
    root = logging.getLogger()
    level = root.level
    try:
        root.setLevel(logging.ERROR)  # open_clip reports every step to the root logger
        with quiet():
            model = open_clip.create_model(
                source,
                pretrained=name.weights if pretrained else None,
                load_weights=pretrained,
                pretrained_text=False,
                force_custom_text=True,
                force_image_size=image_size,
            )
    except Exception as error:  # open_clip raises RuntimeError, ValueError, and those of its loaders
        reason = one_line(error)
        raise ModelError(
            f"open_clip:{name.folder or name.architecture}: cannot be built or loaded ({reason})"
        ) from None
    finally:
        root.setLevel(level)
    if name.folder is not None:
        config = read_json(name.folder / "open_clip_config.json")["model_cfg"]
    else:
        config = open_clip.get_model_config(name.architecture)
    return model.eval(), copy.deepcopy(config)


def open_clip_text(name: EncoderName, model: Any, config: dict[str, Any]) -> TextParts:
    """The text tower of a loaded model as text parts, its own pooling first."""
    import open_clip

    source = f"local-dir:{name.folder}" if name.folder is not None else name.architecture
    architecture = {
        "embed_dim": config["embed_dim"],
        "quick_gelu": bool(config.get("quick_gelu", False)),
        "text_cfg": _json(config["text_cfg"]),
    }
    try:
        with quiet():
            raw = open_clip.get_tokenizer(source)
    except Exception as error:
        reason = one_line(error)
        raise ModelError(f"open_clip:{name.folder or name.architecture}: no tokenizer ({reason})") from None
    tokenizer, architecture["tokenizer"] = _tokenizer(raw)
    backbone = OpenClipText(model.text, architecture)
    spec = TextSpec(
        library="open_clip",
        pooling=(OWN,),
        max_length=int(raw.context_length),
        fixed_length=not backbone.padding_is_unseen,
        architecture=architecture,
    )
    return TextParts(backbone, tokenizer, spec)


def open_clip_image(model: Any, config: dict[str, Any], image_size: int | None = None) -> ImageParts:
    """The visual tower of a loaded model as image parts."""
    vision = _json(config["vision_cfg"])
    if image_size is not None:
        vision["image_size"] = image_size
    settings = _json(model.visual.preprocess_cfg)
    architecture = {
        "embed_dim": config["embed_dim"],
        "quick_gelu": bool(config.get("quick_gelu", False)),
        "vision_cfg": {**vision, "timm_model_pretrained": False},
    }
    spec = ImageSpec(
        library="open_clip", architecture=architecture, preprocessing=settings, width=int(config["embed_dim"])
    )
    return ImageParts(OpenClipImage(model.visual.eval()), spec, build_transform("open_clip", settings))


def load_saved_open_clip_text(folder: Path, spec: TextSpec) -> TextParts:
    """A text tower that `OpenClipText.save` wrote; nothing is fetched."""
    from open_clip.model import CLIPTextCfg, _build_text_tower
    from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

    described = spec.architecture or {}
    text = dict(described["text_cfg"])
    if text.get("hf_model_name"):
        text.update(hf_model_name=str(folder), hf_model_pretrained=False)
    with quiet():
        model = _build_text_tower(described["embed_dim"], CLIPTextCfg(**text), described["quick_gelu"]).eval()
    backbone = OpenClipText(model, described)
    load_weights(backbone, folder / "model.safetensors")
    settings = dict(described["tokenizer"])
    if settings.pop("kind") == "simple":
        raw = SimpleTokenizer(context_length=spec.max_length, **settings)
    else:
        raw = HFTokenizer(str(folder), context_length=spec.max_length, **settings)
    return TextParts(backbone, _tokenizer(raw)[0], spec)


def load_saved_open_clip_image(folder: Path, spec: ImageSpec) -> ImageParts:
    """An image tower of open_clip that dalr saved."""
    from open_clip.model import CLIPVisionCfg, _build_vision_tower

    described = spec.architecture
    vision = CLIPVisionCfg(**described["vision_cfg"])
    network = OpenClipImage(_build_vision_tower(described["embed_dim"], vision, described["quick_gelu"]).eval())
    load_weights(network, folder / "model.safetensors")
    return ImageParts(network, spec, build_transform("open_clip", spec.preprocessing))


def _tokenizer(raw: Any) -> tuple[Tokenizer, dict[str, Any]]:
    """open_clip's tokenizer behind dalr's face, and the settings that rebuild it."""
    from open_clip.tokenizer import SimpleTokenizer

    clean = raw.clean_fn.__name__.removeprefix("_clean_") if hasattr(raw, "clean_fn") else "canonicalize"
    if isinstance(raw, SimpleTokenizer):
        return OpenClipTokenizer(raw), {"kind": "simple", "clean": clean}
    settings = {
        "kind": "transformers",
        "clean": clean,
        "strip_sep_token": bool(getattr(raw, "strip_sep_token", False)),
        "tokenizer_mode": getattr(raw, "tokenizer_mode", "") or "",
    }
    return OpenClipHFTokenizer(raw, settings), settings


def _json(value: Any) -> dict[str, Any]:
    return json.loads(json.dumps(value, default=str))  # type: ignore[no-any-return]
