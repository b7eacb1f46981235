"""`dalr mine`: hard negatives for pairs of texts."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dalr.cli import Json, app, command, print_json
from dalr.cli.options import (
    Device,
    GroupColumn,
    ImageColumn,
    ModelName,
    Split,
    SplitColumn,
    TextColumn,
    check_output,
    load_model,
)
from dalr.cli.progress import bar

if TYPE_CHECKING:
    from dalr.data.pairs import Pairs, Texts
    from dalr.data.records import BadRow
    from dalr.encoders import TextEncoder

SHOWN = 5
COUNTS = {
    "known_positives": "known positives",
    "outside_ranks": "outside the window of ranks",
    "refused_by_margin": "refused by the margin",
    "refused_by_teacher": "refused by the teacher",
    "spare": "allowed, not needed",
    "negatives": "negatives",
}


@dataclass
class Found:
    """What --data holds. `candidates` is None where they are to be taken from the pairs."""

    pairs: "Pairs"
    bad: list["BadRow"]
    candidates: "Texts | None" = None
    below_threshold: int | None = None
    lone_captions: int | None = None


@command(app, "mine")
def mine(
    model: ModelName,
    data: Annotated[str, typer.Option("--data", help="Pairs, scored pairs (with --threshold), or a catalogue.")],
    out: Annotated[Path, typer.Option("--out", help="CSV of triplets to write.")],
    threshold: Annotated[
        float | None, typer.Option(help="Read scored pairs; those with this score or more are positives.")
    ] = None,
    corpus: Annotated[str | None, typer.Option(help="File of candidates; by default texts of --data.")] = None,
    candidates: Annotated[
        str | None, typer.Option(help="Texts of the pairs that are candidates: positives (default), anchors, both.")
    ] = None,
    ranks: Annotated[str, typer.Option(help="Window of ranks: 10:100 skips the first 10, ends with the 100th.")] = (
        "0:100"
    ),
    margin: Annotated[
        float | None, typer.Option(help="A negative's cosine is at most the positive's minus this.")
    ] = None,
    share: Annotated[
        float, typer.Option(help="It is at most this share of the positive's; 0 for no such rule.")
    ] = 0.95,
    teacher: Annotated[
        str | None, typer.Option(help="Encoder that refuses what it finds as near as the positive.")
    ] = None,
    teacher_margin: Annotated[float, typer.Option(help="Refused from the positive's cosine minus this.")] = 0.0,
    teacher_ceiling: Annotated[float | None, typer.Option(help="Refused above this cosine in any case.")] = None,
    negatives: Annotated[int, typer.Option(help="Most negatives of a pair, each a row of its own.")] = 1,
    choice: Annotated[str, typer.Option(help="top: the nearest that are left; random: drawn among them.")] = "top",
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 0,
    anchor_prompt: Annotated[str | None, typer.Option(help="Prompt of the anchors: a name or a text.")] = None,
    candidate_prompt: Annotated[str | None, typer.Option(help="Prompt of positives and candidates.")] = None,
    scores: Annotated[bool, typer.Option("--scores", help="Add the rank and the cosines as columns.")] = False,
    split: Split = None,
    image_column: ImageColumn = None,
    text_column: TextColumn = None,
    group_column: GroupColumn = None,
    split_column: SplitColumn = None,
    device: Device = None,
    json_output: Json = False,
) -> None:
    """Find a hard negative for each anchor: near it by the model, and no positive as far as can be told.

    --data is a table with the columns anchor and positive (and group, if there is one), or a file of scored pairs,
    or a catalogue, where the captions of one group or image are positives of each other. Candidates are ranked by
    cosine; texts that any pair or group puts together with the anchor or its positive are never negatives. The
    result is a CSV that data.triplets of a training config reads.

    --json prints: out, model, teacher, pairs (= with_negatives + without), candidates; what became of pairs x
    candidates: known_positives, outside_ranks, refused_by_margin, refused_by_teacher, spare, negatives; without_rows
    (each with where, anchor, reason); below_threshold, lone_captions (null where they do not apply); bad (number of
    rows that cannot be used), bad_rows (the first 20: file, row, key, reason).
    """
    from dalr.config import parse_config
    from dalr.errors import UsageError
    from dalr.mining import MiningConfig, mine_texts, write_triplets

    if candidates not in (None, "positives", "anchors", "both"):
        raise UsageError(f"--candidates {candidates}: expected positives, anchors or both")
    if candidates is not None and corpus is not None:
        raise UsageError("--candidates and --corpus exclude each other: candidates come from the pairs or from a file")
    if teacher is None and (teacher_margin or teacher_ceiling is not None):
        raise UsageError("--teacher-margin and --teacher-ceiling need --teacher")
    values = {
        "ranks": _window(ranks),
        "margin": margin,
        "share": share or None,
        "teacher_margin": teacher_margin,
        "teacher_ceiling": teacher_ceiling,
        "negatives": negatives,
        "choice": choice,
        "seed": seed,
    }
    config = parse_config(MiningConfig, values, "options")
    if out.is_dir():
        raise UsageError(f"--out {out}: is a folder; expected the name of a CSV file")
    check_output("--out", out, data, corpus)
    found = _read(data, threshold, split, image_column, text_column, group_column, split_column)
    texts = found.candidates
    if corpus is not None:
        texts, bad_candidates = _corpus(corpus, text_column)
        found.bad.extend(bad_candidates)
    elif texts is None:
        texts = found.pairs.candidates(candidates or "positives")  # type: ignore[arg-type]
    elif candidates is not None:
        raise UsageError("--candidates is for pairs; in a catalogue every caption is a candidate")
    encoder = _text_tower(model, device)
    guard = None if teacher is None else _text_tower(teacher, device)
    with bar("embedding") as embedding:
        mined, distinct = mine_texts(
            found.pairs,
            texts,
            encoder,
            config,
            teacher=guard,
            prompts=(anchor_prompt, candidate_prompt),
            device=encoder.device,
            embedding=embedding,
        )
    try:
        write_triplets(out, found.pairs, mined, distinct, scores=scores)
    except OSError as error:
        raise UsageError(f"--out {out}: cannot be written ({error.strerror})") from None
    without = [
        {"where": found.pairs.where[pair], "anchor": found.pairs.anchors[pair], "reason": reason}
        for pair, reason in mined.without.items()
    ]
    if json_output:
        print_json(
            {
                "out": str(out),
                "model": model,
                "teacher": teacher,
                **mined.counts,
                "without_rows": without,
                "below_threshold": found.below_threshold,
                "lone_captions": found.lone_captions,
                "bad": len(found.bad),
                "bad_rows": [asdict(row) for row in found.bad[:20]],
            }
        )
        return
    _show(mined.counts, without, found)
    typer.echo(f"triplets: {out}")


def _window(written: str) -> tuple[int, int]:
    from dalr.errors import UsageError

    first, colon, last = written.partition(":")
    if not colon or not first.strip().isdecimal() or not last.strip().isdecimal():
        raise UsageError(f"--ranks {written}: expected FIRST:LAST, such as 10:100")
    return int(first), int(last)


def _read(
    data: str,
    threshold: float | None,
    split: str | None,
    image: str | None,
    text: list[str] | None,
    group: str | None,
    split_column: str | None,
) -> Found:
    """The pairs of --data, whichever of the three kinds it is."""
    from dalr.cli.options import load_manifest
    from dalr.data.pairs import caption_pairs, has_pairs, has_scored_pairs, read_pairs, scored_positives
    from dalr.data.sources import read_source
    from dalr.errors import UsageError

    catalogue_only = {"--split": split, "--image-column": image, "--text-column": text, "--split-column": split_column}
    given = [name for name, value in catalogue_only.items() if value]
    if threshold is not None:
        if group or given:
            raise UsageError(f"{(*given, '--group-column')[0]}: scored pairs (--threshold) have no such column")
        pairs, bad, below = scored_positives(data, threshold)
        return Found(pairs, bad, below_threshold=below)
    table = read_source(data)
    if has_pairs(table):
        if given:
            raise UsageError(f"{given[0]}: {data} holds pairs, of which every row is taken; it is for catalogues")
        return Found(*read_pairs(table, data, group))
    if has_scored_pairs(table):
        raise UsageError(f"{data}: holds scored pairs; say with --threshold from which score on they are positives")
    manifest = load_manifest(data, split, image=image, text=text, group=group, split_column=split_column)
    pairs, captions, lone = caption_pairs(manifest)
    return Found(pairs, list(manifest.bad), captions, lone_captions=lone)


def _corpus(source: str, text: list[str] | None) -> tuple["Texts", list["BadRow"]]:
    """The texts of a file as candidates, and its rows that cannot be used."""
    from dalr.cli.options import load_manifest
    from dalr.data.pairs import Texts
    from dalr.errors import DataError

    manifest = load_manifest(source, None, text=text)
    rows = [row for row, found in enumerate(manifest.texts) if found]
    if not rows:
        raise DataError(f"{source}: no row has a text; expected one candidate a row")
    groups = manifest.group or [None] * len(manifest)
    return Texts([manifest.texts[row] or "" for row in rows], [groups[row] for row in rows]), manifest.bad


def _text_tower(name: str, device: str | None) -> "TextEncoder":
    from dalr.errors import ModelError

    tower = load_model(name, device).text
    if tower is None:
        raise ModelError(f"{name}: has no text tower, and negatives are mined among texts")
    return tower


def _show(counts: dict[str, int], without: list[dict[str, Any]], found: Found) -> None:
    from dalr.cli.tables import show_table

    total = counts["pairs"] * counts["candidates"]
    rows = [[name, f"{counts[key]:,}", f"{counts[key] / total:.3%}"] for key, name in COUNTS.items()]
    title = f"{counts['pairs']:,} pairs x {counts['candidates']:,} candidates"
    show_table(title, ["of the candidates", "count", "share"], rows)
    typer.echo(f"\n{counts['with_negatives']:,} pairs have a negative, {counts['without']:,} have none")
    for row in without[:SHOWN]:
        typer.echo(f"none: {row['where']}: {row['reason']}")
    if len(without) > SHOWN:
        typer.echo(f"… and {len(without) - SHOWN:,} more (--json lists all)")
    if found.below_threshold is not None:
        typer.echo(f"pairs below the threshold: {found.below_threshold:,}")
    if found.lone_captions:
        typer.echo(f"captions alone in their group, so without a pair: {found.lone_captions:,}")
    for bad in found.bad[:SHOWN]:
        typer.echo(f"skipped: {bad.where}: {bad.reason}")
    if found.bad:
        typer.echo(f"rows that cannot be used: {len(found.bad):,}")
