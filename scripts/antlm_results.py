"""AntLM against its parts: schedules of one length, from scratch, over presets and seeds.

    python scripts/antlm_results.py --data $DALR_DATA --out runs/antlm --json assets/results/antlm.json

Every cell trains configs/antlm-encoder.yaml with its schedule on the same text for the same number of epochs, and is
measured on held-out text, on BLiMP (`--blimp-part dev` to choose schedules by a tenth of it, `test` to report the rest)
and, after one unsupervised SimCSE stage of configs/simcse-2tier.yaml, on the STS benchmark's dev part. Restartable;
`--finished` runs nothing and prints what is there. Cells of the same recipe that `--json` already holds are kept.
"""

import argparse
import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from measured import json_once, print_cells, run_result, with_earlier, write_result

from dalr import DualEncoder
from dalr.antlm.config import LanguageConfig
from dalr.config import apply_overrides, parse_config, read_yaml
from dalr.evaluation.blimp import evaluate_blimp, read_blimp
from dalr.evaluation.sts import sts_dev
from dalr.evaluation.transfer import evaluate_transfer
from dalr.files import write_atomically
from dalr.lm import load_language_model
from dalr.run.language import run_language_modelling
from dalr.run.stages import stage_config
from dalr.run.training import run_training
from dalr.simcse.stages import PipelineConfig

CONFIG, PIPELINE = Path("configs/antlm-encoder.yaml"), Path("configs/simcse-2tier.yaml")
# Shares of the run; each schedule's sum is 24, as in the paper.
SCHEDULES = {
    "MLM": "24_MLM",
    "CLM": "24_CLM",
    "CLM→MLM": "12_CLM+12_MLM",
    "AntLM 4+16+4": "4_CLM+16_MLM+4_CLM",
    "AntLM 4×(2+4)": "+".join(["2_CLM+4_MLM"] * 4),
}
WHOLE = 24


def main() -> None:
    """Run what is missing, then print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of wikinews/, blimp/, sts/ and flickr8k/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--presets", nargs="+", default=["ltg-bert", "babyllama"])
    parser.add_argument("--schedule", action="append", default=[], metavar="NAME=TEXT", help="in place of the table's")
    parser.add_argument("--epochs", type=float, default=2.4, help="of the whole run; a schedule gives their shares")
    parser.add_argument("--words", type=int, default=1_000_000, help="of the first articles, which all cells train on")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--blimp-part", default="test", choices=["dev", "test"])
    parser.add_argument("--per-task", type=int, default=200, help="pairs of each BLiMP task")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="an override of the config")
    parser.add_argument("--simcse", nargs="*", metavar="KEY=VALUE", help="also the SimCSE stage, with overrides")
    parser.add_argument("--transfer", action="store_true", help="and the transfer tasks after it")
    parser.add_argument("--finished", action="store_true", help="train nothing, report what is there")
    options = parser.parse_args()

    text = write_slice(options.data / "wikinews/articles.jsonl.gz", options.out, options.words)
    schedules = dict(entry.split("=", 1) for entry in options.schedule) or SCHEDULES
    recipe: dict[str, Any] = {"config": read_yaml(CONFIG), "overrides": options.set, "epochs": options.epochs}
    recipe |= {"words": options.words, "blimp": [options.blimp_part, options.per_task], "schedules": schedules}
    recipe["simcse"] = {"config": read_yaml(PIPELINE), "overrides": options.simcse}
    recipe, found = with_earlier(options.json, recipe)
    for seed in options.seeds:
        for preset in options.presets:
            for name, schedule in schedules.items():
                figures = cell(options, text, preset, scaled(schedule, options.epochs / WHOLE), seed)
                if figures:
                    found.setdefault(preset, {}).setdefault(name, {})[str(seed)] = figures
    print_cells(found, flat)
    if options.json is not None:
        write_result(options.json, {**recipe, "cells": found})


def scaled(schedule: str, scale: float) -> str:
    """The schedule with its numbers in epochs of the run."""
    phases = (phase.split("_") for phase in schedule.split("+"))
    return "+".join(f"{float(length) * scale:g}_{kind}" for length, kind in phases)


def write_slice(articles: Path, out: Path, words: int) -> Path:
    """The first articles, as many as hold so many words, in a file of their own."""
    path = out / f"articles-{words}.jsonl"
    if not path.is_file():
        out.mkdir(parents=True, exist_ok=True)
        lines = []
        with gzip.open(articles, "rt", encoding="utf-8") as source:
            for line in source:
                words -= len((json.loads(line)["text"] or "").split())
                if words < 0:
                    break
                lines.append(line)
        write_atomically(path, "".join(lines))
    return path


def cell(options: argparse.Namespace, text: Path, preset: str, schedule: str, seed: int) -> dict[str, Any]:
    """Train one language model where it is not yet, and measure it."""
    out = options.out / preset / f"{schedule}-{seed}"
    own = [f"data.paths=['{text}']", f"model.new.preset={preset}", f"schedule={schedule}", f"train.seed={seed}"]
    config = parse_config(LanguageConfig, apply_overrides(read_yaml(CONFIG), [*options.set, *own]), str(CONFIG))
    if not options.finished:
        run_language_modelling(config, out)
    result = run_result(out, config)
    if result is None:
        return {}
    figures: dict[str, Any] = {"steps": result["steps"], "seconds": result["seconds"], **result["figures"]}

    def blimp() -> dict[str, Any]:
        tasks, _ = read_blimp(options.data / "blimp", options.blimp_part, options.per_task)
        return evaluate_blimp(load_language_model(str(out)), tasks)

    kept = json_once(out / f"blimp-{options.blimp_part}-{options.per_task}.json", options.finished, blimp)
    for scoring in ("causal", "masked") if kept else ():
        figures[f"blimp.{scoring}"] = kept[scoring]["avg"]
    if options.simcse is not None:
        figures |= after_simcse(options, out, seed)
    return figures


def after_simcse(options: argparse.Namespace, start: Path, seed: int) -> dict[str, Any]:
    """The unsupervised stage from this encoder, and what is measured after it."""
    out = start.with_name(f"{start.name}-simcse")
    if not options.finished:
        own = [f"model.text.name={start}", f"train.seed={seed}"]
        config = parse_config(PipelineConfig, apply_overrides(read_yaml(PIPELINE), [*options.simcse, *own]))
        run_training(stage_config(config, "unsup", config.values("unsup", str(start)), str(PIPELINE)), out)

    def measured(measure: Callable[[DualEncoder], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
        return lambda: measure(DualEncoder.from_pretrained(out))

    found = dict(
        json_once(out / "dev.json", options.finished, measured(lambda m: sts_dev(m, options.data / "sts"))) or {}
    )
    if options.transfer:
        folder = options.data / "transfer"
        transfer = json_once(out / "transfer.json", options.finished, measured(lambda m: evaluate_transfer(m, folder)))
        found |= {} if transfer is None else {"transfer": transfer}
    return found


def flat(figures: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """The figures that the table shows."""
    for key, value in figures.items():
        if key == "transfer":
            yield "transfer.avg7", value["avg7"]
        elif key not in ("steps", "seconds"):
            yield key, value


if __name__ == "__main__":
    main()
