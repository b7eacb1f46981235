"""BLiMP: of two sentences that differ in little, does a language model find the grammatical one more likely?

Warstadt et al. 2020, "BLiMP: the benchmark of linguistic minimal pairs": 67 files of 1,000 pairs, each about one
paradigm. A pair counts where the good sentence has strictly the higher score; the average is over the tasks.

- `causal`: the log-likelihood, Σ log p(token | tokens before it).
- `masked`: the pseudo-log-likelihood (Salazar et al. 2020), Σ log p(token | all the others), each masked by itself.

Legend: L tokens · M texts with one token masked, or sentences, of one batch.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch.nn import functional as F

from dalr.data.jsonlines import read_jsonl
from dalr.encoders.batching import packed_batches
from dalr.encoders.tokens import TransformersTokenizer
from dalr.errors import DataError, ModelError, UsageError
from dalr.lm import LanguageModel, special_edges
from dalr.progress import ProgressSink

Scoring = Literal["causal", "masked"]
Part = Literal["all", "dev", "test"]
TASKS = 67
DEV_EVERY = 10  # pair 0, 10, 20 … of each task is for choosing, the others report
TOKENS = 4096  # in a batch


@dataclass(frozen=True)
class PairTask:
    """The pairs of one paradigm; `term` is the phenomenon it belongs to."""

    name: str
    term: str
    good: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)


def read_blimp(folder: str | Path, part: Part = "all", most: int | None = None) -> tuple[list[PairTask], int]:
    """The tasks of a folder of JSON Lines files, one a task, and how many pairs could not be used.

    Args:
        folder: files whose rows have `sentence_good` and `sentence_bad`.
        part: `dev` is a fixed tenth of each task, to choose by; `test` are the others.
        most: of each task only the first so many pairs of the part.

    Raises DataError for a folder without such files, or a file without a usable pair; UsageError for another part.
    """
    folder = Path(folder)
    if part not in get_args(Part):
        raise UsageError(f"part {part!r}; expected one of {', '.join(get_args(Part))}")
    paths = sorted(folder.glob("*.jsonl"))
    if not paths:
        raise DataError(f"{folder}: holds no .jsonl file; expected the {TASKS} files of BLiMP, one a task")
    tasks, dropped = [], 0
    for path in paths:
        read = read_jsonl(path)
        columns = [read.columns.get(name) for name in ("sentence_good", "sentence_bad")]
        if columns[0] is None or columns[1] is None:
            raise DataError(f"{path}: has no columns sentence_good and sentence_bad; it has {', '.join(read.columns)}")
        terms = read.columns.get("linguistics_term") or [path.stem]
        task = PairTask(path.stem, str(terms[0]))
        dropped += len(read.bad)
        for number, (good, bad) in enumerate(zip(*columns, strict=True)):
            if not (isinstance(good, str) and isinstance(bad, str) and good.strip() and bad.strip()):
                dropped += 1
            elif part == "all" or (number % DEV_EVERY == 0) == (part == "dev"):
                task.good.append(good)
                task.bad.append(bad)
        if not task.good:
            raise DataError(f"{path}: holds no usable pair")
        tasks.append(PairTask(task.name, task.term, task.good[:most], task.bad[:most]))
    return tasks, dropped


def evaluate_blimp(
    language_model: LanguageModel,
    tasks: Sequence[PairTask],
    scorings: Iterable[Scoring] = ("causal", "masked"),
    *,
    progress: ProgressSink | None = None,
) -> dict[str, Any]:
    """By scoring: `avg` (the mean over tasks, × 100), `tasks` and `terms` (the mean over a phenomenon's tasks).

    Also `pairs` (how many in all). Raises ModelError for `masked` with a tokenizer that has no mask token.
    """
    chosen = list(scorings)
    texts = list(dict.fromkeys(text for task in tasks for text in (*task.good, *task.bad)))
    found: dict[str, Any] = {}
    for number, scoring in enumerate(chosen):

        def report(done: int, total: int, before: int = number * len(texts)) -> None:
            if progress:
                progress(before + done, len(chosen) * total)

        scores = dict(zip(texts, score_texts(language_model, texts, scoring, report), strict=True))
        by_task = {
            task.name: round(
                100 * float(np.mean([scores[g] > scores[b] for g, b in zip(task.good, task.bad, strict=True)])), 4
            )
            for task in tasks
        }
        terms: dict[str, list[float]] = {}
        for task in tasks:
            terms.setdefault(task.term, []).append(by_task[task.name])
        found[scoring] = {
            "avg": round(float(np.mean(list(by_task.values()))), 4),
            "terms": {name: round(float(np.mean(values)), 4) for name, values in sorted(terms.items())},
            "tasks": by_task,
        }
    return found | {"pairs": sum(len(task.good) for task in tasks)}


def score_texts(
    language_model: LanguageModel,
    texts: Sequence[str],
    scoring: Scoring,
    progress: ProgressSink | None = None,
) -> list[float]:
    """The (pseudo-)log-likelihood of each text in nats, its special tokens at the end included for `causal`."""
    if scoring not in get_args(Scoring):
        raise UsageError(f"scoring {scoring!r}; expected one of {', '.join(get_args(Scoring))}")
    before, after = special_edges(language_model.tokenizer)
    # The first token needs something before it that predicts it.
    before = before or after[:1]
    pieces = TransformersTokenizer(language_model.tokenizer).pieces(texts)
    rows = [[*before, *ids, *after] for ids in pieces]
    if scoring == "causal":
        jobs = [_Job(row, ids[:-1], list(range(len(ids) - 1)), ids[1:]) for row, ids in enumerate(rows)]
    else:
        jobs = [
            job for row, ids in enumerate(rows) for job in _masked(row, ids, len(before), len(after), language_model)
        ]
    scores = np.zeros(len(rows))
    done = 0
    was_training = language_model.training
    language_model.eval()
    try:
        with torch.inference_mode():
            for batch in packed_batches([len(job.ids) for job in jobs], TOKENS):
                some = [jobs[number] for number in batch]
                np.add.at(scores, [job.row for job in some], _score(language_model, some, scoring == "causal"))
                done += len(batch)
                if progress:
                    progress(len(rows) * done // len(jobs), len(rows))
    finally:
        language_model.train(was_training)
    return [float(score) for score in scores]


@dataclass(frozen=True)
class _Job:
    """One row through the network: `places` of it predict `targets`, which count for the text `row`."""

    row: int
    ids: list[int]
    places: list[int]
    targets: list[int]


def _masked(row: int, ids: list[int], before: int, after: int, language_model: LanguageModel) -> list[_Job]:
    """The text once for each of its tokens, that token masked."""
    mask_id = language_model.tokenizer.mask_token_id
    if mask_id is None:
        raise ModelError(f"{language_model.kind}: its tokenizer has no mask token; score it causally")
    shift = 1 if language_model.predicts_next else 0
    return [
        _Job(row, [*ids[:place], mask_id, *ids[place + 1 :]], [place - shift], [ids[place]])
        for place in range(before, len(ids) - after)
    ]


def _score(language_model: LanguageModel, jobs: Sequence[_Job], causal: bool) -> list[float]:
    """The summed log-probability of each job's targets."""
    longest = max(len(job.ids) for job in jobs)
    ids_ML = torch.zeros((len(jobs), longest), dtype=torch.int64)
    segments_ML = torch.zeros_like(ids_ML)
    for number, job in enumerate(jobs):
        ids_ML[number, : len(job.ids)] = torch.tensor(job.ids)
        segments_ML[number, : len(job.ids)] = 1
    owners = torch.tensor([number for number, job in enumerate(jobs) for _ in job.places])
    places = torch.tensor([place for job in jobs for place in job.places])
    targets = torch.tensor([target for job in jobs for target in job.targets])
    device = language_model.device
    h_MLH = language_model.states(ids_ML.to(device), segments_ML.to(device), causal)
    logits = language_model.logits(h_MLH[owners.to(device), places.to(device)]).float()
    likelihood = -F.cross_entropy(logits, targets.to(device), reduction="none").double().cpu()
    summed: list[float] = torch.zeros(len(jobs), dtype=torch.float64).index_add(0, owners, likelihood).tolist()
    return summed
