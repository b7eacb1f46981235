"""Multimodal image–text representation: pair, train, check, evaluate and search (DALR).

The public names load on first use, so that `import dalr` and `dalr --help` do not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "DualEncoder": "dalr.model",
    "ModelConfig": "dalr.model",
    "Trainer": "dalr.trainer",
    "TrainConfig": "dalr.train_config",
    "DALRTrainer": "dalr.run.dalr_trainer",
    "RunConfig": "dalr.run",
    "load_config": "dalr.config",
    "Manifest": "dalr.data.manifest",
    "FeatureStore": "dalr.features",
}
__all__ = [
    "DALRTrainer",
    "DualEncoder",
    "FeatureStore",
    "Manifest",
    "ModelConfig",
    "RunConfig",
    "TrainConfig",
    "Trainer",
    "__version__",
    "load_config",
]

if TYPE_CHECKING:
    from dalr.config import load_config
    from dalr.data.manifest import Manifest
    from dalr.features import FeatureStore
    from dalr.model import DualEncoder, ModelConfig
    from dalr.run import RunConfig
    from dalr.run.dalr_trainer import DALRTrainer
    from dalr.train_config import TrainConfig
    from dalr.trainer import Trainer


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'dalr' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
