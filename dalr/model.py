"""`DualEncoder`: a text tower and an image tower with heads into one shared space.

Shapes: N rows, B rows of a batch, H text width, V image-feature width, D shared width. An embedding lives in the
`sentence` space (pooled text) or in the `shared` space (text and image).
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import numpy as np
import torch
from PIL import Image
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from dalr.config import Config, parse_config
from dalr.encoders.heads import Head, HeadConfig
from dalr.encoders.image import ImageConfig, ImageEncoder, as_picture, build_image_encoder, load_image_encoder
from dalr.encoders.names import MODEL_FILE, resolve_name
from dalr.encoders.parts_on_disk import read_record, write_parts
from dalr.encoders.sides import encoder_sides
from dalr.encoders.text import TextConfig, build_text_encoder, load_text_encoder
from dalr.encoders.text_encoder import TextEncoder
from dalr.encoders.tower import Train, load_weights, save_weights
from dalr.errors import ConfigError, ModelError
from dalr.files import hash_json, hash_tensors
from dalr.progress import ProgressSink

Space = Literal["sentence", "shared"]
Side = Literal["text", "image"]

FORMAT, VERSION = "dalr-dual-encoder", 1
HEADS_FILE = "heads.safetensors"
PROJECT_ROWS = 8192


class Table(Protocol):
    """Rows by number: an array, or rows of a feature store that are read when they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: Any, /) -> np.ndarray: ...


class ModelConfig(Config):
    """Towers and heads. Heads exist where both towers do; `dim` is D, the width of the shared space.

    `heads` is the folder of a saved model whose heads training starts from, instead of fresh ones; a tower starts
    from a saved model where `text.name` or `image.name` is its folder.
    """

    text: TextConfig | None = None
    image: ImageConfig | None = None
    dim: int = Field(default=256, ge=1)
    text_head: HeadConfig = HeadConfig()
    image_head: HeadConfig = HeadConfig()
    heads: str | None = None

    @model_validator(mode="after")
    def _has_a_tower(self) -> Self:
        if self.text is None and self.image is None:
            raise ValueError("needs a text tower, an image tower or both: set model.text.name or model.image.name")
        if self.text is not None and self.text.truncate_dim is not None and self.image is not None:
            raise ValueError(
                "text.truncate_dim is for a model of texts alone; with an image tower set a smaller dim instead"
            )
        return self


