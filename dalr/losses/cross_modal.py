"""Contrastive loss between sentences and images, in both directions."""

from collections.abc import Iterator, Sequence

from torch import Tensor

from dalr.losses.info_nce import check_margin, pick_own, with_margin
from dalr.losses.rows import row_weights, scalar, sum_over_rows, unit_rows
from dalr.losses.shared import cosines
from dalr.losses.similarity import Similarity
from dalr.losses.taught_negatives import TaughtNegatives


def cross_modal(
    p_views: Sequence[Tensor],
    v_BD: Tensor,
    *,
    temperature: float | Tensor,
    group: Tensor | None = None,
    margin: float = 0.0,
    margin_sim: Similarity | None = None,
    negatives: TaughtNegatives | None = None,
    weight: Tensor | None = None,
    tile: int | None = None,
) -> Tensor:
    """Each sentence shall pick its image out of the batch, and each image its sentence.

    `L = 1/(2·views) · Σ_views [info_nce(p, v) + info_nce(v, p)]` (MCSE, Zhang et al. 2022; with one view it is the
    loss of CLIP, Radford et al. 2021; with the margin that of KDMCSE, Nguyen et al. 2024; the cross-modal
    contrast of DALR, He et al. 2025).

    | input | shape | |
    |---|---|---|
    | p_views | views × `(B, D)` | sentences in the shared space, one tensor a dropout view |
    | v_BD | `(B, D)` | their images |
    | margin_sim | Similarity | sentences are its rows; the other direction uses its transposed form |
    | negatives | TaughtNegatives | likewise |
    | temperature, group, margin, weight, tile | | as in `info_nce` |

    Related: `info_nce` (one direction), `sigmoid_cross_modal` (several positives, no softmax).
    """
    check_margin(margin)
    *views, v_BD = unit_rows(*p_views, v_BD)
    share_B = row_weights(weight, v_BD)
    back_sim = None if margin_sim is None else margin_sim.transposed()
    back_negatives = None if negatives is None else negatives.transposed()

    def term(block: slice, rows: Sequence[Tensor], columns: Sequence[Tensor]) -> Iterator[Tensor]:
        *views_RD, v_RD = rows
        *views_BD, v_BD, temperature = columns
        share_R = share_B[block] / (2 * len(views))
        for p_RD, p_BD in zip(views_RD, views_BD, strict=True):
            there_RB = with_margin(cosines(p_RD, v_BD), block, margin, margin_sim)
            yield share_R @ pick_own(there_RB, temperature, block, group, negatives)
            if len(v_RD) == len(v_BD):  # one block holds both directions
                back_RB = there_RB.T
            else:
                del there_RB
                back_RB = with_margin(cosines(v_RD, p_BD), block, margin, back_sim)
            yield share_R @ pick_own(back_RB, temperature, block, group, back_negatives)

    sides = (*views, v_BD)
    return sum_over_rows(term, sides, (*sides, scalar(temperature, v_BD)), tile=tile)
