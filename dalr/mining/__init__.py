"""Hard negatives: texts near an anchor by any encoder, and yet no positive of it, as far as can be told."""

from dalr.mining.known import KnownPositives
from dalr.mining.texts import mine_texts, write_triplets
from dalr.mining.vectors import Mined, MiningConfig, View, mine_vectors

__all__ = [
    "KnownPositives",
    "Mined",
    "MiningConfig",
    "View",
    "mine_texts",
    "mine_vectors",
    "write_triplets",
]
