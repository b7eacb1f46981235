"""What a search of fashion products finds: by pictures, by captions, by words and by both, over trained models.

    python scripts/search_results.py --data $DALR_DATA/fashion --out runs/search \\
        --model runs/audit/regain/0/clean-dalr --model runs/audit/regain/1/clean-dalr \\
        --model runs/audit/regain/2/clean-dalr \\
        --json assets/results/search.json

The products of val.csv, which no model saw, are embedded and indexed. A query is a colour and a kind of article that
at least five of them share ("Blue Shirts"), as words, as the photo of such a product of train.csv, or as both; products
of that colour and kind are relevant. Then all products get an approximate index, whose recall@10 is measured against
looking at every row.
"""

import argparse
import statistics
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from measured import print_cells, write_result, write_titles

from dalr import DualEncoder
from dalr.catalogue.embed import embed_catalogue
from dalr.catalogue.index import index_catalogue
from dalr.catalogue.search import Hit
from dalr.catalogue.table_search import SearchTable
from dalr.data.manifest import DataConfig, Manifest

LEAST = 5  # products of a colour and kind
K = 10
COLUMNS = DataConfig(image="image", text="title")


def main() -> None:
    """Embed, index and search with every model, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of train.csv, val.csv and images/")
    parser.add_argument("--model", action="append", required=True, help="a trained run; several are several seeds")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    train, val = (Manifest.load(options.data / f"{name}.csv", COLUMNS) for name in ("train", "val"))
    every = joined(options, train, val)
    found: dict[str, Any] = {}
    for number, source in enumerate(options.model):
        model = DualEncoder.from_pretrained(source)
        table = searchable(model, source, val, options.out / f"val-{number}")
        for way, figure in quality(table, train, val).items():
            found.setdefault("search", {}).setdefault(way, {})[str(number)] = {"ndcg@10": figure}
        table = searchable(model, source, every, options.out / f"all-{number}", indexed_from=1000)
        for side in table.sides:
            recall = round(100 * table.recall(k=K, against=side), 2)
            found.setdefault("index", {}).setdefault(side, {})[str(number)] = {"recall@10": recall}
    print_cells(found, dict.items)
    if options.json is not None:
        sizes = {"searched": len(val), "queries": len(queries(train, val)), "indexed": len(every)}
        write_result(options.json, {"models": options.model, **sizes, "cells": found})


def joined(options: argparse.Namespace, train: Manifest, val: Manifest) -> Manifest:
    """All products as one catalogue."""
    path = options.out / "all.csv"
    write_titles(path, train, val)
    return Manifest.load(path, COLUMNS.model_copy(update={"root": str(options.data)}))


def searchable(model: DualEncoder, source: str, manifest: Manifest, out: Path, **indexing: Any) -> SearchTable:
    """The search table of these products."""
    embed_catalogue(model, source, manifest, out / "store")
    index_catalogue(out / "store", manifest, out / "db", **indexing)
    table = SearchTable(out / "db")
    table.model = model
    return table


def kinds(manifest: Manifest) -> list[tuple[Any, Any]]:
    """Colour and article type of each row."""
    return list(zip(manifest.columns["colour"], manifest.columns["article_type"], strict=True))


def queries(train: Manifest, val: Manifest) -> dict[tuple[Any, Any], Path]:
    """What is asked for, with a photo of such a product that is not in the table."""
    photos = {kind: train.root / str(image) for kind, image in zip(kinds(train), train.images, strict=True)}
    wanted = [kind for kind, count in Counter(kinds(val)).items() if count >= LEAST and kind in photos]
    return {kind: photos[kind] for kind in sorted(wanted)}


def quality(table: SearchTable, train: Manifest, val: Manifest) -> dict[str, float]:
    """nDCG@10 × 100 of each way to search, the mean over the queries."""
    places = {key: row for row, key in enumerate(val.keys)}
    discounts = 1 / np.log2(np.arange(K) + 2)

    def by_words(**how: Any) -> Callable[[str, Path], list[Hit]]:
        return lambda text, photo: table.search(text=text, k=K, **how)

    ways: dict[str, Callable[[str, Path], list[Hit]]] = {
        "text to pictures": by_words(against="image"),
        "text to captions": by_words(against="text"),
        "words (BM25)": by_words(mode="words"),
        "words and pictures (hybrid)": by_words(mode="hybrid", against="image"),
        "words and captions (hybrid)": by_words(mode="hybrid", against="text"),
        "photo to pictures": lambda text, photo: table.search(image=photo, k=K),
        "photo to captions": lambda text, photo: table.search(image=photo, against="text", k=K),
        "photo and text to pictures": lambda text, photo: table.search(text=text, image=photo, k=K),
    }
    figures: dict[str, list[float]] = {way: [] for way in ways}
    of = kinds(val)
    for kind, photo in queries(train, val).items():
        ideal = discounts[: of.count(kind)].sum()
        for way, search in ways.items():
            gained = [discounts[hit.rank - 1] for hit in search(" ".join(kind), photo) if of[places[hit.key]] == kind]
            figures[way].append(sum(gained) / ideal)
    return {way: round(100 * statistics.mean(values), 2) for way, values in figures.items()}


if __name__ == "__main__":
    main()
