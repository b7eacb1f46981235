"""Clustering: whether texts of one class lie together, by k-means and v-measure.

Legend: N texts · H width of an embedding
"""

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dalr.data.annotated import find_column, read_table, refuse_nothing_usable
from dalr.data.labelled_texts import LABEL_NAMES, TEXT_NAMES
from dalr.data.records import BadRow
from dalr.errors import DataError
from dalr.evaluation.sentences import ProgressSink, SentenceModel, embed_sentences, unit_rows

Array = npt.NDArray[Any]
# As MTEB sets it up.
BATCH = 500


def read_named_classes(
    path: str | Path, text: str | None = None, label: str | None = None
) -> tuple[list[str], list[str], list[BadRow]]:
    """Texts, the name of each one's class (any text or number as it is written), and the rows that lack one of them.

    Args:
        path: CSV, TSV or JSON Lines with a heading.
        text, label: the columns; guessed by name if not given.

    Raises DataError for a file that is missing, has not these columns, or holds no usable row.
    """
    path = Path(path)
    part = read_table(path)
    columns = {
        "texts": (find_column(part, TEXT_NAMES, text, path), TEXT_NAMES, "--text-column"),
        "classes": (find_column(part, LABEL_NAMES, label, path), LABEL_NAMES, "--label-column"),
    }
    for what, (found, names, option) in columns.items():
        if found is None:
            raise DataError(
                f"{path}: found no column of {what} among {', '.join(map(repr, part.columns)) or 'none'}; expected "
                f"one of {', '.join(names)}, or name it with {option}"
            )
    texts, labels = [], []
    chosen = (part.columns[str(found)] for found, _, _ in columns.values())
    for line, *cells in zip(part.rows, *chosen, strict=True):
        content, name = ("" if cell is None else str(cell).strip() for cell in cells)
        if content and name:
            texts.append(content)
            labels.append(name)
        else:
            part.refuse(line, "has no class" if content else "has no text")
    if not texts:
        raise refuse_nothing_usable(path, "labelled text", part.bad)
    return texts, labels, sorted(part.bad, key=lambda row: row.row)


def evaluate_clustering(
    model: SentenceModel,
    texts: Sequence[str],
    labels: Sequence[Hashable],
    *,
    seeds: Sequence[int] = range(10),
    progress: ProgressSink | None = None,
) -> dict[str, Any]:
    """What `dalr eval clustering --json` prints: the v-measure of the texts' embeddings (`sentence` space).

    Returns what `v_measures` returns. Raises DataError for fewer than two classes or more classes than distinct
    texts, DalrError where an embedding is not finite.
    """
    classes = len(set(labels))
    if classes < 2:
        raise DataError(f"all {len(texts):,} texts are of one class; expected two classes or more")
    if classes > len(set(texts)):
        raise DataError(f"{classes:,} classes for {len(set(texts)):,} distinct texts; nothing can be clustered")
    embedded = embed_sentences(model, texts, progress)
    return v_measures(unit_rows(embedded(texts)), labels, seeds)


def v_measures(rows_NH: Array, labels: Sequence[Hashable], seeds: Sequence[int] = range(10)) -> dict[str, Any]:
    """k-means with as many clusters as there are classes, once a seed, each compared with the classes.

    Returns:
        v_measure (mean) and sd over seeds, v_measures (each), homogeneity and completeness (means), all in percent;
        texts, classes, largest_class (share of the texts, in percent) and `definition`.
    """
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.metrics import homogeneity_completeness_v_measure

    number = {label: at for at, label in enumerate(dict.fromkeys(labels))}
    truth = np.array([number[label] for label in labels])
    found = np.array(
        [
            homogeneity_completeness_v_measure(
                truth,
                MiniBatchKMeans(len(number), batch_size=BATCH, n_init="auto", random_state=seed).fit_predict(rows_NH),
            )
            for seed in seeds
        ]
    )
    homogeneity, completeness, v_measure = 100.0 * found.T
    return {
        "v_measure": round(float(v_measure.mean()), 4),
        "sd": round(float(v_measure.std(ddof=1)), 4) if len(v_measure) > 1 else 0.0,
        "v_measures": [round(float(value), 4) for value in v_measure],
        "homogeneity": round(float(homogeneity.mean()), 4),
        "completeness": round(float(completeness.mean()), 4),
        "texts": len(truth),
        "classes": len(number),
        "largest_class": round(100.0 * float(np.bincount(truth).max()) / len(truth), 4),
        "definition": (
            f"MiniBatchKMeans of scikit-learn (k = classes, batches of {BATCH}, k-means++ starts) on unit vectors of "
            f"the sentence space, once for each of the seeds {', '.join(map(str, seeds))}; v_measure: harmonic mean of "
            "homogeneity and completeness (Rosenberg & Hirschberg 2007); mean and sample standard deviation (sd) over "
            "seeds. In percent but counts."
        ),
    }
