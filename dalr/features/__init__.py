"""The one way an embedding lies on disk: `FeatureStore`, and the content keys that name its rows."""

from dalr.features.keys import cache_root, image_keys, text_keys
from dalr.features.store import BadItem, FeatureSpec, FeatureStore

__all__ = ["BadItem", "FeatureSpec", "FeatureStore", "cache_root", "image_keys", "text_keys"]
