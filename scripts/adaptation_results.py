"""Does an encoder that first reads the catalogue's language pair better? MiniLM, adapted in several ways, then `dalr`.

    python scripts/adaptation_results.py --data $DALR_DATA --out runs/adaptation --json assets/results/adaptation.json

Each cell adapts MiniLM by configs/antlm-adapt.yaml with its schedule (all of one length), measures it on the STS
benchmark's dev part, and trains configs/fashion.yaml with it as the frozen text tower; val reports. Restartable;
`--finished` runs nothing and prints what is there. Cells of the same recipe that `--json` already holds are kept.
"""

import argparse
from pathlib import Path

from antlm_results import scaled
from measured import json_once, print_cells, run_result, with_earlier, write_result

from dalr import DualEncoder
from dalr.antlm.config import LanguageConfig
from dalr.config import apply_overrides, parse_config, read_yaml
from dalr.evaluation.sts import sts_dev
from dalr.run import load_run_config
from dalr.run.language import run_language_modelling
from dalr.run.training import run_training

ADAPT, PAIRS = Path("configs/antlm-adapt.yaml"), "configs/fashion.yaml"
# Shares of the run.
SCHEDULES = {"none": None, "MLM": "4_MLM", "CLM→MLM": "2_CLM+2_MLM", "AntLM": "1_CLM+2_MLM+1_CLM"}
WHOLE = 4


def main() -> None:
    """Run what is missing, then print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of fashion/, flickr8k/, models/ and sts/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--epochs", type=float, default=WHOLE, help="of adapting")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--adapt", action="append", default=[], metavar="KEY=VALUE", help="an override of adapting")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="an override of the pairs")
    parser.add_argument("--finished", action="store_true", help="train nothing, report what is there")
    options = parser.parse_args()

    adapting = {"config": read_yaml(ADAPT), "overrides": options.adapt, "epochs": options.epochs}
    pairs = {"config": read_yaml(Path(PAIRS)), "overrides": options.set}
    recipe, found = with_earlier(options.json, {"adapting": adapting, "pairs": pairs, "schedules": SCHEDULES})
    for seed in options.seeds:
        for name, schedule in SCHEDULES.items():
            figures = cell(options, schedule, seed)
            if figures:
                found.setdefault(name, {})[str(seed)] = figures
    print_cells({"adapted by": found}, dict.items)
    if options.json is not None:
        write_result(options.json, {**recipe, "cells": found})


def cell(options: argparse.Namespace, schedule: str | None, seed: int) -> dict[str, float]:
    """Adapt, measure, train on pairs."""
    encoder, name = read_yaml(ADAPT)["model"]["name"], "none"
    figures: dict[str, float] = {}
    if schedule is not None:
        name = scaled(schedule, options.epochs / WHOLE)
        out = options.out / f"{name}-{seed}"
        encoder = str(out)
        own = [f"schedule={name}", f"train.seed={seed}"]
        config = parse_config(LanguageConfig, apply_overrides(read_yaml(ADAPT), [*options.adapt, *own]), str(ADAPT))
        if not options.finished:
            run_language_modelling(config, out)
        adapted = run_result(out, config)
        if adapted is None:
            return {}
        figures |= adapted["figures"]
    dev = json_once(
        options.out / f"{name}-{seed}-dev.json",
        options.finished,
        lambda: sts_dev(DualEncoder.from_pretrained(encoder), options.data / "sts"),
    )
    pairs = options.out / f"{name}-{seed}-pairs"
    training = load_run_config(PAIRS, [*options.set, f"model.text.name={encoder}", f"train.seed={seed}"])
    if not options.finished:
        run_training(training, pairs)
    trained = run_result(pairs, training)
    if trained is not None:
        figures |= {f"mrr.{way}": trained["val"][way]["mrr"] for way in ("text_to_image", "image_to_text")}
    return figures | (dev or {})


if __name__ == "__main__":
    main()
