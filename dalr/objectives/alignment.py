"""All methods as one sum of gated terms; a method is a profile of weights (clip.py, simcse.py, dalr.py, …).

Legend: B rows · H text width · D shared width. `z1`, `z2` are the sentence head's outputs on two dropout views,
`p1`, `p2` the texts and `v` the images in the shared space.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dalr import losses
from dalr.errors import ConfigError
from dalr.losses import PairScores, Similarity, TeacherRows
from dalr.model import DualEncoder
from dalr.noise import PairWeights
from dalr.objectives.base import LossParts, Objective
from dalr.objectives.batch import Batch, Kind, TextInput
from dalr.objectives.config import ObjectiveConfig
from dalr.objectives.requirements import require_model
from dalr.objectives.taught import Teaching

# A temperature is learned as log(1/temperature), held below CLIP's scale of 100.
MAX_LOG_SCALE = math.log(100.0)
DENSE_ROWS = 2048
TILE_ROWS = 128


def build_objective(
    config: ObjectiveConfig,
    model: DualEncoder,
    *,
    pair_weights: PairWeights | None = None,
    teacher_widths: Sequence[int] = (),
    teacher_weights: Mapping[str, Sequence[float]] | None = None,
    teacher_scores: Mapping[int, PairScores] | None = None,
) -> "AlignmentObjective":
    """The objective of `config` for `model`; ConfigError where the model lacks what a term needs."""
    return AlignmentObjective(
        config,
        model,
        pair_weights=pair_weights,
        teacher_widths=teacher_widths,
        teacher_weights=teacher_weights,
        teacher_scores=teacher_scores,
    )


class AlignmentObjective(Objective):
    """The weighted sum of the terms that a config switches on.

    Args:
        config: method, weights and temperatures.
        model: read for its widths and for what is frozen; not kept.
        pair_weights: running weights of the training pairs (`noise.py`), or None.
        teacher_widths: of the text teachers' embeddings, for the terms `embedding` (a teacher of the text tower's own
            width is met as it is, one of another width through a learned projection) and `cross_text`.
        teacher_weights: the share of each teacher by side, `text` and `image`; a side that is not there has equal ones.
        teacher_scores: what the text teachers at these places know, which have scores of pairs and no embeddings.
    """

    def __init__(
        self,
        config: ObjectiveConfig,
        model: DualEncoder,
        *,
        pair_weights: PairWeights | None = None,
        teacher_widths: Sequence[int] = (),
        teacher_weights: Mapping[str, Sequence[float]] | None = None,
        teacher_scores: Mapping[int, PairScores] | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.teacher_weights = dict(teacher_weights or {})
        self.teacher_scores = dict(teacher_scores or {})
        self.pair_weights = pair_weights
        self.kinds = config.kinds
        self.done = 0.0  # share of the run
        require_model(config, model, scored=bool(self.teacher_scores))
        width = model.text.width if model.text is not None else 0
        headed = config.uses_sentence and config.sentence_head == "mlp"
        self.sentence_head = nn.Linear(width, width) if headed else None
        self.projections = nn.ModuleList(
            [nn.Identity() if other == width else nn.Linear(width, other) for other in teacher_widths]
            if config.embedding
            else []
        )
        # Into the shared space, as MCSE's heads are: a layer with tanh.
        self.text_grounding = nn.ModuleList(
            [nn.Sequential(nn.Linear(other, model.config.dim), nn.Tanh()) for other in teacher_widths]
            if config.cross_text
            else []
        )
        scale = torch.tensor(-math.log(config.cross_temperature))
        learned = bool(config.cross) and config.learn_temperature
        self.log_scale = nn.Parameter(scale) if learned else None
        sigmoid = bool(config.cross) and config.cross_form == "sigmoid"
        self.bias = nn.Parameter(torch.tensor(-10.0)) if sigmoid else None
        self.matching_head = nn.Linear(model.config.dim, 1) if config.matching and config.consistency else None

    # -- embeddings -------------------------------------------------------------------------------------------

    def embed(self, model: DualEncoder, batch: Batch) -> dict[str, Tensor]:
        """`z1`, `z2` (sentence terms), `p1`, `p2` (texts, shared space), `v` (images), as far as terms need them."""
        found: dict[str, Tensor] = {}
        # A scored pair's second sentence is no positive: its score may be low.
        contrasted = self.config.info and (batch.positive is None or batch.target_B is not None)
        views = 2 if self.config.views == 2 or contrasted or self.config.agreement else 1
        assert batch.text is not None
        pooled = [self._pool(model, batch.text) for _ in range(views)]
        if self.config.uses_sentence:
            found |= {f"z{number}": self._sentence(h_BH) for number, h_BH in enumerate(pooled, start=1)}
            if batch.positive is not None:
                found["positive"] = self._sentence(self._pool(model, batch.positive))
            if batch.negative is not None:
                found["negative"] = self._sentence(self._pool(model, batch.negative))
        if self.config.uses_shared_text and (batch.kind == "pairs" or self.config.intra_space == "shared"):
            found |= {f"p{number}": model.project_text(h_BH) for number, h_BH in enumerate(pooled, start=1)}
        if batch.kind == "pairs" and self.config.uses_images:
            assert batch.image is not None
            assert model.image is not None
            cached = batch.image.dim() == 2
            found["v"] = model.project_image(batch.image if cached else model.image(batch.image))
        return found

    def _pool(self, model: DualEncoder, text: TextInput) -> Tensor:
        if isinstance(text, Tensor):
            return text
        assert model.text is not None
        pooled: Tensor = model.text(text)
        return pooled

    def _sentence(self, h_BH: Tensor) -> Tensor:
        return h_BH if self.sentence_head is None else torch.tanh(self.sentence_head(h_BH))

    # -- loss -------------------------------------------------------------------------------------------------

    def loss(self, embeddings: Mapping[str, Tensor], batch: Batch) -> LossParts:
        """The terms that this kind of batch can carry, and their weighted sum."""
        config = self.config
        weight = self._weights(embeddings, batch)
        tile = config.tile or (None if len(batch) <= DENSE_ROWS else TILE_ROWS)
        common: dict[str, Any] = {"group": batch.ids_BK, "tile": tile}
        teaching = Teaching(
            config,
            text=self._similarities(batch.text_teachers, "text"),
            image=self._similarities(batch.image_teachers, "image"),
            student_temperature=self._student_temperature(),
            sharpening=self._sharpening(),
            weight=weight,
            common=common,
        )
        parts: dict[str, Tensor] = {}
        # The terms read the same cosines and group masks: each is computed once.
        with losses.shared_products():
            if config.info:
                parts["info"] = self._info(embeddings, batch, teaching, common)
            if config.agreement:
                agreed = {**common, "temperature": config.temperature}
                views = [embeddings["z1"], embeddings["z2"]]
                parts["agreement"] = self._at_widths(lambda z: losses.view_agreement(*z, **agreed), views)
            if config.score:
                parts["score"] = self._score(embeddings, batch, common)
            if config.embedding:
                parts["embedding"] = self._embedding(embeddings, batch)
            if batch.kind == "pairs" and config.uses_images:
                parts |= self._cross_terms(embeddings, batch, teaching, weight, common)
            if (config.soft_intra or config.rank) and (batch.kind == "pairs" or config.distil_text):
                space = "z" if config.intra_space == "sentence" else "p"
                first = embeddings[f"{space}1"]
                parts |= teaching.intra(first, embeddings.get(f"{space}2", first))
        if not parts:
            raise ConfigError(f"objective.{config.name}: no term applies to a batch of kind '{batch.kind}'")
        weights = {name: 1.0 if name == "matching" else getattr(config, name) for name in parts}
        if "matching" in weights:
            weights["matching"] = config.consistency
        return LossParts.of(parts, weights)

    def _weights(self, embeddings: Mapping[str, Tensor], batch: Batch) -> Tensor:
        if self.pair_weights is None or batch.kind != "pairs" or "v" not in embeddings:
            return batch.weight_B
        if self.training:
            self.pair_weights.observe(batch.index_B, embeddings["p1"].detach(), embeddings["v"].detach(), batch.ids_BK)
        known_B: Tensor = self.pair_weights(batch.index_B)
        return batch.weight_B * known_B

    def _similarities(self, teachers: Sequence[Tensor], side: str) -> Similarity | None:
        known = self.teacher_scores if side == "text" else {}
        return losses.mean_similarity(teachers, self.teacher_weights.get(side), known) if teachers else None

    def _info(
        self, embeddings: Mapping[str, Tensor], batch: Batch, teaching: Teaching, common: dict[str, Any]
    ) -> Tensor:
        common = {**common, "temperature": self.config.temperature}
        if "negative" not in embeddings:
            common |= {"margin": self.config.info_margin, "negatives": teaching.negatives()}
        if "positive" not in embeddings or batch.target_B is not None:
            return self._at_widths(lambda z: losses.info_nce(*z, **common), [embeddings["z1"], embeddings["z2"]])
        pair = [embeddings["z1"], embeddings["positive"]]
        if "negative" not in embeddings:
            return self._at_widths(lambda z: losses.info_nce(*z, **common), pair)
        common |= {"negative_weight": self.config.negative_weight, "negative_group": batch.negative_ids_BK}
        return self._at_widths(lambda z: losses.triplet_info_nce(*z, **common), [*pair, embeddings["negative"]])

    def _score(self, embeddings: Mapping[str, Tensor], batch: Batch, common: dict[str, Any]) -> Tensor:
        y_B = batch.target_B
        if y_B is None or "positive" not in embeddings:
            raise ConfigError("objective.score: needs pairs of sentences with scores; name them in data.scores")
        pair = [embeddings["z1"], embeddings["positive"]]
        if self.config.score_form == "cosent":
            return self._at_widths(lambda z: losses.cosent(z[0], z[1], y_B, weight=batch.weight_B), pair)
        if self.config.score_form == "soft_info_nce":
            soft = {**common, "temperature": self.config.temperature, "weight": batch.weight_B}
            return self._at_widths(lambda z: losses.soft_info_nce(z[0], z[1], y_B, **soft), pair)
        return self._at_widths(lambda z: losses.cosine_regression(z[0], z[1], y_B, weight=batch.weight_B), pair)

    def _embedding(self, embeddings: Mapping[str, Tensor], batch: Batch) -> Tensor:
        def error(project: nn.Module, teacher_BD: Tensor) -> Tensor:
            return losses.embedding_mse(project(embeddings["z1"]), teacher_BD, weight=batch.weight_B)

        return self._over_text_teachers("embedding", self.projections, batch, error)

    def _over_text_teachers(
        self, term: str, layers: nn.ModuleList, batch: Batch, loss: Callable[[nn.Module, Tensor], Tensor]
    ) -> Tensor:
        """The mean over the text teachers, by their weights, of a loss of each one's layer and rows."""
        if not batch.text_teachers or len(batch.text_teachers) != len(layers):
            raise ConfigError(f"objective.{term}: needs a text teacher; name one in 'teachers'")
        terms_A = torch.stack([loss(*both) for both in zip(layers, batch.text_teachers, strict=True)])
        weights = self.teacher_weights.get("text")
        return terms_A.mean() if weights is None else terms_A @ terms_A.new_tensor(weights) / sum(weights)

    def _at_widths(self, loss: Callable[[list[Tensor]], Tensor], tensors: list[Tensor]) -> Tensor:
        """The loss, or its mean over the widths of `matryoshka` and the full one."""
        if not self.config.matryoshka:
            return loss(tensors)
        return losses.matryoshka(loss, tensors, sorted({*self.config.matryoshka, tensors[0].shape[1]}))

    def _cross_terms(
        self,
        embeddings: Mapping[str, Tensor],
        batch: Batch,
        teaching: Teaching,
        weight: Tensor,
        common: dict[str, Any],
    ) -> dict[str, Tensor]:
        config = self.config
        views, v_BD = [embeddings[name] for name in ("p1", "p2") if name in embeddings], embeddings["v"]
        parts: dict[str, Tensor] = {}
        if config.cross and config.cross_form == "sigmoid":
            assert self.bias is not None
            sigmoid = {"scale": 1.0 / self.temperature(), "bias": self.bias, "weight": weight, **common}
            parts["cross"] = self._at_widths(
                lambda z: losses.sigmoid_cross_modal(z[:-1], z[-1], **sigmoid), [*views, v_BD]
            )
        elif config.cross:
            softmax = {"temperature": self.temperature(), "weight": weight, "negatives": teaching.negatives(), **common}
            if config.margin:
                softmax |= {"margin": config.margin, "margin_sim": teaching.image or teaching.text}
            parts["cross"] = self._at_widths(lambda z: losses.cross_modal(z[:-1], z[-1], **softmax), [*views, v_BD])
        if config.cross_text:
            parts["cross_text"] = self._cross_text(views, batch, teaching, weight, common)
        confidence = None
        if config.consistency:
            # Every process must draw the same partners, so the draw hangs on the batch, not on a process's dropout.
            generator = torch.Generator().manual_seed(int(batch.index_B.sum()))
            mismatch_B = losses.derangement(batch.ids_BK, generator)
            parts["consistency"] = losses.consistency(
                views[0], v_BD, mismatch_B, margin=config.consistency_margin, weight=weight
            )
            if self.matching_head is not None:
                matched = self.matching_head(views[0] * v_BD).squeeze(-1)
                other = self.matching_head(views[0] * v_BD[mismatch_B.clamp(min=0)]).squeeze(-1)
                parts["matching"] = losses.matching(matched, other, mismatch_B, weight=weight)
                confidence = torch.sigmoid(matched.detach().float())
        if config.soft_cross:
            # A caption that does not fit must not be anybody's soft target either.
            column_weight = weight if self.pair_weights is not None else None
            parts["soft_cross"] = teaching.soft_cross(
                views[0], v_BD, confidence=confidence, column_weight=column_weight
            )
        if config.rank_cross:
            parts["rank_cross"] = teaching.rank_cross(views[0], v_BD)
        return parts

    def _cross_text(
        self, views: Sequence[Tensor], batch: Batch, teaching: Teaching, weight: Tensor, common: dict[str, Any]
    ) -> Tensor:
        """Contrast of each view of a text with what each text teacher makes of it."""
        common = {**common, "temperature": self.temperature(), "weight": weight, "margin": self.config.margin}
        common["negatives"] = teaching.negatives()

        def contrast(ground: nn.Module, teacher_BD: Tensor) -> Tensor:
            met_BD, alike = ground(teacher_BD), TeacherRows([teacher_BD])
            return torch.stack([losses.info_nce(p_BD, met_BD, margin_sim=alike, **common) for p_BD in views]).mean()

        return self._over_text_teachers("cross_text", self.text_grounding, batch, contrast)

    # -- for the loop -----------------------------------------------------------------------------------------

    def temperature(self) -> Tensor | float:
        """The temperature of the cross-modal term: fixed, or learned and at least 0.01."""
        if self.log_scale is None:
            return self.config.cross_temperature
        return torch.exp(-self.log_scale.clamp(max=MAX_LOG_SCALE))

    def unused_modules(self, model: DualEncoder) -> list[nn.Module]:
        """Heads and image tower, as far as no term of this objective reaches them."""
        unused: list[nn.Module | None] = [] if self.config.uses_shared_text else [model.text_head]
        if not self.config.uses_images:
            unused += [model.image, model.image_head]
        return [module for module in unused if module is not None]

    def _student_temperature(self) -> Tensor | float:
        if self.config.student_temperature is not None:
            return self.config.student_temperature
        return torch.as_tensor(self.temperature()).detach()

    def settings(self) -> Any:
        return self.config.model_dump(mode="json")

    def set_step(self, step: int, total: int) -> None:
        """How far the run is: from 0 at its first step to 1 at its last."""
        self.done = step / max(1, total - 1)

    def _sharpening(self) -> float:
        end, start = self.config.soft_temperature_end, self.config.soft_temperature
        return 1.0 if end is None else float((end / start) ** self.done)

    def idle_parameters(self, model: DualEncoder, kind: Kind) -> list[nn.Parameter]:
        """On texts alone: the image side, scale, bias and matching head, and the text head unless it is distilled."""
        if kind == "pairs" or not self.config.uses_images:
            return []
        modules: list[nn.Module | None] = [model.image, model.image_head, self.matching_head, self.text_grounding]
        distilled = self.config.distil_text and (self.config.soft_intra or self.config.rank)
        if self.config.intra_space == "sentence" or not distilled:
            modules.append(model.text_head)
        idle = [parameter for module in modules if module is not None for parameter in module.parameters()]
        idle += [parameter for parameter in (self.log_scale, self.bias) if parameter is not None]
        return [parameter for parameter in idle if parameter.requires_grad]

    def end_epoch(self, epoch: int) -> dict[str, float]:
        """Re-fit the pair weights; returns their mean and, with a learned temperature, its value."""
        figures = self.pair_weights.refit(epoch) if self.pair_weights is not None else {}
        if self.log_scale is not None:
            figures["temperature"] = float(torch.as_tensor(self.temperature()).detach())
        return figures
