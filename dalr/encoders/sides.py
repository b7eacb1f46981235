"""Which towers an encoder name can give."""

from dalr.encoders.names import TOWER_FILE, EncoderName, read_json
from dalr.encoders.transformers_models import load_config, side_of


def encoder_sides(name: EncoderName) -> tuple[str, ...]:
    """`("text",)`, `("image",)`, or both for a CLIP. Raises ModelError when a folder's config cannot be read."""
    if name.library in ("sentence_transformers", "new"):
        return ("text",)
    if name.library in ("timm", "torchvision"):
        return ("image",)
    if name.library == "tower":
        assert name.folder is not None
        return (str(read_json(name.folder / TOWER_FILE).get("side")),)
    if name.library == "transformers":
        assert name.folder is not None
        side = side_of(load_config(name.folder))
        return ("text", "image") if side == "both" else (side,)
    return ("text", "image")
