"""What the tests here give to the processes that they start."""

import os


def environment(**more: str) -> dict[str, str]:
    """A process environment in which results do not hang on the number of threads of this machine."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **more}
