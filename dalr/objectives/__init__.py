"""Training methods: each file names one and gives its profile; `alignment.py` is the sum of their terms."""

from dalr.objectives.alignment import AlignmentObjective, build_objective
from dalr.objectives.base import LossParts, Objective, Step
from dalr.objectives.batch import Batch, Features, Kind, Pixels, Rows, ScoredTexts, Tokens
from dalr.objectives.config import ObjectiveConfig

__all__ = [
    "AlignmentObjective",
    "Batch",
    "Features",
    "Kind",
    "LossParts",
    "Objective",
    "ObjectiveConfig",
    "Pixels",
    "Rows",
    "ScoredTexts",
    "Step",
    "Tokens",
    "build_objective",
]
