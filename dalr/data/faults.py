"""Faults planted on purpose, to measure what noise does to training."""

from dataclasses import replace

import numpy as np

from dalr.data.manifest import Manifest


def shuffle_captions(manifest: Manifest, share: float, seed: int) -> Manifest:
    """The manifest with the captions of a random `share` of its rows moved around among these rows."""
    generator = np.random.default_rng(seed)
    chosen = generator.permutation(len(manifest))[: round(share * len(manifest))]
    texts = list(manifest.texts)
    for target, source in zip(chosen, np.roll(chosen, 1), strict=True):
        texts[target] = manifest.texts[source]
    return replace(manifest, texts=texts)
