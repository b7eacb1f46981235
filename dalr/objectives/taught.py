"""What teachers add to an objective: targets, across to the images and within the texts, and weights of negatives.

Legend: B rows · D width of the space. `p` and `v` are texts and images in the shared space.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dalr import losses
from dalr.errors import ConfigError
from dalr.losses import MixedSimilarity, Similarity, TaughtNegatives
from dalr.objectives.config import ObjectiveConfig


@dataclass(frozen=True)
class Teaching:
    """The teachers of one batch and the terms that follow them.

    Attributes:
        config: weights and temperatures of the terms.
        text, image: the similarities of each side's teachers; None where it has none.
        student_temperature: of the student's similarities in the soft terms.
        sharpening: at this step, the factor of the teachers' temperatures in the soft terms.
        weight: `(B,)`, pair weights.
        common: `group` and `tile`, as every loss takes them.
    """

    config: ObjectiveConfig
    text: Similarity | None
    image: Similarity | None
    student_temperature: Tensor | float
    sharpening: float
    weight: Tensor
    common: Mapping[str, Any]

    def soft_cross(
        self, p_BD: Tensor, v_BD: Tensor, *, confidence: Tensor | None, column_weight: Tensor | None
    ) -> Tensor:
        """½ [KL(Q^tt ‖ P^tv) + KL(Q^vv ‖ P^vt)], or the one of them that has a teacher."""
        shared = {"student_temperature": self.student_temperature, "weight": self.weight, **self.common}
        shared |= {"confidence": confidence, "column_weight": column_weight}
        halves = [
            losses.soft_alignment(a_BD, b_BD, teacher, teacher_temperature=temperature, **shared)
            for a_BD, b_BD, teacher, temperature in self._directions("soft_cross", p_BD, v_BD)
        ]
        return torch.stack(halves).mean()

    def rank_cross(self, p_BD: Tensor, v_BD: Tensor) -> Tensor:
        """½ [rank(p, v; T^tt) + rank(v, p; T^vv)], or the one of them that has a teacher."""
        directions = self._directions("rank_cross", p_BD, v_BD)
        return torch.stack([self._in_order(a_BD, b_BD, teacher) for a_BD, b_BD, teacher, _ in directions]).mean()

    def _directions(self, term: str, p_BD: Tensor, v_BD: Tensor) -> list[tuple[Tensor, Tensor, Similarity, float]]:
        """(rows, columns, the rows' teacher, its temperature) of texts to images and back, where there is a teacher."""
        config, text, image, found = self.config, self.text, self.image, []
        if config.soft_mix:
            if text is None or image is None:
                raise ConfigError(
                    "objective.soft_mix: needs a teacher of texts and one of images; freeze a tower (its features then "
                    "serve), name them in 'teachers', or set it to 0"
                )
            text, image = (MixedSimilarity(text, image, config.soft_mix), MixedSimilarity(image, text, config.soft_mix))
        if text is not None:
            found.append((p_BD, v_BD, text, config.soft_temperature * self.sharpening))
        if image is not None:
            temperature = config.image_teacher_temperature or config.soft_temperature
            found.append((v_BD, p_BD, image, temperature * self.sharpening))
        if not found:
            raise ConfigError(
                f"objective.{term}: needs a teacher; freeze a tower (its features then serve), or name one in "
                "'teachers'"
            )
        return found

    def intra(self, first_BD: Tensor, second_BD: Tensor) -> dict[str, Tensor]:
        """The terms `soft_intra` and `rank` between two views of the texts, as far as they have a weight."""
        config = self.config
        if self.text is None:
            raise ConfigError(
                "objective.soft_intra, objective.rank: need a text teacher; name one in 'teachers', or set both to 0"
            )
        parts: dict[str, Tensor] = {}
        if config.soft_intra:
            parts["soft_intra"] = losses.soft_alignment(
                first_BD,
                second_BD,
                self.text,
                student_temperature=self.student_temperature,
                teacher_temperature=config.soft_temperature * self.sharpening,
                weight=self.weight,
                **self.common,
            )
        if config.rank:
            parts["rank"] = self._in_order(first_BD, second_BD, self.text)
        return parts

    def negatives(self) -> TaughtNegatives | None:
        """What the text teachers make of a contrast's negatives; None where they are not asked."""
        config = self.config
        if not config.judges_negatives:
            return None
        if self.text is None:
            raise ConfigError(
                "objective.hard_negative_weight, objective.false_negative: need a text teacher; name one in "
                "'teachers', or leave both out"
            )
        return TaughtNegatives(self.text, config.hard_negative_weight, config.false_negative)

    def _in_order(self, a_BD: Tensor, b_BD: Tensor, teacher: Similarity) -> Tensor:
        """The list-wise loss of `rank_form`."""
        config = self.config
        options = {"temperature": config.rank_temperature, "top_k": config.top_k, "weight": self.weight, **self.common}
        if config.rank_form == "list_net":
            return losses.list_net(a_BD, b_BD, teacher, **options)
        return losses.list_mle(
            a_BD, b_BD, teacher, position_weighted=config.rank_form == "position_list_mle", **options
        )
