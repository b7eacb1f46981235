"""What the report draws of the shared space: recall by category, similarity of categories, and a map.

Legend: T distinct texts · M distinct images · D shared width · C categories
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dalr.evaluation.geometry import modality_gap
from dalr.evaluation.retrieval import QueryScores

Floats = npt.NDArray[np.float32]
OTHER = "other"
MAP_POINTS = 600  # of each modality
MAP_COLOURS = 8


@dataclass(frozen=True)
class Categories:
    """A column that sorts the rows: the category of each of T texts and M images (`other` for rare ones)."""

    of_text: list[str]
    of_image: list[str]

    def common(self, most: int) -> list[str]:
        """The most frequent categories, in the order of their names; `other` is none."""
        counts = Counter(self.of_image)
        counts.pop(OTHER, None)
        return sorted(name for name, _ in counts.most_common(most))


@dataclass(frozen=True)
class CategoryRecall:
    """Recall@1 and MRR (percent) of the captions of one category."""

    name: str
    queries: int
    recall: float
    mrr: float


@dataclass(frozen=True)
class HeatMap:
    """Mean cosine of the captions of each category (lines) with the pictures of each (columns), and its range."""

    names: list[str]
    values: list[list[float]]

    @property
    def range(self) -> tuple[float, float]:
        """The lowest and the highest value."""
        flat = [value for line in self.values for value in line]
        return min(flat), max(flat)

    def shade(self, value: float) -> int:
        """How dark a cell is, 0 to 100."""
        low, high = self.range
        return round(100 * (value - low) / ((high - low) or 1.0))


@dataclass(frozen=True)
class Point:
    """A caption or a picture on the map: its place in percent, its colour's number, and what it is."""

    x: float
    y: float
    colour: int
    text: bool
    label: str


@dataclass(frozen=True)
class Map:
    """The points, and the categories that have colours of their own."""

    points: list[Point]
    legend: list[str]


def category_recall(categories: Categories, scores: QueryScores, asked: npt.NDArray[np.int64]) -> list[CategoryRecall]:
    """By category, the least found first. `asked`: which texts the Q scores belong to."""
    names = np.array([categories.of_text[text] for text in asked.tolist()])
    figures = scores.figures()
    found = [
        CategoryRecall(
            name,
            int((names == name).sum()),
            float(figures["recall@1"][names == name].mean()),
            float(figures["mrr"][names == name].mean()),
        )
        for name in sorted(set(names.tolist()))
    ]
    return sorted(found, key=lambda one: one.mrr)


def heat_map(categories: Categories, t_TD: Floats, v_MD: Floats, most: int = 12) -> HeatMap | None:
    """Over the most frequent categories; None for fewer than two of them."""
    names = [name for name in categories.common(most) if name in categories.of_text]
    if len(names) < 2:
        return None
    texts = np.stack([t_TD[[name == one for one in categories.of_text]].mean(0) for name in names])
    images = np.stack([v_MD[[name == one for one in categories.of_image]].mean(0) for name in names])
    # The mean of all cosines of two sets of unit vectors is the product of their means.
    return HeatMap(names, [[round(float(value), 3) for value in line] for line in texts @ images.T])


def map_of(
    categories: Categories | None,
    t_TD: Floats,
    v_MD: Floats,
    labels: tuple[Sequence[str], Sequence[str]],
    seed: int = 0,
) -> Map | None:
    """A 2-D map of captions and pictures by t-SNE (van der Maaten & Hinton 2008), at most 600 of each, drawn by seed.

    `labels`: what each of T texts and of M images is called. None for fewer than ten points.
    """
    from sklearn.manifold import TSNE

    generator = np.random.default_rng(seed)
    chosen = [generator.permutation(len(side))[:MAP_POINTS] for side in (t_TD, v_MD)]
    rows = np.concatenate([t_TD[chosen[0]], v_MD[chosen[1]]])
    if len(rows) < 10:
        return None
    perplexity = min(30.0, (len(rows) - 1) / 4)
    place = TSNE(init="pca", metric="cosine", perplexity=perplexity, random_state=seed).fit_transform(rows)
    place = 100 * (place - place.min(0)) / np.maximum(np.ptp(place, axis=0), 1e-9)
    legend = categories.common(MAP_COLOURS) if categories is not None else []
    points: list[Point] = []
    for side, numbers in enumerate(chosen):
        for number in numbers.tolist():
            of = (categories.of_text, categories.of_image)[side][number] if categories is not None else OTHER
            colour = legend.index(of) if of in legend else MAP_COLOURS
            x, y = place[len(points)].tolist()
            points.append(Point(round(x, 1), round(y, 1), colour, side == 0, labels[side][number]))
    return Map(points, legend)


def gap(t_TD: Floats, v_MD: Floats, own: npt.NDArray[Any]) -> dict[str, float]:
    """The modality gap, and the mean cosine of right pairs (`own`) and of all."""
    return {
        "gap": modality_gap(t_TD, v_MD),
        "right": float(own.mean()),
        "all": float(t_TD.mean(0) @ v_MD.mean(0)),
    }
