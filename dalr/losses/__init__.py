"""Losses: pure functions of tensors, dense or tiled. One loss a file.

Shapes in names: B rows in a batch · D width · K list length · R rows of one block.
"""

from dalr.losses.cached import cached_backward
from dalr.losses.consistency import consistency, derangement, matching
from dalr.losses.cosent import cosent
from dalr.losses.cosine_regression import cosine_regression
from dalr.losses.cross_modal import cross_modal
from dalr.losses.distributed import average_gradients, gather_constant, gather_rows
from dalr.losses.embedding_mse import embedding_mse
from dalr.losses.groups import same_group
from dalr.losses.info_nce import info_nce
from dalr.losses.list_mle import list_mle
from dalr.losses.list_net import list_net
from dalr.losses.matryoshka import matryoshka
from dalr.losses.pair_scores import PairScores, ScoredSimilarity, mean_similarity
from dalr.losses.shared import shared_products
from dalr.losses.sigmoid import sigmoid_cross_modal
from dalr.losses.similarity import DenseSimilarity, MixedSimilarity, Similarity, TeacherRows
from dalr.losses.soft_alignment import soft_alignment
from dalr.losses.soft_info_nce import soft_info_nce
from dalr.losses.taught_negatives import TaughtNegatives
from dalr.losses.triplet import triplet_info_nce
from dalr.losses.view_agreement import view_agreement

__all__ = [
    "DenseSimilarity",
    "MixedSimilarity",
    "PairScores",
    "ScoredSimilarity",
    "Similarity",
    "TaughtNegatives",
    "TeacherRows",
    "average_gradients",
    "cached_backward",
    "consistency",
    "cosent",
    "cosine_regression",
    "cross_modal",
    "derangement",
    "embedding_mse",
    "gather_constant",
    "gather_rows",
    "info_nce",
    "list_mle",
    "list_net",
    "matching",
    "matryoshka",
    "mean_similarity",
    "same_group",
    "shared_products",
    "sigmoid_cross_modal",
    "soft_alignment",
    "soft_info_nce",
    "triplet_info_nce",
    "view_agreement",
]
