"""Transfer: how well a linear classifier on frozen sentence embeddings does on the sets of SentEval, accuracy × 100.

The classifier is scikit-learn's logistic regression (L2, lbfgs in float32, which is the fastest of its solvers here) on
features that are standardised by the mean and deviation of the training part, so that the grid of C means the same
for vectors of any scale. C is picked among `GRID`, the smallest that is best, never by the test part:

- MR, CR, SUBJ, MPQA: stratified k-fold cross-validation; in each training fold a tenth is held out to pick C, then
  the whole training fold is fitted anew;
- SST2, SST5: the fixed dev part picks C, the model fitted on the train part is tested;
- TREC, MRPC: k-fold cross-validation on the train part picks C, then the whole of it is fitted anew.

MRPC's features of a pair (u, v) are |u − v| and u * v. After Conneau and Kiela, "SentEval: An Evaluation Toolkit for
Universal Sentence Representations" (2018), which does not standardise and picks C by nested folds.

Legend: N rows · F features
"""

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dalr.config import nearest
from dalr.data.transfer_sets import TRANSFER_TASKS, LabelledPart, TransferSet, read_transfer_set
from dalr.errors import DataError, UsageError
from dalr.evaluation.sentences import Embedded, SentenceModel, embed_sentences
from dalr.progress import ProgressSink

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
USUAL_SEVEN = ("MR", "CR", "SUBJ", "MPQA", "SST2", "TREC", "MRPC")
GRID = tuple(4.0**power for power in range(-7, 0))
HELD_OUT = 0.1
ITERATIONS = 1000


def evaluate_transfer(
    model: SentenceModel,
    folder: str | Path,
    *,
    tasks: Sequence[str] = TRANSFER_TASKS,
    folds: int = 10,
    max_train: int | None = None,
    seed: int = 0,
    progress: ProgressSink | None = None,
) -> dict[str, Any]:
    """Accuracy × 100 of each task, each distinct sentence embedded once.

    Args:
        model: anything with `encode_text(list, space="sentence")`.
        folder: holds MR, CR, SUBJ, MPQA, SST, TREC and MRPC as SentEval ships them.
        tasks: which of MR, CR, SUBJ, MPQA, SST2, SST5, TREC, MRPC.
        folds: of every cross-validation.
        max_train: for a quick look, train on so many rows of a task, drawn by class; where a task is cross-validated
            the whole set is cut to them.
        seed: of the folds, of what is held out and of `max_train`.

    Returns:
        the tasks asked for; `avg7`, the mean of MR, CR, SUBJ, MPQA, SST2, TREC, MRPC, and `avg8`, of all (None where
        one of them was not asked for); `f1` of MRPC; `C`, the ones picked; `counts`, rows by part; `dropped`, file →
        rows that cannot be used; `folds`, `max_train`, `seed`.

    Raises:
        DataError: a file is missing, has no usable line, lacks a class, or has fewer rows of one than folds.
        UsageError: a task is not known.
        DalrError: an embedding is not finite.
    """
    sets = read_sets(folder, tasks, folds=folds, max_train=max_train, seed=seed)
    embedded = embed_sentences(model, sentences_of(sets), progress)
    found = answers(sets, embedded, folds=folds, seed=seed)
    return score_sets(sets, found, folds=folds, max_train=max_train, seed=seed)


def read_sets(
    folder: str | Path,
    tasks: Sequence[str] = TRANSFER_TASKS,
    *,
    folds: int = 10,
    max_train: int | None = None,
    seed: int = 0,
) -> dict[str, TransferSet]:
    """The sets of these tasks, cut to `max_train` and with enough rows of each class for the folds."""
    if folds < 2:
        raise UsageError(f"folds {folds}: expected at least 2")
    sets = {}
    for task in tasks:
        if task not in TRANSFER_TASKS:
            raise UsageError(f"task {task!r} is not known; {nearest(task, TRANSFER_TASKS)}")
        found = read_transfer_set(folder, task)
        name = "all" if "all" in found.parts else "train"
        part = found.parts[name]
        if max_train is not None:
            part = drawn(part, max_train, seed)
        fewest = min(Counter(part.labels).values())
        # A training fold must keep two rows of each class: one to hold out.
        if "dev" not in found.parts and fewest < folds + 2:
            raise DataError(
                f"{folder}: {task} has {fewest} rows of one class to train on, too few for {folds} folds (at least "
                f"{folds + 2}); use fewer folds or more rows"
            )
        sets[task] = TransferSet(task, {**found.parts, name: part}, found.bad)
    return sets


def sentences_of(sets: Mapping[str, TransferSet]) -> Iterator[str]:
    """All sentences of all sets, repeated ones too."""
    return (text for one in sets.values() for text in one.sentences())


