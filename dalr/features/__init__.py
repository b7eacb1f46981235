"""The one way an embedding lies on disk: `FeatureStore`, and the content keys that name its rows."""

from dalr.features.keys import cache_root, image_keys, text_keys
from dalr.features.store import BadItem, FeatureSpec, FeatureStore
from dalr.features.towers import StoredRows, embed_images, embed_texts

__all__ = [
    "BadItem",
    "FeatureSpec",
    "FeatureStore",
    "StoredRows",
    "cache_root",
    "embed_images",
    "embed_texts",
    "image_keys",
    "text_keys",
]
