"""Text and image towers of any library behind one face, and the heads over them."""

from dalr.encoders.fast_cpu import keep_pages
from dalr.encoders.heads import Head, HeadConfig
from dalr.encoders.image import ImageConfig, ImageEncoder, build_image_encoder, load_image_encoder
from dalr.encoders.layer_decay import parameter_groups
from dalr.encoders.lora import LoraConfig
from dalr.encoders.names import resolve_name
from dalr.encoders.new_text import NewTextConfig
from dalr.encoders.sides import encoder_sides
from dalr.encoders.text import TextConfig, build_text_encoder, load_text_encoder
from dalr.encoders.text_encoder import TextEncoder

__all__ = [
    "Head",
    "HeadConfig",
    "ImageConfig",
    "ImageEncoder",
    "LoraConfig",
    "NewTextConfig",
    "TextConfig",
    "TextEncoder",
    "build_image_encoder",
    "build_text_encoder",
    "encoder_sides",
    "keep_pages",
    "load_image_encoder",
    "load_text_encoder",
    "parameter_groups",
    "resolve_name",
]
