"""Sets for text retrieval: queries, documents and who answers whom, from a BEIR folder or from labelled pairs.

Legend: Q queries · N documents · P labelled pairs
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dalr.data.annotated import number_in
from dalr.data.delimited import read_delimited
from dalr.data.groups import distinct_texts, normalise_caption
from dalr.data.jsonlines import read_jsonl
from dalr.data.records import BadRow, Part
from dalr.data.rows import unusable_text
from dalr.data.scored_pairs import ScoredPairs, read_scored_pairs
from dalr.errors import DataError

Corpus = Literal["second", "all"]
QRELS_COLUMNS = ("query-id", "corpus-id", "score")


@dataclass(frozen=True, eq=False)
class TextRetrievalSet:
    """Queries, documents, and which documents answer which query.

    Attributes:
        queries, documents: Q and N texts; every query has an answer.
        grades: sparse csr float32 (Q, N), how well a document answers; only what does (above 0) is stored.
        left_out: sparse csr bool (Q, N), documents that a query is not ranked against.
        description: what the set is and how it was made of its files, for whoever reads the numbers.
        bad: rows that cannot be used.
        pairs: the labelled pairs that it was made of, or None.
        pair_documents: int64 (P,), the document that each pair's second sentence is.
        without_answer: how many queries no document answers, so that they are not asked.
    """

    queries: list[str]
    documents: list[str]
    grades: Any
    left_out: Any
    description: str
    bad: list[BadRow] = field(default_factory=list)
    pairs: "LabelledPairs | None" = None
    pair_documents: npt.NDArray[np.int64] | None = None
    without_answer: int = 0

    def first(self, count: int) -> "TextRetrievalSet":
        """The first `count` queries against all documents; labelled pairs stay as they are."""
        if count >= len(self.queries):
            return self
        return replace(
            self,
            queries=self.queries[:count],
            grades=self.grades[:count],
            left_out=self.left_out[:count],
            description=f"{self.description} Of the queries the first {count:,} are asked.",
        )


@dataclass(frozen=True)
class LabelledPairs:
    """P pairs of sentences, and whether they belong together: bool (P,)."""

    first: list[str]
    second: list[str]
    relevant: npt.NDArray[np.bool_]


def find_threshold(pairs: ScoredPairs, threshold: float | None, source: str | Path) -> float:
    """From which score on a pair is relevant: `threshold`, or 0.5 where all scores are 0 or 1, else a DataError."""
    score = np.array(pairs.score)
    if threshold is None and not np.isin(score, (0.0, 1.0)).all():
        raise DataError(
            f"{source}: has scores from {score.min():g} to {score.max():g}, not labels 0 and 1; say with --threshold "
            "from which score on a pair is relevant"
        )
    return 0.5 if threshold is None else threshold


def label_pairs(pairs: ScoredPairs, threshold: float | None, source: str | Path) -> LabelledPairs:
    """Pairs with a score from the threshold on (see `find_threshold`) are relevant.

    Raises DataError where a threshold is needed and not given, or all pairs fall on one side of it.
    """
    at = find_threshold(pairs, threshold, source)
    score = np.array(pairs.score)
    relevant = score >= at
    if relevant.all() or not relevant.any():
        raise DataError(
            f"{source}: {'all' if relevant.all() else 'none'} of {len(score):,} pairs are relevant at the threshold "
            f"{at:g} (scores {score.min():g} to {score.max():g}); expected some of both"
        )
    return LabelledPairs(pairs.first, pairs.second, relevant)


def read_text_retrieval_set(
    path: str | Path,
    *,
    split: str = "test",
    threshold: float | None = None,
    low: float | None = None,
    high: float | None = None,
    corpus: Corpus = "second",
) -> TextRetrievalSet:
    """A folder in the BEIR layout, or a file of labelled pairs; see `read_beir` and `pairs_as_retrieval`."""
    path = Path(path)
    if path.is_dir():
        return read_beir(path, split)
    pairs, bad = read_scored_pairs(path, low=low, high=high)
    return pairs_as_retrieval(label_pairs(pairs, threshold, path), path, corpus=corpus, bad=bad)


def pairs_as_retrieval(
    pairs: LabelledPairs, source: str | Path, *, corpus: Corpus = "second", bad: Sequence[BadRow] = ()
) -> TextRetrievalSet:
    """Labelled pairs as a retrieval set; texts are one where they are equal after `normalise_caption`.

    Args:
        corpus: `second`: the second sentences are the documents, the first sentences the queries. `all`: every
            sentence is a document and a query, and a relevant pair answers both ways.

    A query's own text among the documents is left out for it. Raises DataError where no query has an answer.
    """
    sides = (pairs.first, pairs.second)
    if corpus == "all":
        sides = (pairs.first + pairs.second, pairs.second + pairs.first)
    relevant = np.concatenate([pairs.relevant] * (2 if corpus == "all" else 1))
    (query_ids, queries), (document_ids, documents) = (distinct_texts(side) for side in sides)
    document_of = {normalise_caption(text): number for number, text in enumerate(documents)}
    own = np.array([document_of.get(normalise_caption(text), -1) for text in queries], np.int64)

    useful = relevant & (own[query_ids] != document_ids)
    asked, row = np.unique(query_ids[useful], return_inverse=True)
    if not len(asked):
        raise DataError(f"{source}: no query has a relevant document other than its own text")
    size = (len(asked), len(documents))
    equal = np.flatnonzero(own[asked] >= 0)
    which = "second sentences" if corpus == "second" else "sentences"
    return TextRetrievalSet(
        [queries[number] for number in asked],
        documents,
        _table(row, document_ids[useful], np.ones(len(row), np.float32), size),
        _table(equal, own[asked][equal], np.ones(len(equal), bool), size),
        f"Documents: the distinct {which} of all pairs; queries: the distinct "
        f"{'first sentences' if corpus == 'second' else 'sentences'} with a relevant pair"
        f"{'' if corpus == 'second' else ', which answers both ways'}; grades 0 and 1; not transitive. Texts equal "
        "after NFKC, case folding and white space collapsed are one. A query's own text among the documents is left "
        "out for it.",
        list(bad),
        pairs,
        document_ids[: len(pairs.relevant)],
        without_answer=len(queries) - len(asked),
    )


def read_beir(folder: Path, split: str = "test") -> TextRetrievalSet:
    """corpus.jsonl (_id, title, text), queries.jsonl (_id, text) and qrels/SPLIT.tsv (query-id, corpus-id, score).

    A document's text is its title and its text with a space between. A grade above 0 is an answer; queries without one
    are not asked (those that the split judges are counted). A document with the id of the query is left out for it, as
    BEIR does, unless it is judged an answer. Rows that cannot be used (no id, an id given twice, nothing in them, a
    judgement of an unknown id or with a grade that is no number) come back in `bad`.

    Raises DataError for a missing file or column, or where no query has an answer.
    """
    bad: list[BadRow] = []
    documents = _read_texts(folder / "corpus.jsonl", ("title", "text"), bad)
    queries = _read_texts(folder / "queries.jsonl", ("text",), bad)
    qrels = folder / "qrels" / f"{split}.tsv"
    if not qrels.is_file():
        there = sorted(path.stem for path in (folder / "qrels").glob("*.tsv"))
        found = f"qrels has {', '.join(there)}" if there else "there is no qrels/*.tsv"
        raise DataError(f"{qrels}: no such file; {found}; name one with --split")
    judged = _read_qrels(qrels, queries, documents, bad)
    answers = {key: grade for key, grade in judged.items() if grade > 0}
    query_number, document_number = ({key: at for at, key in enumerate(side)} for side in (queries, documents))
    asked = sorted({query for query, _ in answers}, key=query_number.__getitem__)
    if not asked:
        raise DataError(f"{qrels}: no query has a document with a grade above 0")
    row_of = {query: row for row, query in enumerate(asked)}
    size = (len(asked), len(documents))
    own = [(row_of[key], document_number[key]) for key in asked if key in documents and (key, key) not in answers]
    rows, columns = np.array(own, np.int64).reshape(-1, 2).T
    return TextRetrievalSet(
        [queries[query] for query in asked],
        list(documents.values()),
        _table(
            np.array([row_of[query] for query, _ in answers], np.int64),
            np.array([document_number[document] for _, document in answers], np.int64),
            np.array(list(answers.values()), np.float32),
            size,
        ),
        _table(rows, columns, np.ones(len(rows), bool), size),
        f"BEIR layout, qrels/{split}.tsv. Documents: title and text; queries: those with a grade above 0; gains are "
        "the grades. A document with the query's own id is left out for it unless it is judged an answer.",
        bad,
        without_answer=len({query for query, _ in judged}) - len(asked),
    )


def _read_texts(path: Path, columns: Sequence[str], bad: list[BadRow]) -> dict[str, str]:
    """Text by `_id`, in file order."""
    part = read_jsonl(path)
    if "_id" not in part.columns or "text" not in part.columns:
        raise DataError(
            f"{path}: expected the keys _id and text on every line (BEIR layout), found "
            f"{', '.join(map(repr, part.columns)) or 'none'}"
        )
    texts: dict[str, str] = {}
    cells = [part.columns.get(name) or [None] * len(part.rows) for name in columns]
    for line, key, *fields in zip(part.rows, part.columns["_id"], *cells, strict=True):
        text = " ".join(str(value).strip() for value in fields if value is not None and str(value).strip())
        if key is None or not str(key).strip():
            part.refuse(line, "has no _id")
        elif str(key) in texts:
            part.refuse(line, f"has the _id {key} a second time", str(key))
        elif not text:
            part.refuse(line, "has no text", str(key))
        elif spoilt := unusable_text([str(key), text]):
            part.refuse(line, spoilt)
        else:
            texts[str(key)] = text
    bad.extend(part.bad)
    if not texts:
        raise DataError(f"{path}: holds no usable text")
    return texts


def _read_qrels(
    path: Path, queries: dict[str, str], documents: dict[str, str], bad: list[BadRow]
) -> dict[tuple[str, str], float]:
    """Grade by (query, document)."""
    part: Part = read_delimited(path, separator="\t")
    missing = [name for name in QRELS_COLUMNS if name not in part.columns]
    if missing:
        raise DataError(
            f"{path}: lacks the column {', '.join(missing)}; expected a first line with {', '.join(QRELS_COLUMNS)}, "
            "separated by tabs"
        )
    grades: dict[tuple[str, str], float] = {}
    for line, query, document, cell in zip(part.rows, *(part.columns[name] for name in QRELS_COLUMNS), strict=True):
        try:
            grade = number_in(cell, "score")
            if query not in queries:
                raise ValueError(f"the query {query} is not in queries.jsonl")
            if document not in documents:
                raise ValueError(f"the document {document} is not in corpus.jsonl")
            if (query, document) in grades:
                raise ValueError(f"judges document {document} for query {query} a second time")
        except ValueError as error:
            part.refuse(line, str(error))
            continue
        grades[query, document] = grade
    bad.extend(part.bad)
    return grades


def _table(rows: npt.NDArray[Any], columns: npt.NDArray[Any], values: npt.NDArray[Any], size: tuple[int, int]) -> Any:
    """Sparse csr with each place stored once; a place given several times keeps one of its (equal) values."""
    from scipy.sparse import csr_array

    places, kept = np.unique(np.stack([rows, columns]), axis=1, return_index=True)
    return csr_array((values[kept], (places[0], places[1])), shape=size)
