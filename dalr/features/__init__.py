"""The one way an embedding lies on disk: `FeatureStore`, and the content keys that name its rows."""

from dalr.features.keys import image_keys, text_keys
from dalr.features.store import BadItem, FeatureSpec, FeatureStore
from dalr.features.towers import StoredRows, embed_images, embed_texts

__all__ = [
    "BadItem",
    "FeatureSpec",
    "FeatureStore",
    "StoredRows",
    "embed_images",
    "embed_texts",
    "image_keys",
    "text_keys",
]
