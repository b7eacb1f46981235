"""What a config's terms need of a model and of its teachers."""

import math

from dalr.errors import ConfigError
from dalr.model import DualEncoder
from dalr.objectives.config import ObjectiveConfig


def require_model(config: ObjectiveConfig, model: DualEncoder, *, scored: bool) -> None:
    """ConfigError, by the key to change, where the model lacks what a term needs.

    `scored` says that a text teacher has scores of pairs in place of embeddings.
    """
    if model.text is None:
        raise ConfigError("model.text: every objective trains on texts; name a text encoder")
    if config.uses_images and model.image is None:
        raise ConfigError(f"model.image: the objective {config.name} aligns texts with images; name an image encoder")
    if config.uses_sentence and model.text.train_mode == "frozen":
        raise ConfigError(
            f"objective.{_sentence_term(config)}: the sentence terms train the text tower, which is frozen; set "
            "model.text.train=full (or lora), or objective.info=0 and objective.intra_space=shared"
        )
    if scored and (config.embedding or config.cross_text):
        term = "embedding" if config.embedding else "cross_text"
        raise ConfigError(
            f"objective.{term}: learns the embeddings of text teachers, and scores of pairs have none; set it to "
            "0, or leave the scores out of 'teachers'"
        )
    narrow = min(
        (model.text.width if config.uses_sentence else math.inf, model.config.dim if config.cross else math.inf)
    )
    if max(config.matryoshka, default=0) > narrow:
        raise ConfigError(
            f"objective.matryoshka: {max(config.matryoshka)} is more than the embedding's width, {narrow}; leave "
            "it out, the full width is always trained"
        )


def _sentence_term(config: ObjectiveConfig) -> str:
    """A key that makes an objective need sentence embeddings of a tower in training."""
    return next((name for name in ("info", "score", "embedding", "agreement") if getattr(config, name)), "intra_space")
