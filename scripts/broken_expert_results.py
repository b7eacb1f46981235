"""Which rule of aggregation bears a broken expert? Labels of question pairs, one expert made random or inverted.

    python scripts/broken_expert_results.py --data $DALR_DATA --out runs/experts \\
        --json assets/results/broken_expert.json

Pairs of the train part of `experts_results.py` are judged by the experts of configs/experts.yaml. Each expert in turn
is broken: its scores are those of a random permutation of the pairs, or their negative. What is measured is how well
the aggregate, without the hard label, ranks what people call a duplicate: AUROC.
"""

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from experts_results import LABELS, write_parts
from measured import print_cells, write_result
from sklearn.metrics import roc_auc_score

from dalr.config import parse_config, read_yaml
from dalr.experts.aggregation import AggregationConfig, Rule, aggregate
from dalr.experts.calibration import CalibrationConfig, Method, calibrate
from dalr.experts.labels import LabelConfig, expert_scores
from dalr.experts.pairs import read_judged

Floats = npt.NDArray[np.float64]
METHODS: tuple[Method, ...] = ("zscore", "rank", "isotonic")
RULES: tuple[Rule, ...] = ("mean", "median", "trimmed", "max", "min")
TRIM = 0.25  # of four experts one at each end


def main() -> None:
    """Break every expert in every way under every calibration and rule, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of minbert/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--size", type=int, default=1000, help="pairs that are labelled")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()

    write_parts(options.data / "minbert/quora-dev.tsv", options.out)
    config = parse_config(LabelConfig, read_yaml(LABELS), str(LABELS))
    pairs = read_judged(str(options.out / "train.tsv"), config.data)
    assert pairs.label is not None
    raw_AP = np.stack([expert_scores(expert, pairs, config.cache)[0] for expert in config.experts.values()])
    found: dict[str, Any] = {}
    for seed in options.seeds:
        generator = np.random.default_rng(seed)
        rows = generator.permutation(len(pairs))[: options.size]
        breaks: dict[str, Callable[[Floats], Floats]] = {
            "random": generator.permutation,
            "inverted": np.negative,
        }
        for method in METHODS:
            calibration = CalibrationConfig(method=method, seed=seed)
            whole = aurocs(raw_AP[:, rows], pairs.label[rows], calibration)
            for rule, value in whole.items():
                found.setdefault(method, {}).setdefault(rule, {})[str(seed)] = {"none broken": value}
            for name, spoil in breaks.items():
                broken = [
                    aurocs(with_one(raw_AP[:, rows], expert, spoil), pairs.label[rows], calibration)
                    for expert in range(len(raw_AP))
                ]
                for rule in RULES:
                    values = [one[rule] for one in broken]
                    figures = {name: round(statistics.mean(values), 2), f"{name}, the worst": min(values)}
                    found[method][rule][str(seed)] |= figures
    print_cells(found, dict.items)
    if options.json is not None:
        settings = {"config": read_yaml(LABELS), "size": options.size, "trim": TRIM}
        write_result(options.json, {**settings, "auroc": found})


def with_one(raw_AP: Floats, expert: int, spoil: Callable[[Floats], Floats]) -> Floats:
    """The scores with one expert's spoiled."""
    broken = raw_AP.copy()
    broken[expert] = spoil(raw_AP[expert])
    return broken


def aurocs(raw_AP: Floats, label_P: Floats, calibration: CalibrationConfig) -> dict[str, float]:
    """By rule, how well the aggregate ranks the pairs."""
    calibrated = np.stack([calibrate(scores, label_P, calibration) for scores in raw_AP])
    joined = {rule: aggregate(calibrated, AggregationConfig(rule=rule, trim=TRIM)) for rule in RULES}
    return {rule: round(100 * float(roc_auc_score(label_P >= 0.5, scores)), 2) for rule, scores in joined.items()}


if __name__ == "__main__":
    main()
