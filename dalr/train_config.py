"""How to train: the schedule and everything around it, for every method alike."""

from collections.abc import Collection
from typing import Annotated, Literal

from pydantic import Field, model_validator

from dalr.config import Config
from dalr.errors import ConfigError

Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


class GuardConfig(Config):
    """An ability that training must not cost: `metric` is measured before the first step and at every evaluation.

    Weights with which it is more than `drop` points below its start (a perplexity: above) are never kept; at the first
    such evaluation training ends (`stop`), or goes on with its rates times `factor` (`slow`).
    """

    metric: str = "sts_dev"
    drop: Annotated[float, Field(ge=0)] = 0.3
    action: Literal["stop", "slow"] = "stop"
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.5


class TrainConfig(Config):
    """How to train. Rates are peaks of the schedule; counts are of optimizer steps; `batch_size` is global.

    `precision: auto` is bf16 on a GPU that computes in it, else fp32; a CPU with instructions for bf16 (avx512_bf16,
    amx) takes about half the time with `bf16`, others take longer. `accumulate` cuts a step's batch into contrastive
    batches of their own whose losses are averaged (no shared negatives); `chunk` is the cached two-pass step, which
    keeps all negatives and holds `chunk` rows in memory. `interpolate` are shares α of the way from the start to the
    trained weights (WiSE-FT, Wortsman et al. 2022): after training the one that measures best is taken.
    """

    seed: int = 0
    epochs: Annotated[float, Field(gt=0)] = 10
    steps: Count | None = None
    batch_size: Count = 256
    accumulate: Count = 1
    chunk: Count | None = None
    lr: Annotated[float, Field(gt=0)] = 1e-3
    text_lr: Annotated[float, Field(gt=0)] = 5e-5
    image_lr: Annotated[float, Field(gt=0)] = 5e-5
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    betas: tuple[Share, Share] = (0.9, 0.999)
    warmup: Share = 0.1
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    clip_norm: Annotated[float, Field(gt=0)] | None = 1.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: bool = False
    ema: Share | None = None
    metric: str | None = None
    greater_is_better: bool = True
    evaluate_every: Count | None = None
    patience: Count | None = None
    guard: GuardConfig | None = None
    interpolate: list[Annotated[float, Field(ge=0, le=1)]] = Field(default_factory=list)
    checkpoint_every: Count | None = None
    keep: Count = 2
    log_every: Count = 10
    gradient_norms_every: Count | None = 100
    prefetch: Annotated[int, Field(ge=0)] = 2
    trackers: list[Literal["tensorboard", "trackio", "wandb"]] = Field(default_factory=list)

    @model_validator(mode="after")
    def _check(self) -> "TrainConfig":
        if self.chunk and self.accumulate > 1:
            raise ValueError("train.chunk and train.accumulate exclude each other: set train.accumulate=1")
        if self.batch_size % self.accumulate:
            raise ValueError(f"train.batch_size={self.batch_size} is not a multiple of accumulate={self.accumulate}")
        return self

    def total_steps(self, batches_per_epoch: float) -> int:
        """Optimizer steps of the whole run, each of `accumulate` batches."""
        return self.steps or max(1, round(self.epochs * batches_per_epoch / self.accumulate))

    def unmeasured(self) -> "TrainConfig":
        """The same training, of which nothing is measured as it goes."""
        nothing = dict.fromkeys(("metric", "evaluate_every", "patience", "guard"))
        return self.model_copy(update={**nothing, "interpolate": []})

    def check_measured(self, names: Collection[str], remedy: str) -> None:
        """ConfigError for a metric to select or to guard by that is not in `names`, what an evaluation measures, and
        for choosing weights or an end without a metric.

        `remedy` says how to have something measured where nothing is.
        """
        wanted = {"metric": self.metric, "guard.metric": self.guard.metric if self.guard else None}
        for key, name in wanted.items():
            if name is not None and not names:
                raise ConfigError(f"train.{key}={name}: nothing is measured; {remedy}")
            if name is not None and name not in names:
                raise ConfigError(f"train.{key}: '{name}' is not measured here; what is: {', '.join(names)}")
        for key in ("interpolate", "patience"):
            if getattr(self, key) and self.metric is None:
                if not names:
                    raise ConfigError(f"train.{key}: nothing is measured; {remedy}")
                raise ConfigError(f"train.{key}: needs a train.metric to choose by, one of {', '.join(names)}")
