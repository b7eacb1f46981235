"""What a method is: the weights and temperatures of its terms, filled from its profile."""

import math
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from dalr.config import Config
from dalr.objectives import clip, dalr, distil, kdmcse, mcse, rankcse, siglip, simcse, sts
from dalr.objectives.batch import Kind

Method = Literal["clip", "siglip", "simcse", "mcse", "kdmcse", "rankcse", "sts", "distil", "dalr"]
Weight = Annotated[float, Field(ge=0)]
Temperature = Annotated[float, Field(gt=0)]

PROFILES: dict[str, dict[str, Any]] = {
    "clip": clip.PROFILE,
    "siglip": siglip.PROFILE,
    "simcse": simcse.PROFILE,
    "mcse": mcse.PROFILE,
    "kdmcse": kdmcse.PROFILE,
    "rankcse": rankcse.PROFILE,
    "sts": sts.PROFILE,
    "distil": distil.PROFILE,
    **{f"dalr/{name}": values for name, values in dalr.PROFILES.items()},
}


class ObjectiveConfig(Config):
    """Which method, and the weights and temperatures in which it differs from its profile.

    A weight of 0 leaves a term out. What is not given comes from the method's profile, so a saved config names every
    value that was used. `soft_temperature` is that of the teachers' similarities (`image_teacher_temperature` where
    the image teachers' differs), `student_temperature` that of the student's in the soft terms; at None it is the
    cross-modal temperature of the moment, held constant. `score` teaches the scores of pairs by `score_form`
    (regression, CoSENT, or InfoNCE with soft labels at `temperature`), `embedding` is regression to the text teachers'
    own embeddings, `agreement` that of a sentence's two views (at `temperature`), `cross_text` contrast of a pair's
    text with the text teachers' embeddings, beside `cross`. `margin` is the angle by which the negatives of both
    contrasts are pushed (see `losses.info_nce`), less where the teachers find them alike, images for `cross` and texts
    for `cross_text`; `info_margin` the one among sentences. With `sentence_head: mlp` the sentence terms see the tower
    through a layer with tanh that is thrown away after training (SimCSE's rule), with `none` they see what will be
    used; only then can `matryoshka` name widths at which they, and `cross`, are taken as well.

    No profile has the following. `soft_mix` m is the share of the other side's teachers in the cross-modal targets, of
    `soft_cross` and of `rank_cross`: `(1 − m) T^tt + m T^vv` for texts, `(1 − m) T^vv + m T^tt` for images.
    `soft_temperature_end` is where the temperature of the soft targets, of `soft_cross` and of `soft_intra`, ends: it
    moves by the same factor each step, the image teachers' in proportion. `rank_cross` is `rank` across modalities: the
    order of the images for each text, and of the texts for each image. In the contrasts `info`, `cross` and
    `cross_text` the text teachers may judge the negatives (see `losses.TaughtNegatives`): by `hard_negative_weight` β
    those that they find alike count more, and what they find more alike than the cosine `false_negative` is none; a
    triplet's own negative is judged by nobody.
    """

    name: Method = "dalr"
    profile: Literal["paper", "catalogue"] | None = None
    info: Weight = 0.0
    cross: Weight = 0.0
    cross_text: Weight = 0.0
    consistency: Weight = 0.0
    soft_cross: Weight = 0.0
    soft_intra: Weight = 0.0
    rank: Weight = 0.0
    rank_cross: Weight = 0.0
    agreement: Weight = 0.0
    score: Weight = 0.0
    embedding: Weight = 0.0
    temperature: Temperature = 0.05
    cross_form: Literal["softmax", "sigmoid"] = "softmax"
    cross_temperature: Temperature = 0.05
    learn_temperature: bool = False
    margin: Annotated[float, Field(ge=0, le=math.pi / 2)] = 0.0
    info_margin: Annotated[float, Field(ge=0, le=math.pi / 2)] = 0.0
    hard_negative_weight: Weight = 0.0
    false_negative: Annotated[float, Field(ge=-1, le=1)] | None = None
    consistency_margin: Annotated[float, Field(ge=-1, le=1)] = 0.2
    matching: bool = False
    soft_temperature: Temperature = 0.05
    soft_temperature_end: Temperature | None = None
    soft_mix: Annotated[float, Field(ge=0, le=1)] = 0.0
    student_temperature: Temperature | None = None
    image_teacher_temperature: Temperature | None = None
    rank_form: Literal["list_mle", "list_net", "position_list_mle"] = "list_mle"
    rank_temperature: Temperature = 0.05
    top_k: Annotated[int, Field(ge=1)] = 10
    intra_space: Literal["sentence", "shared"] = "shared"
    score_form: Literal["regression", "cosent", "soft_info_nce"] = "regression"
    sentence_head: Literal["mlp", "none"] = "mlp"
    matryoshka: list[Annotated[int, Field(ge=1)]] = Field(default_factory=list)
    views: Literal[1, 2] = 1
    distil_text: bool = True
    negative_weight: Weight = 1.0
    pair_weights: bool = False
    tile: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill_from_profile(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        name = values.get("name", "dalr")
        if name != "dalr" and values.get("profile") is not None:
            raise ValueError(f"objective.profile belongs to the method dalr; {name} has none: leave it out")
        if name == "dalr":
            values = {**values, "profile": values.get("profile") or "catalogue"}
        key = f"dalr/{values['profile']}" if name == "dalr" else name
        return {**PROFILES.get(key, {}), **values}

    @model_validator(mode="after")
    def _check(self) -> "ObjectiveConfig":
        alone = (self.info, self.cross, self.soft_cross, self.soft_intra, self.rank, self.score, self.embedding)
        if not any((*alone, self.consistency, self.rank_cross, self.agreement)):
            raise ValueError("every term of the objective has weight 0: nothing would be learned; set one above 0")
        if self.cross_text and not self.cross:
            raise ValueError(
                "objective.cross_text: goes with the contrast of texts and images; set objective.cross too"
            )
        if self.judges_negatives and self.cross and self.cross_form == "sigmoid":
            raise ValueError(
                "objective.hard_negative_weight, objective.false_negative: the sigmoid form judges each pair by itself "
                "and weighs no negatives; set objective.cross_form=softmax, or leave both out"
            )
        if self.matryoshka and self.uses_sentence and self.sentence_head != "none":
            raise ValueError(
                "objective.matryoshka: the first dimensions of the embedding are trained only where the terms see it; "
                "set objective.sentence_head=none"
            )
        return self

    @property
    def uses_images(self) -> bool:
        """Whether a term needs images."""
        return bool(self.cross or self.consistency or self.soft_cross or self.rank_cross)

    @property
    def judges_negatives(self) -> bool:
        """Whether the text teachers judge the negatives of the contrasts."""
        return bool(self.hard_negative_weight) or self.false_negative is not None

    @property
    def uses_sentence(self) -> bool:
        """Whether a term needs texts in the sentence space."""
        return bool(self.info or self.score or self.embedding or self.agreement) or (
            self.intra_space == "sentence" and bool(self.soft_intra or self.rank)
        )

    @property
    def uses_shared_text(self) -> bool:
        """Whether a term needs texts in the shared space."""
        return self.uses_images or (self.intra_space == "shared" and bool(self.soft_intra or self.rank))

    @property
    def taught_sides(self) -> set[str]:
        """The sides, `text` and `image`, whose teachers a term or the pair weights look at."""
        both = bool(self.soft_cross or self.rank_cross or self.pair_weights or (self.cross and self.margin))
        text = both or bool(self.soft_intra or self.rank or self.embedding or self.cross_text)
        text = text or (self.judges_negatives and bool(self.info or self.cross))
        return {side for side, wanted in (("text", text), ("image", both)) if wanted}

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of batch that the method learns from."""
        if not self.uses_images:
            return ("text",)
        always = self.info or self.embedding or self.agreement
        learns_from_text = always or (self.distil_text and (self.soft_intra or self.rank))
        return ("pairs", "text") if learns_from_text else ("pairs",)
