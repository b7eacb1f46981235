"""What an audit finds of planted faults: captions swapped across kinds of product, and within one (hard), over seeds.

    python scripts/audit_results.py --data $DALR_DATA --out runs/audit --json assets/results/audit.json
    python scripts/audit_results.py --data $DALR_DATA --out runs/audit --regain --json assets/results/audit_regain.json

Each cell plants faults into the fashion train part (kinds are article types; hard swaps keep article type and colour)
or Flickr8k (one caption a picture), and ranks the rows by: the cosine of a model trained on these same rows; the
neighbours alone; the audit by two plain encoders; the audit with cross-fitted heads. `--regain` trains on the audited
manifest and measures what it regains on the validation part. Restartable; `--finished` reports what is there.
"""

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from measured import json_once, print_cells, run_result, write_result, write_titles

from dalr import DualEncoder
from dalr.catalogue.audit import AuditConfig, audit_catalogue, write_audit
from dalr.catalogue.audit.crossfit import FrozenPairs, embed_rows, train_fold
from dalr.catalogue.audit.evidence import Judge, Judgement, judge_pairs
from dalr.config import parse_config
from dalr.data.faults import swap_captions
from dalr.data.manifest import DataConfig, Manifest
from dalr.evaluation.embeddings import image_features, text_features
from dalr.model import ModelConfig
from dalr.objectives import ObjectiveConfig
from dalr.run import load_run_config
from dalr.run.training import run_training

FASHION = "configs/fashion.yaml"
SHARES = (0.05, 0.1, 0.2, 0.4)
HARD_SHARES = (0.05, 0.1, 0.2)  # more cannot be planted: few kinds have so many different captions
FOLDS = 5


def main() -> None:
    """Run what is missing, then print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of fashion/, flickr8k/ and models/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--sets", nargs="+", default=["fashion", "flickr8k"])
    parser.add_argument("--shares", type=float, nargs="+", help="instead of the table's")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folds", type=int, default=FOLDS)
    parser.add_argument("--precision", default="auto", help="of all training: auto, fp32 or bf16")
    parser.add_argument("--regain", action="store_true", help="train on the audited manifest instead")
    parser.add_argument("--finished", action="store_true", help="compute nothing, report what is there")
    options = parser.parse_args()

    found: dict[str, Any] = {}
    for group, cell, seed, figures in regained(options) if options.regain else cells(options):
        found.setdefault(group, {}).setdefault(cell, {})[str(seed)] = figures
    print_cells(found, lambda figures: [(key, value) for key, value in figures.items() if key != "wrong"])
    if options.json is not None:
        write_result(options.json, {"folds": options.folds, "cells": found})


def cells(options: argparse.Namespace) -> Iterator[tuple[str, str, int, dict[str, float]]]:
    """(data set and faults, method, seed, figures)."""
    for name in options.sets:
        for hard in (False, True) if name == "fashion" else (False,):
            for share in options.shares or (HARD_SHARES if hard else SHARES):
                for seed in options.seeds:
                    kind = "hard" if hard else "random"
                    path = options.out / name / f"{kind}-{share:g}-{seed}.json"
                    make = partial(measure, options, name, hard, share, seed)
                    figures = json_once(path, options.finished, make)
                    for method, one in (figures or {}).items():
                        yield f"{name}, {kind}, {share:.0%}", method, seed, one


def measure(options: argparse.Namespace, name: str, hard: bool, share: float, seed: int) -> dict[str, Any]:
    """Plant, judge by every method, compare with what was planted."""
    manifest, wrong = plant(options, name, hard, share, seed)
    model = fashion_model()
    texts, images = text_features(model, manifest), image_features(model, manifest)
    pairs = FrozenPairs(model, texts.stored, images.stored, manifest.ids(images.keys))
    config = audit_config(options, seed)
    plain = config.crossfit.model_copy(update={"objective": ObjectiveConfig(name="clip")})
    every = np.arange(len(manifest), dtype=np.int64)
    text_ND, image_ND = embed_rows(train_fold(pairs, every, plain, config.neighbours, seed), pairs, every)
    cosine = (text_ND * image_ND).sum(1).numpy()
    alone = judge_pairs(pairs, manifest.keys, config.model_copy(update={"folds": 1}), shared=False)
    folded = judge_pairs(pairs, manifest.keys, config, shared=False)
    return {
        "cosine": ranking(-cosine, wrong),
        "neighbours": ranking(-alone[1].raw["neighbours"], wrong),
        "audit": judged(*alone, wrong),
        f"audit, {options.folds} folds": judged(*folded, wrong),
    }


def audit_config(options: argparse.Namespace, seed: int) -> AuditConfig:
    """The audit as it is by default, in folds."""
    train = {"precision": options.precision}
    config = parse_config(AuditConfig, {"folds": options.folds, "seed": seed})
    crossfit = config.crossfit.model_copy(update={"train": config.crossfit.train.model_copy(update=train)})
    return config.model_copy(update={"crossfit": crossfit})


def fashion_model() -> DualEncoder:
    """The two plain encoders of the fashion config; their heads are fresh."""
    config = load_run_config(FASHION, []).model
    return DualEncoder.build(ModelConfig(text=config.text, image=config.image))


def plant(
    options: argparse.Namespace, name: str, hard: bool, share: float, seed: int
) -> tuple[Manifest, np.ndarray[Any, Any]]:
    """The catalogue with wrong captions, and which rows have one."""
    if name == "fashion":
        manifest = Manifest.load(options.data / "fashion/train.csv", DataConfig(image="image", text="title"))
        kinds = manifest.columns["article_type"]
        if hard:
            kinds = list(zip(kinds, manifest.columns["colour"], strict=True))
        return swap_captions(manifest, share, seed, kinds, hard)
    manifest = Manifest.load(options.data / "flickr8k/captions.csv")
    first = {image: row for row, image in reversed(list(enumerate(manifest.images)))}
    manifest = manifest.select(sorted(first.values()))
    return swap_captions(manifest, share, seed, manifest.keys, hard)


def ranking(badness: np.ndarray[Any, Any], wrong: np.ndarray[Any, Any]) -> dict[str, float]:
    """AUROC, average precision and precision among as many rows as are wrong, × 100."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    worst = np.argsort(-badness, kind="stable")[: int(wrong.sum())]
    figures = {
        "auroc": roc_auc_score(wrong, badness),
        "ap": average_precision_score(wrong, badness),
        "precision": wrong[worst].mean(),
    }
    return {"wrong": int(wrong.sum()), **{name: round(100 * float(value), 2) for name, value in figures.items()}}


