"""The fashion table: every objective at every share of shuffled captions, several seeds, on the validation part.

    python scripts/fashion_results.py --out runs/fashion            # all cells, restartable
    python scripts/fashion_results.py --out runs/fashion --write assets/results/fashion.json
    python scripts/fashion_results.py --out runs/tuning --dev 0.1 --shuffled 0 --recipes scripts/fashion_recipes.yaml

A cell is one `dalr train configs/fashion.yaml …` in a run folder of its own: a finished cell is not run again, a
killed one goes on. Tuning (the last line) uses a dev part carved from train by title and sees nothing of val; the
table trains on the whole train part for the tuned number of epochs, selects no checkpoint, and val only reports.
"""

import argparse
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from dalr.evaluation.parts import Part, embed_part, part_relevance
from dalr.evaluation.retrieval import DIRECTIONS, score_queries
from dalr.files import write_json
from dalr.model import DualEncoder
from dalr.run import load_run_config
from dalr.run.assembly import load_parts
from dalr.run.training import run_training
from dalr.run_folder import read_run
from dalr.training_data import pair_rows

CONFIG = "configs/fashion.yaml"
WIDE = ["model.text_head.hidden=2048", "model.image_head.hidden=2048", "train.epochs=30"]
# What each method changes of the config; everything else (heads, features, schedule, epochs) is the same for all, and
# the two wide ones are alike.
METHODS: dict[str, list[str]] = {
    "clip": ["objective={name: clip}"],
    "siglip": ["objective={name: siglip, cross_temperature: 0.07}"],
    "clip_weighted": ["objective={name: clip, pair_weights: true}"],
    "dalr": [],
    "clip_wide": ["objective={name: clip}", *WIDE],
    "dalr_wide": WIDE,
    # The text tower too, from where `dalr` with both towers frozen ended.
    "dalr_text": [
        "model.heads={out}/dalr-{shuffled}-{seed}",
        "model.text.train=full",
        "train.epochs=3",
        "train.lr=1e-4",
        "train.text_lr=3e-5",
    ],
}


def cell_overrides(recipe: Sequence[str], out: Path, share: float, seed: int, dev: float) -> list[str]:
    """What makes a cell out of the config; `{out}`, `{shuffled}` and `{seed}` in a recipe name another cell."""
    known = {"{out}": str(out), "{shuffled}": f"{share:g}", "{seed}": str(seed)}
    for name, value in known.items():
        recipe = [override.replace(name, value) for override in recipe]
    measured_on_dev = ["data.val=null", f"data.dev={dev}"] if dev else []
    return [*recipe, f"data.shuffle_captions={share}", f"train.seed={seed}", *measured_on_dev]


def reciprocal_ranks(out: Path) -> dict[str, np.ndarray]:
    """The reciprocal rank of every val (or dev) query of a finished cell, by direction; kept beside the cell."""
    kept = out / "reciprocal_ranks.npz"
    if not kept.exists():
        import torch

        record = json.loads((out / "run.json").read_text())
        config = load_run_config(CONFIG, record["overrides"])
        model = DualEncoder.from_pretrained(out)
        measured = load_parts(config.data, config.train.seed)[1]
        assert measured is not None
        part = Part(*pair_rows(measured, model))
        found = part_relevance(part)
        text, image = (torch.from_numpy(rows) for rows in embed_part(model, part, found))
        np.savez(
            kept,
            text_to_image=1 / score_queries(text, image, found.text_facts, found.image_facts).rank,
            image_to_text=1 / score_queries(image, text, found.image_facts, found.text_facts).rank,
        )
    with np.load(kept) as arrays:
        return {name: arrays[name] for name in DIRECTIONS}


def paired_difference(a: Sequence[np.ndarray], b: Sequence[np.ndarray], resamples: int = 2000) -> dict[str, float]:
    """Mean difference a − b in MRR points with its 95 % interval: bootstrap over seeds and, paired, over queries."""
    difference = 100 * (np.stack(a) - np.stack(b))
    generator = np.random.default_rng(0)
    seeds, queries = difference.shape
    means = [
        difference[generator.integers(seeds, size=seeds)][:, generator.integers(queries, size=queries)].mean()
        for _ in range(resamples)
    ]
    low, high = np.percentile(means, [2.5, 97.5])
    return {
        "difference": round(float(difference.mean()), 2),
        "low": round(float(low), 2),
        "high": round(float(high), 2),
    }


