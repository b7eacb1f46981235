"""The report of `dalr check` for a person: headed, coloured lines on a terminal, the same lines plain on a pipe."""

import re
from collections import Counter
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dalr.catalogue.check import CheckReport, Repeats

GOOD, LOOK, BAD = "green", "yellow", "red"
_MARKS = {GOOD: "✓", LOOK: "!", BAD: "✗"}
# Heading, level, lines.
Part = tuple[str, str, list[str]]


def show_report(report: CheckReport, show: int) -> None:
    """Print a report on stdout, with at most `show` of its bad rows."""
    console = Console(highlight=False)
    parts = _lines(report, show)
    bad = [(row.where, row.key, row.reason) for row in report.bad_rows[:show]]
    left = len(report.bad_rows) - len(bad)
    if console.is_terminal:
        _show_in_colour(console, parts, bad)
    else:
        _show_plainly(parts, bad)
    if left and show:
        console.print(f"… and {left:,} more: --bad-rows FILE writes them all")


def _show_in_colour(console: Console, parts: list[Part], bad: list[tuple[str, str, str]]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for heading, level, lines in parts:
        for number, line in enumerate(lines):
            table.add_row(*((Text(_MARKS[level], level), heading) if number == 0 else ("", "")), Text(line))
    console.print(table)
    if bad:
        rows = Table("bad row", "key", "reason", box=None, pad_edge=False)
        for row in bad:
            rows.add_row(*map(Text, row))
        console.print()
        console.print(rows)


def _show_plainly(parts: list[Part], bad: list[tuple[str, str, str]]) -> None:
    """One line an item, never wrapped or cut: a pipe has no width."""
    for heading, level, lines in parts:
        for number, line in enumerate(lines):
            print(f"{_MARKS[level]} {heading:<9} {line}" if number == 0 else f"{'':<11} {line}")
    for where, key, reason in bad:
        print(f"{where}\t{key}\t{reason}")


def _lines(report: CheckReport, show: int) -> list[Part]:
    """(heading, level, lines) of every part of the report."""
    found = [("data", GOOD, [report.source]), ("columns", GOOD, [_columns(report.columns)])]
    found += [("reading", LOOK, report.notes)] if report.notes else []
    found.append(_rows(report, show))
    if report.captions is not None:
        captions = report.captions
        lines = [
            f"{captions.different:,} different, {captions.empty:,} rows without; "
            f"{captions.mean_words:.1f} words on average, {captions.most_words} at most"
        ]
        if captions.shared.groups:
            lines.append(
                _repeats(captions.shared, "caption stands in several rows", "captions stand in several rows", "rows")
            )
        found.append(("captions", BAD if captions.empty else GOOD, lines))
    found += _images(report)
    if report.duplicate_rows.groups:
        found.append(
            (
                "same rows",
                LOOK,
                [
                    _repeats(
                        report.duplicate_rows,
                        "pair of image and caption repeats",
                        "pairs of image and caption repeat",
                        "rows",
                    )
                ],
            )
        )
    if report.splits is not None:
        lines = [", ".join(f"{name} {count:,}" for name, count in report.splits.rows.items())]
        shared = {kind: repeats for kind, repeats in report.splits.shared.items() if repeats.groups}
        lines += [
            _repeats(
                repeats,
                f"{_NAMES[kind][0]} stands in several splits",
                f"{_NAMES[kind][1]} stand in several splits",
                "rows",
            )
            for kind, repeats in shared.items()
        ]
        found.append(("splits", LOOK if shared else GOOD, lines if shared else [f"{lines[0]}; nothing is shared"]))
    if report.tokens is not None:
        tokens = report.tokens
        line = f"limit {tokens.limit}: longest {tokens.longest}, mean {tokens.mean:.1f}, 95 % up to {tokens.p95}; "
        line += f"{tokens.over:,} would be cut" + (f" ({', '.join(tokens.examples)})" if tokens.over else "")
        found.append(("tokens", LOOK if tokens.over else GOOD, [line]))
    if report.estimate is not None:
        found.append(("estimate", GOOD, _estimate(report.estimate)))
    return found


_NAMES = {
    "image": ("image", "images"),
    "look-alike": ("group of look-alikes", "groups of look-alikes"),
    "caption": ("caption", "captions"),
    "group": ("group", "groups"),
}


def _columns(columns: dict[str, Any]) -> str:
    guessed = set(columns["guessed"])
    parts = []
    for role in ("image", "text", "group", "weight", "id", "split"):
        column = columns[role]
        if column is not None:
            names = " + ".join(column) if isinstance(column, list) else column
            parts.append(f"{role} = {names}{' (guessed)' if role in guessed else ''}")
    others = columns["others"]
    return "; ".join([*([", ".join(parts)] if parts else []), *([f"others: {', '.join(others)}"] if others else [])])


def _rows(report: CheckReport, show: int) -> Part:
    bad = len(report.bad_rows)
    lines = [f"{report.rows:,} read, {report.usable:,} usable, {bad:,} bad"]
    if bad > show:
        kinds = Counter(_kind(row.reason) for row in report.bad_rows)
        lines += [f"{count:,} × {kind}" for kind, count in kinds.most_common(8)]
    return ("rows", BAD if bad or not report.rows else GOOD, lines)


def _kind(reason: str) -> str:
    """A reason without its particulars, so that like ones are counted together."""
    plain = re.sub(r"'[^']*'|\(.*\)|\S+:\d+|/\S+|-?\d[\d,.]*", "…", reason)
    return plain if len(plain) <= 70 else plain[:69] + "…"


def _images(report: CheckReport) -> list[Part]:
    images = report.images
    if images is None:
        return [] if report.columns["image"] is None else [("images", LOOK, ["not opened"])]
    lines = [
        f"{images.different:,} opened, {images.missing:,} missing, {images.unreadable:,} unreadable"
        + (f"; {images.rows_without:,} rows have none" if images.rows_without else "")
    ]
    level = BAD if images.missing or images.unreadable or images.rows_without else GOOD
    if images.copies.groups:
        lines.append(
            _repeats(
                images.copies,
                "is there more than once, byte for byte",
                "are there more than once, byte for byte",
                "files",
            )
        )
    if images.alike.groups:
        lines.append(_repeats(images.alike, "group looks alike", "groups look alike", "files"))
    repeats = images.copies.groups or images.alike.groups
    return [("images", LOOK if level == GOOD and repeats else level, lines)]


def _repeats(repeats: Repeats, one: str, many: str, members: str) -> str:
    examples = "; ".join(" ~ ".join(example) for example in repeats.examples[:2])
    what = one if repeats.groups == 1 else many
    return f"{repeats.groups:,} {what} ({repeats.members:,} {members}), such as {examples}"


def _estimate(estimate: dict[str, Any]) -> list[str]:
    embedding = estimate["embedding"]
    sides = [
        f"{embedding[side]:,} {side} at {embedding[f'{side}_per_second']:.3g}/s"
        for side in ("images", "texts")
        if embedding[f"{side}_per_second"] is not None
    ]
    lines = [f"embedding {_duration(embedding['seconds'])}: {', '.join(sides)} (once, then cached)"] if sides else []
    training = estimate.get("training")
    if training:
        on = training["measured_on"]
        lines.append(
            f"training {_duration(training['seconds'])}: {training['steps']:,} steps of "
            f"{training['seconds_per_step']:.3g} s (measured on {on['steps']} steps of {on['batch_size']} rows, "
            f"{on['device']}, {on['threads']} threads)"
        )
    memory = f"memory {estimate['memory_mb'] / 1000:.1f} GB"
    if estimate.get("gpu_memory_mb") is not None:
        memory += f", on the GPU {estimate['gpu_memory_mb'] / 1000:.1f} GB"
    lines.append(memory + (f"; not counted: {estimate['left_out']}" if "left_out" in estimate else ""))
    return lines


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 1 else "under 1 s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
