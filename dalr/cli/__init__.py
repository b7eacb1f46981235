"""The `dalr` command: one file a command, its docstring the help text.

Only typer and rich load here; a command imports what it needs when it runs, so that `dalr --help` answers at
once. `command` turns the errors a person can act on into one line on stderr and the exit code they carry.
"""

import errno
import functools
import json
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from dalr.errors import DalrError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Learn, check and search image–text catalogues.",
)
eval_app = typer.Typer(name="eval", no_args_is_help=True, rich_markup_mode=None, help="Measure a model.")
bench_app = typer.Typer(
    name="bench", no_args_is_help=True, rich_markup_mode=None, help="Time and memory against plain code."
)

# What the system says when a disk, a quota or a file's allowed size is at its end.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# And of a path that cannot be written as it was named: a folder where a file is, the other way round, no right to it.
MISPLACED = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EROFS)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]


def command(group: typer.Typer, name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function as `dalr NAME` (or `dalr GROUP NAME`); its DalrErrors become one line and their exit code."""
    spoken = f"{group.info.name} {name}" if isinstance(group.info.name, str) else name

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*args, **kwargs)
            except DalrError as error:
                print(f"dalr {spoken}: {error}", file=sys.stderr)
                raise typer.Exit(error.exit_code) from None
            except BrokenPipeError:
                # The reader of a pipe (`| head`) has gone: not an error, and nothing more can be printed.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                raise typer.Exit(0) from None
            except OSError as error:
                if error.errno in MISPLACED and error.filename is not None:
                    print(f"dalr {spoken}: {error.filename}: {os.strerror(error.errno)}", file=sys.stderr)
                    raise typer.Exit(2) from None
                if error.errno not in FULL:
                    raise
                print(f"dalr {spoken}: {error.strerror}; free some space and run it again, it goes on", file=sys.stderr)
                raise typer.Exit(1) from None
            except KeyboardInterrupt:
                print(f"dalr {spoken}: interrupted", file=sys.stderr)
                raise typer.Exit(130) from None

        group.command(name)(guarded)
        return function

    return register


def print_json(value: Any) -> None:
    """The one object of `--json`."""
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def main() -> None:
    """Entry point of the `dalr` command."""
    # Importing a file registers its commands.
    from dalr.cli import (  # noqa: F401
        app_page,
        audit,
        bench,
        check,
        embed,
        eval_blimp,
        eval_clustering,
        eval_geometry,
        eval_mteb,
        eval_pairs,
        eval_retrieval,
        eval_retrieval_text,
        eval_sts,
        eval_transfer,
        export,
        index,
        label,
        mine,
        report,
        search,
        train,
    )

    app.add_typer(eval_app)
    app.add_typer(bench_app)
    app()
