"""Runs: `RunConfig` is the root of every training config; assembly, training and pipelines of stages stand on it."""

from dalr.run.config import DataSection, EvaluationConfig, RunConfig, load_run_config

__all__ = ["DataSection", "EvaluationConfig", "RunConfig", "load_run_config"]
