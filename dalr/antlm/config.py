"""The config of language modelling: the text, the network, the schedule, and how it is trained."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from dalr.antlm.documents import CorpusConfig
from dalr.antlm.masking import MaskingConfig
from dalr.antlm.packing import Packing
from dalr.antlm.presets import NetworkConfig
from dalr.antlm.schedule import Unit, parse_schedule
from dalr.config import Config
from dalr.encoders.new_tokenizer import TokenizerConfig
from dalr.errors import ConfigError
from dalr.evaluation.leaks import LeakConfig
from dalr.train_config import TrainConfig


class LanguageText(CorpusConfig):
    """The text (see `CorpusConfig`), in rows of `length` tokens into which sentences or documents are packed."""

    length: int = Field(default=128, ge=8)
    packing: Packing = "document"


class LanguageNetwork(Config):
    """What is trained: the encoder `name`, or a `new` network with a tokenizer trained on the text.

    `tokenizer` may also be the name of an encoder whose tokenizer the new network takes. `max_length` is the longest
    text that the trained encoder reads (None: an encoder's own, for a new one 512).
    """

    name: str | None = None
    new: NetworkConfig | None = None
    tokenizer: TokenizerConfig | str | None = None
    max_length: int | None = Field(default=None, ge=8)
    dropout: float | None = Field(default=None, ge=0, lt=1)

    @model_validator(mode="after")
    def _one_of_two(self) -> "LanguageNetwork":
        if self.name is not None and (self.new is not None or self.tokenizer is not None):
            raise ValueError("name is an encoder with a network and a tokenizer; drop new and tokenizer, or name")
        return self


class LanguageEvaluation(Config):
    """What is measured on held-out documents: `rows` packed rows, masked in one fixed way."""

    rows: int = Field(default=512, ge=1)


class LanguageConfig(Config):
    """Causal and masked language modelling in turns (AntLM), or either alone.

    `schedule` is described in `antlm.schedule`, its numbers are of `unit`. `rate: phase` begins the learning-rate
    schedule anew with each phase, `optimizer: reset` its moments too. In a `MIX` step `mix_causal` of the rows are
    causal. `train.lr` is the rate of all weights, or of the head alone where `train.text_lr` is the network's; a batch
    is `train.batch_size` rows of `data.length` tokens.
    """

    data: LanguageText
    model: LanguageNetwork = LanguageNetwork()
    schedule: str
    unit: Unit = "epoch"
    rate: Literal["run", "phase"] = "run"
    optimizer: Literal["keep", "reset"] = "keep"
    masking: MaskingConfig = MaskingConfig()
    mix_causal: float = Field(default=0.0625, gt=0, lt=1)
    train: TrainConfig = TrainConfig(batch_size=64)
    evaluation: LanguageEvaluation = LanguageEvaluation()
    leaks: LeakConfig = LeakConfig()

    @field_validator("schedule")
    @classmethod
    def _readable(cls, value: str) -> str:
        try:
            parse_schedule(value)
        except ConfigError as error:
            raise ValueError(str(error).removeprefix("schedule ")) from None
        return value
