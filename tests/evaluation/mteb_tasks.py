"""MTEB tasks over local data: sentence pairs with scores, texts that look for themselves, captions and photos."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from datasets import Dataset, DatasetDict, Features, Image, Value
from mteb import TaskMetadata
from mteb.abstasks import AbsTaskRetrieval, AbsTaskSTS
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData

from dalr.data.manifest import Manifest
from dalr.data.scored_pairs import ScoredPairs
from dalr.evaluation.relevance import Relevance

GENERAL: dict[str, Any] = {
    "description": "A task over local data.",
    "reference": None,
    "dataset": {"path": "local", "revision": "1"},
    "eval_splits": ["test"],
    "eval_langs": ["eng-Latn"],
    "date": ("2025-01-01", "2025-01-01"),
    "dialect": [],
    "domains": [],
    "task_subtypes": [],
    "license": None,
    "annotations_creators": None,
    "sample_creation": None,
    "bibtex_citation": "",
}


def sts_task(pairs: ScoredPairs) -> AbsTaskSTS:
    """Spearman over all pairs; its data is at hand, so that nothing is fetched."""

    class LocalSts(AbsTaskSTS):
        metadata = TaskMetadata(
            name="LocalSts", type="STS", category="t2t", modalities=["text"], main_score="cosine_spearman", **GENERAL
        )

        def load_data(self, **kwargs: Any) -> None:
            columns = {"sentence1": pairs.first, "sentence2": pairs.second, "score": pairs.score}
            self.dataset = DatasetDict({"test": Dataset.from_dict(columns)})
            self.data_loaded = True

    return LocalSts()


def catalogue_task(manifest: Manifest, related: Relevance, category: Literal["t2i", "i2t"]) -> AbsTaskRetrieval:
    """The distinct captions of a manifest against its distinct photos, or the reverse."""
    texts = Dataset.from_dict(
        {
            "id": [f"text {row}" for row in related.text_rows],
            "text": [manifest.texts[row] for row in related.text_rows],
        }
    )
    images = Dataset.from_dict(
        {
            "id": [f"image {row}" for row in related.image_rows],
            "image": [str(manifest.image_path(row)) for row in related.image_rows],
        },
        features=Features({"id": Value("string"), "image": Image()}),
    )
    positive = (related.text_facts @ related.image_facts.T).toarray() > 0
    queries, corpus = (texts, images) if category == "t2i" else (images, texts)
    right = positive if category == "t2i" else positive.T

    class LocalCatalogue(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name=f"LocalCatalogue-{category}",
            type="Any2AnyRetrieval",
            category=category,
            modalities=["text", "image"],
            main_score="ndcg_at_10",
            **GENERAL,
        )

        def load_data(self, **kwargs: Any) -> None:
            ids = corpus["id"]
            answers = {
                query: {ids[column]: 1 for column in np.flatnonzero(row)}
                for query, row in zip(queries["id"], right, strict=True)
            }
            data = RetrievalSplitData(queries=queries, corpus=corpus, relevant_docs=answers, top_ranked=None)
            self.dataset = {"default": {"test": data}}
            self.data_loaded = True

    return LocalCatalogue()


def text_task(texts: Sequence[str]) -> AbsTaskRetrieval:
    """Texts that look for themselves."""

    class LocalTexts(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name="LocalTexts", type="Retrieval", category="t2t", modalities=["text"], main_score="ndcg_at_10", **GENERAL
        )

        def load_data(self, **kwargs: Any) -> None:
            ids = [f"d{at}" for at in range(len(texts))]
            queries = Dataset.from_dict({"id": [f"q{at}" for at in range(len(texts))], "text": list(texts)})
            corpus = Dataset.from_dict({"id": ids, "text": list(texts), "title": [""] * len(texts)})
            answers = {f"q{at}": {ids[at]: 1} for at in range(len(texts))}
            data = RetrievalSplitData(queries=queries, corpus=corpus, relevant_docs=answers, top_ranked=None)
            self.dataset = {"default": {"test": data}}
            self.data_loaded = True

    return LocalTexts()
