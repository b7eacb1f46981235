"""What an audit looks for, and how sure it must be."""

from typing import Self

from pydantic import Field, model_validator

from dalr.catalogue.audit.captions import CaptionConfig
from dalr.catalogue.audit.crossfit import CrossfitConfig
from dalr.catalogue.audit.pictures import PictureConfig
from dalr.config import Config
from dalr.noise import NoiseConfig


class AuditConfig(Config):
    """The audit of a catalogue.

    A row is `wrong` from the probability `wrong` of a mismatch on and `doubtful` from `doubtful` on. A picture or a
    caption is an outlier where its mean cosine with its neighbours is lower than the first quartile by `outlier` times
    the distance between the quartiles. `folds` above 1 trains heads on the other folds, as `crossfit` says, so that
    no row is judged by a model that saw it. An audit that is run again judges what changed since, and everything anew
    where that is more than the share `rejudge` of the pairs.
    """

    wrong: float = Field(default=0.5, gt=0, lt=1)
    doubtful: float = Field(default=0.2, gt=0, lt=1)
    outlier: float = Field(default=4.0, gt=0)
    folds: int = Field(default=1, ge=1, le=100)
    rejudge: float = Field(default=0.2, ge=0, le=1)
    seed: int = 0
    captions: CaptionConfig = CaptionConfig()
    pictures: PictureConfig = PictureConfig()
    neighbours: NoiseConfig = NoiseConfig(references=20_000)
    crossfit: CrossfitConfig = CrossfitConfig()

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.doubtful > self.wrong:
            raise ValueError(f"doubtful={self.doubtful:g} is above wrong={self.wrong:g}")
        return self