@dataclass(frozen=True)
class Answers:
    """What a classifier said of N held-out rows, each judged once, and the C picked (one, or one a fold)."""

    predicted_N: Labels
    truth_N: Labels
    fold_N: npt.NDArray[np.int64]
    chosen: float | list[float]

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether each row was told right, (N,)."""
        return np.asarray(self.predicted_N == self.truth_N)

    @property
    def accuracy(self) -> float:
        """× 100, the mean over folds."""
        return _percent(np.mean([self.right[self.fold_N == fold].mean() for fold in np.unique(self.fold_N)]))


def answers(
    sets: Mapping[str, TransferSet],
    embedded: Embedded,
    *,
    folds: int = 10,
    seed: int = 0,
    progress: ProgressSink | None = None,
) -> dict[str, Answers]:
    """What classifiers on frozen embeddings answer, by task, of what `read_sets` has read."""
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    found = {}
    # The problems are small, and on one thread the figures are the same on every machine with the same library.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for done, (task, one) in enumerate(sets.items(), start=1):
            parts = {name: (features(embedded, part), np.array(part.labels)) for name, part in one.parts.items()}
            found[task] = (
                cross_validated(*parts["all"], folds, seed) if "all" in parts else fixed_split(parts, folds, seed)
            )
            if progress:
                progress(done, len(sets))
    return found


def score_sets(
    sets: Mapping[str, TransferSet],
    found: Mapping[str, Answers],
    *,
    folds: int = 10,
    max_train: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """`evaluate_transfer` of the answers on what `read_sets` has read."""
    accuracy = {task: told.accuracy for task, told in found.items()}
    dropped = Counter(row.file for one in sets.values() for row in one.bad)
    return {
        **accuracy,
        "avg7": _mean(accuracy, USUAL_SEVEN),
        "avg8": _mean(accuracy, TRANSFER_TASKS),
        "f1": {task: _percent(_f1(found[task].predicted_N, found[task].truth_N)) for task in found if task == "MRPC"},
        "C": {task: told.chosen for task, told in found.items()},
        "counts": {task: {name: len(part) for name, part in one.parts.items()} for task, one in sets.items()},
        "dropped": dict(dropped),
        "folds": folds,
        "max_train": max_train,
        "seed": seed,
    }


def features(embedded: Embedded, part: LabelledPart) -> Floats:
    """(N, F): the sentence's embedding, or |u − v| beside u * v where a row is a pair."""
    u = embedded(part.first).astype(np.float32)
    if not part.second:
        return u
    v = embedded(part.second).astype(np.float32)
    return np.concatenate([np.abs(u - v), u * v], axis=1)


def cross_validated(x_NF: Floats, labels_N: Labels, folds: int, seed: int) -> Answers:
    """Each row by the classifier of the other folds; a tenth of each training fold picks its C."""
    from sklearn.model_selection import StratifiedKFold, train_test_split

    predicted_N, fold_N, chosen = np.empty_like(labels_N), np.empty(len(labels_N), np.int64), []
    cut = StratifiedKFold(folds, shuffle=True, random_state=seed).split(x_NF, labels_N)
    for fold, (train, test) in enumerate(cut):
        x_train, x_test = standardised(x_NF[train], x_NF[test])
        y_train = labels_N[train]
        count = max(round(HELD_OUT * len(train)), len(np.unique(y_train)))
        kept, held = train_test_split(np.arange(len(train)), test_size=count, stratify=y_train, random_state=seed)
        scores = path_scores(x_train[kept], y_train[kept], x_train[held], y_train[held])
        chosen.append(best_c(scores))
        predicted_N[test], fold_N[test] = fitted(x_train, y_train, chosen[-1]).predict(x_test), fold
    return Answers(predicted_N, labels_N, fold_N, chosen)


def fixed_split(parts: Mapping[str, tuple[Floats, Labels]], folds: int, seed: int) -> Answers:
    """The rows of the test part; the dev part picks C, or folds of the train part."""
    from sklearn.model_selection import StratifiedKFold

    x_train, labels = parts["train"]
    if "dev" in parts:
        x_train, x_dev, x_test = standardised(x_train, parts["dev"][0], parts["test"][0])
        scores = path_scores(x_train, labels, x_dev, parts["dev"][1])
    else:
        x_train, x_test = standardised(x_train, parts["test"][0])
        inner = StratifiedKFold(folds, shuffle=True, random_state=seed).split(x_train, labels)
        scores = np.mean([path_scores(x_train[a], labels[a], x_train[b], labels[b]) for a, b in inner], axis=0)
    best = best_c(scores)
    truth = parts["test"][1]
    return Answers(fitted(x_train, labels, best).predict(x_test), truth, np.zeros(len(truth), np.int64), best)


def path_scores(x_NF: Floats, labels_N: Labels, x_dev: Floats, dev_labels: Labels) -> Floats:
    """Accuracy on the dev rows for each C of `GRID`, each fit begun at the one before."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(solver="lbfgs", max_iter=ITERATIONS, warm_start=True)
    return np.array([model.set_params(C=c).fit(x_NF, labels_N).score(x_dev, dev_labels) for c in GRID])


def best_c(scores: Floats) -> float:
    """The C of `GRID` with the best score, the smallest of several."""
    return GRID[int(np.argmax(scores))]


def fitted(x_NF: Floats, labels_N: Labels, c: float) -> Any:
    """Logistic regression with this C."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=c, solver="lbfgs", max_iter=ITERATIONS).fit(x_NF, labels_N)


def standardised(x_train: Floats, *others: Floats) -> list[Floats]:
    """All by the mean and deviation of each feature of the first."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(x_train)
    return [scaler.transform(x) for x in (x_train, *others)]


def drawn(part: LabelledPart, count: int, seed: int) -> LabelledPart:
    """At most `count` rows, each class by its share and with one row at least, in their own order."""
    if len(part) <= count:
        return part
    labels = np.array(part.labels)
    order = np.random.default_rng(seed).permutation(len(part))
    kept: list[int] = []
    for label, total in sorted(Counter(part.labels).items()):
        share = max(1, round(count * total / len(part)))
        kept.extend(order[labels[order] == label][:share].tolist())
    kept.sort()
    first, second = ([side[row] for row in kept] if side else [] for side in (part.first, part.second))
    return LabelledPart(first, second, labels[kept].tolist())


def _f1(predicted: Labels, truth: Labels) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(truth, predicted, zero_division=0))


def _percent(share: Any) -> float:
    return round(100 * float(share), 4)


def _mean(scores: Mapping[str, float], tasks: Sequence[str]) -> float | None:
    if not set(tasks) <= set(scores):
        return None
    return round(float(np.mean([scores[task] for task in tasks])), 4)