def judged(judge: Judge, found: Judgement, wrong: np.ndarray[Any, Any]) -> dict[str, float]:
    """The same, the calibration error over 15 bins of the probability, and the estimated share of wrong rows."""
    figures = ranking(-found.fit, wrong)
    place = np.minimum((found.probability * 15).astype(int), 14)
    parts = [place == number for number in range(15) if (place == number).any()]
    error = sum(abs(found.probability[part].mean() - wrong[part].mean()) * part.mean() for part in parts)
    return {**figures, "calibration": round(100 * float(error), 2), "share": round(100 * judge.calibration.share, 2)}


def regained(options: argparse.Namespace) -> Iterator[tuple[str, str, int, dict[str, float]]]:
    """Val MRR of two objectives trained on clean, on faulty and on audited rows."""
    for share in options.shares or (0.2, 0.4):
        for seed in options.seeds:
            clean = Manifest.load(options.data / "fashion/train.csv", DataConfig(image="image", text="title"))
            faulty, _ = plant(options, "fashion", False, share, seed)
            for rows, manifest in (("clean", clean), ("faulty", faulty), ("audited", faulty)):
                for objective in ("clip", "dalr"):
                    # Clean rows are the same whatever the share.
                    folder = options.out / "regain" / (f"{seed}" if rows == "clean" else f"{share:g}-{seed}")
                    out = folder / f"{rows}-{objective}"
                    train = folder / ("audit/cleaned.csv" if rows == "audited" else f"{rows}.csv")
                    overrides = [f"data.train={train}", f"data.root={clean.root}", f"train.seed={seed}"]
                    overrides += ["objective={name: clip}"] if objective == "clip" else []
                    config = load_run_config(FASHION, [*overrides, f"train.precision={options.precision}"])
                    if not options.finished:
                        if not train.is_file():
                            write_rows(options, train, manifest, rows == "audited", seed)
                        run_training(config, out)
                    result = run_result(out, config)
                    if result is not None:
                        figures = {way: result["val"][way]["mrr"] for way in ("text_to_image", "image_to_text")}
                        yield f"fashion, random, {share:.0%}", f"{rows}, {objective}", seed, figures


def write_rows(options: argparse.Namespace, path: Path, manifest: Manifest, audited: bool, seed: int) -> None:
    """The manifest to train on, as a file: what the audit leaves of it, or all of it."""
    if audited:
        config = audit_config(options, seed)
        result = audit_catalogue(fashion_model(), manifest, config, shared=False)
        write_audit(path.parent, manifest, result, config, "plain encoders")
        return
    write_titles(path, manifest)


if __name__ == "__main__":
    main()
