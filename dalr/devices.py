"""Where training runs and in which precision, as accelerate must be told."""

import torch


def on_cpu() -> bool:
    """Whether training runs on the CPU: there is no accelerator, or ACCELERATE_USE_CPU says so.

    accelerate must be told in either case: without it several CPU processes each train alone and say nothing.
    """
    from accelerate.utils import parse_flag_from_env

    return bool(parse_flag_from_env("ACCELERATE_USE_CPU")) or not torch.accelerator.is_available()


def precision_name(name: str) -> str:
    """accelerate's name; `auto` is bf16 only on a GPU that computes in it (bf16 is slow on most CPUs)."""
    if name == "auto":
        return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "no"
    return "no" if name == "fp32" else name