def table(cells: Sequence[dict[str, Any]]) -> str:
    """The cells as Markdown: mean ± sd of MRR over seeds, text→image / image→text."""
    shares = sorted({cell["shuffled"] for cell in cells})
    lines = ["| method | " + " | ".join(f"{share:.0%} shuffled" for share in shares) + " |"]
    lines.append("|---" * (len(shares) + 1) + "|")
    for method in dict.fromkeys(cell["method"] for cell in cells):
        row = [method]
        for share in shares:
            mine = [cell["mrr"] for cell in cells if cell["method"] == method and cell["shuffled"] == share]
            values = [[mrr[direction] for mrr in mine] for direction in DIRECTIONS]
            row.append(" / ".join(f"{np.mean(v):.1f} ± {np.std(v, ddof=len(v) > 1):.1f}" for v in values if v))
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run the grid and print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of run folders")
    parser.add_argument("--methods", nargs="+", help="some of the methods (default: all)")
    parser.add_argument("--recipes", type=Path, help="YAML: name → its overrides, instead of the table's methods")
    parser.add_argument("--dev", type=float, default=0.0, help="measure on this share of train, carved off; val unseen")
    parser.add_argument("--shuffled", nargs="+", type=float, default=[0.0, 0.2, 0.4])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--finished", action="store_true", help="train nothing: the table of the cells that are there")
    parser.add_argument("--baseline", default="clip")
    parser.add_argument("--write", type=Path, help="JSON result")
    options = parser.parse_args()

    cells: list[dict[str, Any]] = []
    ranks: dict[tuple[str, float], dict[int, dict[str, np.ndarray]]] = {}
    methods = yaml.safe_load(options.recipes.read_text()) if options.recipes else METHODS
    for method in options.methods or methods:
        for share in options.shuffled:
            for seed in options.seeds:
                overrides = cell_overrides(methods[method], options.out, share, seed, options.dev)
                out = options.out / f"{method}-{share:g}-{seed}"
                if options.finished and (read_run(out) or {}).get("status") != "finished":
                    continue
                result = run_training(load_run_config(CONFIG, overrides), out)
                record = json.loads((out / "run.json").read_text())
                if record.get("overrides") != overrides:
                    write_json(out / "run.json", {**record, "overrides": overrides})
                own = reciprocal_ranks(out)
                ranks.setdefault((method, share), {})[seed] = own
                mrr = {direction: round(100 * float(own[direction].mean()), 2) for direction in DIRECTIONS}
                quoted = " ".join(f"'{override}'" for override in overrides)
                cells.append(
                    {
                        "method": method,
                        "shuffled": share,
                        "seed": seed,
                        "command": f"dalr train {CONFIG} {quoted} --out {out}",
                        "seconds": result.seconds,
                        "mrr": mrr,
                        "val": result.val and {direction: result.val[direction] for direction in DIRECTIONS},
                    }
                )
                shown = " / ".join(f"{value:.2f}" for value in mrr.values())
                print(f"{method:12} {share:4.0%} seed {seed}: {shown}  ({result.seconds:.0f} s)", flush=True)

    # The dev parts of two seeds are different queries: only val can be compared query by query.
    differences: dict[str, dict[str, dict[str, float]]] = {}
    for (method, share), found in () if options.dev else ranks.items():
        baseline = ranks.get((options.baseline, share), {})
        seeds = sorted(found.keys() & baseline.keys())
        if method != options.baseline and seeds:
            differences[f"{method} at {share:.0%}"] = {
                direction: paired_difference(
                    [found[seed][direction] for seed in seeds], [baseline[seed][direction] for seed in seeds]
                )
                for direction in DIRECTIONS
            }
    print(table(cells))
    for name, both in differences.items():
        shown = "  ".join(f"{d}: {v['difference']:+.2f} [{v['low']:+.2f}, {v['high']:+.2f}]" for d, v in both.items())
        print(f"{name} against {options.baseline}: {shown}")
    if options.write:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip()
        summary = {"commit": commit, "config": CONFIG, "baseline": options.baseline, "table": table(cells).splitlines()}
        write_json(options.write, {**summary, "differences": differences, "cells": cells})


if __name__ == "__main__":
    main()