class DualEncoder(nn.Module):
    """A text tower, an image tower, or both with heads into one shared space.

    Attributes:
        text, image: the towers; either may be None.
        text_head, image_head: from tower features to the shared space; None unless both towers are there.
        config: what it was built from.

    `DualEncoder.build(config)` makes a new one, `DualEncoder.from_pretrained(source)` reads one.
    """

    def __init__(self, config: ModelConfig, text: TextEncoder | None, image: ImageEncoder | None) -> None:
        super().__init__()
        self.config = config
        self.text = text
        self.image = image
        both = text is not None and image is not None
        if text is not None:
            text.has_head = both
        self.text_head = Head(text.width, config.dim, config.text_head) if text is not None and both else None
        self.image_head = Head(image.width, config.dim, config.image_head) if image is not None and both else None

    @classmethod
    def build(cls, config: ModelConfig, corpus: Iterable[str] | None = None) -> Self:
        """A model with the towers of `config`, and `config.heads` or fresh ones (torch's generator), in eval mode.

        `corpus` is what the tokenizer of a `new` text tower is built from. Raises ModelError and ConfigError for
        towers that cannot be loaded or options that do not fit them, MissingExtraError for LoRA without peft.
        """
        text = build_text_encoder(config.text, corpus) if config.text is not None else None
        image = build_image_encoder(config.image) if config.image is not None else None
        model = cls(config, text, image)
        if config.heads is not None:
            model._take_heads(Path(config.heads))
        return model.eval()

    @classmethod
    def from_pretrained(
        cls, source: str | Path, *, train_text: Train | None = None, train_image: Train | None = None
    ) -> Self:
        """Read a folder that `save_pretrained` wrote, or any encoder name.

        A text encoder gives a model without image tower and the reverse; a CLIP (open_clip or transformers) gives
        both towers in its own shared space. `train_text` and `train_image` say how each tower may be trained from
        here; None keeps what the folder says (an encoder name: frozen; adapters are merged when a model is saved,
        and their tower then comes back frozen).

        Raises ModelError when the source is none of these, is incomplete or was altered.
        """
        name = resolve_name(str(source))
        if name.library == "dual":
            assert name.folder is not None
            return cls._load(name.folder, train_text, train_image)
        if name.library == "new":
            raise ModelError("'new' is no pretrained encoder; build a model with DualEncoder.build")
        sides = encoder_sides(name)
        text = TextConfig(name=str(source), train=train_text or "frozen") if "text" in sides else None
        image = ImageConfig(name=str(source), train=train_image or "frozen") if "image" in sides else None
        if text is None or image is None:
            return cls.build(ModelConfig(text=text, image=image))
        towers = build_text_encoder(text), build_image_encoder(image)
        own = HeadConfig(kind="none")
        return cls(
            ModelConfig(text=text, image=image, dim=towers[0].width, text_head=own, image_head=own), *towers
        ).eval()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def project_text(self, h_BH: Tensor) -> Tensor:
        """Text features → unit vectors p_BD of the shared space; without a head, the features at unit length."""
        return F.normalize(self.text_head(h_BH) if self.text_head is not None else h_BH, dim=-1)

    def project_image(self, f_BV: Tensor) -> Tensor:
        """Image features → unit vectors v_BD of the shared space; without a head, the features at unit length."""
        return F.normalize(self.image_head(f_BV) if self.image_head is not None else f_BV, dim=-1)

    def encode_text(
        self,
        texts: Sequence[str],
        *,
        space: Space | None = None,
        prompt: str | None = None,
        truncate_dim: int | None = None,
        token_budget: int | None = None,
        progress: ProgressSink | None = None,
    ) -> np.ndarray:
        """Unit vectors of texts, (N, D) in the `shared` space or (N, H) in the `sentence` space, float32.

        `space` defaults to `shared` where the model has an image tower, else `sentence`. `prompt` is a name among
        `model.text.prompts` or the prompt's own text; None is the model's default prompt. `truncate_dim` keeps the
        first numbers of each vector, again at unit length. Rows are in input order; no texts give no rows. Raises
        ModelError without a text tower, for `shared` without an image tower, or for a `truncate_dim` above the width;
        ConfigError for an unknown prompt.
        """
        if isinstance(texts, str):
            raise TypeError("encode_text takes a list of texts; put a single one into a list")
        if self.text is None:
            raise ModelError("this model has no text tower; it encodes images only")
        if space == "shared" and self.text_head is None:
            raise ModelError("this model has no image tower, so it has no shared space; use space='sentence'")
        headless = space == "sentence" or self.text_head is None
        width = self.text.width if headless else self.config.dim
        if truncate_dim is not None and not 1 <= truncate_dim <= width:
            raise ModelError(f"truncate_dim: {truncate_dim} is not between 1 and the width {width} of these embeddings")
        h_NH = self.text.encode(texts, prompt, token_budget=token_budget, progress=progress)
        if headless:
            return _unit(h_NH[:, :truncate_dim])
        p_ND = self.project_features("text", h_NH)
        return p_ND if truncate_dim is None else _unit(p_ND[:, :truncate_dim])

    def encode_image(
        self,
        images: Sequence[Any],
        *,
        batch_size: int | None = None,
        workers: int | None = None,
        progress: ProgressSink | None = None,
    ) -> np.ndarray:
        """Unit vectors of pictures, (N, D) float32: paths, a file's bytes, PIL pictures or arrays, also mixed.

        They are in the shared space, or without a text tower in that of the image features (N, V). Raises
        ModelError without an image tower, DataError naming the first picture that cannot be read.
        """
        if self.image is None:
            raise ModelError("this model has no image tower; it encodes texts only")
        f_NV = self.image.encode(
            images, open_image=open_item, batch_size=batch_size, workers=workers, progress=progress
        )
        return self.project_features("image", f_NV)

    def project_features(self, side: Side, features: Table, rows: np.ndarray | None = None) -> np.ndarray:
        """Unit vectors of features that the tower of `side` gave, (n, D) float32, in the space of `project_text` or
        `project_image`; `rows` are the numbers of those that are meant, by default all.

        In eval mode, and in blocks: a catalogue's features need not lie in memory or on a GPU at once.
        """
        project, head = (self.project_text, self.text_head) if side == "text" else (self.project_image, self.image_head)
        rows = np.arange(features.shape[0]) if rows is None else rows
        blocks = [rows[start : start + PROJECT_ROWS] for start in range(0, max(1, len(rows)), PROJECT_ROWS)]

        def projected(block: np.ndarray) -> np.ndarray:
            x_BW = torch.from_numpy(np.asarray(features[block], dtype=np.float32)).to(self.device)
            p_BD: np.ndarray = project(x_BW).float().cpu().numpy()
            return p_BD

        was_training = head is not None and head.training
        if head is not None:
            head.eval()
        try:
            with torch.inference_mode():
                return np.concatenate([projected(block) for block in blocks])
        finally:
            if head is not None:
                head.train(was_training)

    def similarity(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Cosine of every row of `a` (n, D) with every row of `b` (m, D): (n, m) float32. Both of one space."""
        if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
            raise ValueError(f"expected two tables of one width, got shapes {a.shape} and {b.shape}")
        product: np.ndarray = _unit(a) @ _unit(b).T
        return product

    def fingerprint(self, side: Side) -> str:
        """32 hex digits over all that decides `encode_text` or `encode_image`: weights, pooling, prompt, preprocessing.

        Equal after save and load. Raises ModelError when the model has no such tower.
        """
        tower = self.text if side == "text" else self.image
        head = self.text_head if side == "text" else self.image_head
        if tower is None:
            raise ModelError(f"this model has no {side} tower")
        described = None
        if head is not None:
            described = [head.config.kind, head.config.standardise, hash_tensors(head.state_dict())]
        return hash_json([tower.fingerprint(), described])

    def head_state(self) -> dict[str, Tensor]:
        """The weights of both heads by name, as in `state_dict`."""
        return {name: value for name, value in self.state_dict().items() if name.split(".")[0].endswith("_head")}

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `model.json`, `heads.safetensors`, `text/` and `image/` into `folder`: all that it needs offline.

        Other files in `folder` stay. An earlier model there is replaced whole: a crash in between leaves a folder
        that does not load, never a mixture. LoRA adapters are merged into the saved weights.
        """

        def write(fresh: Path) -> None:
            save_weights(fresh / HEADS_FILE, self.head_state())
            for side, tower in (("text", self.text), ("image", self.image)):
                if tower is not None:
                    (fresh / side).mkdir()
                    tower.save(fresh / side)

        sides = [side for side, tower in (("text", self.text), ("image", self.image)) if tower is not None]
        values = {
            "format": FORMAT,
            "version": VERSION,
            "config": self.config.model_dump(mode="json"),
            "fingerprints": {side: self.fingerprint(side) for side in sides},  # type: ignore[arg-type]
        }
        write_parts(Path(folder), MODEL_FILE, values, (HEADS_FILE, "text", "image"), write)

    @classmethod
    def _load(cls, folder: Path, train_text: Train | None, train_image: Train | None) -> Self:
        record = read_record(folder, MODEL_FILE)
        if record.get("version") != VERSION:
            raise ModelError(
                f"{folder / MODEL_FILE}: version {record.get('version')}, but this dalr reads version {VERSION}"
            )
        config = parse_config(ModelConfig, record["config"], str(folder / MODEL_FILE))
        text = image = None
        if config.text is not None:
            train = train_text or _unmerged(config.text.train)
            text = load_text_encoder(folder / "text", train, config.text.lora)
            config = config.model_copy(update={"text": config.text.model_copy(update={"train": train})})
        if config.image is not None:
            train = train_image or _unmerged(config.image.train)
            image = load_image_encoder(folder / "image", train, config.image.lora, config.image.augment)
            config = config.model_copy(update={"image": config.image.model_copy(update={"train": train})})
        model = cls(config, text, image)
        model._load_heads(folder)
        return model.eval()

    def _take_heads(self, folder: Path) -> None:
        """The heads of a saved model, if its towers are as wide as these and its heads of the same shape."""
        if not (folder / MODEL_FILE).is_file():
            raise ConfigError(f"model.heads: {folder}: is no saved model; name a run folder")
        saved = parse_config(ModelConfig, read_record(folder, MODEL_FILE)["config"], str(folder / MODEL_FILE))
        for name in ("dim", "text_head", "image_head"):
            if getattr(saved, name) != getattr(self.config, name):
                raise ConfigError(
                    f"model.{name}: {getattr(self.config, name)!r} here, but {getattr(saved, name)!r} in the model "
                    f"that model.heads names ({folder}); set both alike"
                )
        self._load_heads(folder)

    def _load_heads(self, folder: Path) -> None:
        heads = nn.ModuleDict({name: head for name, head in self.named_children() if name.endswith("_head")})
        load_weights(heads, folder / HEADS_FILE)


def open_item(item: Any) -> Image.Image:
    """A path or a file's bytes through the safe opener, a PIL picture or an array as it is; always RGB."""
    if isinstance(item, str | Path | bytes):
        from dalr.data.images import open_image
        from dalr.errors import DataError

        try:
            return open_image(item)
        except DataError as error:
            named = "a picture given as bytes" if isinstance(item, bytes) else str(item)
            raise DataError(f"{named}: {error}") from None
    return as_picture(item)


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows at length one; a zero row stays zero."""
    lengths = np.linalg.norm(rows.astype(np.float32), axis=1, keepdims=True)
    unit: np.ndarray = rows.astype(np.float32) / np.maximum(lengths, 1e-12)
    return unit


def _unmerged(train: Train) -> Train:
    return "frozen" if train == "lora" else train
