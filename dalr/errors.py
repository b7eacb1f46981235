"""The errors that a person can act on.

Each message says what is wrong, where (file and row, or the config key), what was expected and what to do.
The command line prints the message alone and exits with `exit_code`; anything else is a bug and shows its trace.
"""


class DalrError(Exception):
    """Something failed that the user can act on. Exit code 1."""

    exit_code = 1


class UsageError(DalrError):
    """Bad usage or bad input: nothing was done, and the same call will fail again. Exit code 2."""

    exit_code = 2


class ConfigError(UsageError):
    """A config file, an override or a combination of keys that cannot be used."""


class DataError(UsageError):
    """A manifest, a folder of images or a row that cannot be used."""


class StoreError(UsageError):
    """A feature store that does not fit what is asked of it, or is not one."""


class ModelError(UsageError):
    """An encoder or model folder that cannot be loaded as what it was named."""


class CheckpointError(DalrError):
    """A checkpoint that is torn, altered or made by another run."""


class MissingExtraError(UsageError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the package '{package}': install it with  pip install 'dalr[{extra}]'")


def shortened(text: str, length: int = 120) -> str:
    """`text` on one printable line of at most `length` characters, for a message."""
    line = "".join(character if character.isprintable() else "·" for character in text)
    return line if len(line) <= length else line[: length - 1] + "…"


def one_line(error: BaseException, length: int = 200) -> str:
    """An exception's message on one line."""
    return shortened(" ".join(str(error).split()) or type(error).__name__, length)
