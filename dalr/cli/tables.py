"""Tables for a person: rules and headings on a terminal, plain aligned lines on a pipe."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on stdout; every column but the first is aligned to the right if it holds numbers."""
    console = Console(highlight=False)
    plain = not console.is_terminal
    table = Table(box=None if plain else box.SIMPLE_HEAD, pad_edge=False)
    for at, name in enumerate(columns):
        numeric = at > 0 and all(_is_number(row[at]) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", no_wrap=plain, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    if plain:
        # A pipe has no width to fit into: nothing may be cut or wrapped.
        console.width = 10_000
    console.print(title, markup=False)
    console.print(table)


def _is_number(cell: str) -> bool:
    return cell.replace(" ", "").lstrip("-")[:1].isdigit()
