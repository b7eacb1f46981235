"""Clustering: whether texts of one class lie together, by k-means and v-measure.

Legend: N texts · H width of an embedding
"""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dalr.errors import DataError
from dalr.evaluation.sentences import SentenceModel, embed_sentences, unit_rows
from dalr.progress import ProgressSink

Array = npt.NDArray[Any]
# As MTEB sets it up.
BATCH = 500


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
