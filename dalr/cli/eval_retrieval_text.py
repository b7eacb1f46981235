"""`dalr eval retrieval-text`: how well queries find documents, by a model, by BM25 or by both."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from dalr.cli import Json, command, eval_app, print_json
from dalr.cli.options import Device, load_model
from dalr.cli.progress import bar
from dalr.cli.sentence_options import Cache, Int8, TruncateDim

# In place of a model: BM25 alone.
LEXICAL = "bm25"


class Hybrid(StrEnum):
    """How a model and BM25 are joined."""

    none = "none"
    sum = "sum"
    rrf = "rrf"


class Corpus(StrEnum):
    """Which sentences of a pair file are documents."""

    second = "second"
    all = "all"


class Stopwords(StrEnum):
    """Words that BM25 passes over."""

    none = "none"
    en = "en"


@command(eval_app, "retrieval-text")
def retrieval_text(
    model: Annotated[str, typer.Option("--model", help="A model folder, any encoder name, or bm25 for BM25 alone.")],
    data: Annotated[Path, typer.Option("--data", help="Folder in the BEIR layout, or a file of labelled pairs.")],
    split: Annotated[str | None, typer.Option("--split", help="BEIR: which qrels, such as dev; test if none.")] = None,
    threshold: Annotated[
        float | None, typer.Option("--threshold", help="Pairs: relevant from this score on; 0.5 for labels 0 and 1.")
    ] = None,
    low: Annotated[float | None, typer.Option("--low", help="Pairs: smallest score that is no mistake.")] = None,
    high: Annotated[float | None, typer.Option("--high", help="Pairs: largest score that is no mistake.")] = None,
    corpus: Annotated[
        Corpus | None, typer.Option("--corpus", help="Pairs: documents are the second (default) or all sentences.")
    ] = None,
    queries: Annotated[int | None, typer.Option("--queries", min=1, help="Ask only the first N queries.")] = None,
    hybrid: Annotated[
        Hybrid, typer.Option("--hybrid", help="Join BM25: weighted sum, or reciprocal rank fusion (rrf).")
    ] = Hybrid.none,
    lexical_weight: Annotated[
        float | None, typer.Option("--lexical-weight", min=0.0, max=1.0, help="Of BM25 in --hybrid sum; 0.2 if none.")
    ] = None,
    stopwords: Annotated[Stopwords, typer.Option("--stopwords", help="Words that BM25 passes over.")] = Stopwords.none,
    query_prompt: Annotated[
        str | None, typer.Option("--query-prompt", help="Before each query: the name of one of its prompts, or text.")
    ] = None,
    passage_prompt: Annotated[
        str | None, typer.Option("--passage-prompt", help="Before each document: as --query-prompt.")
    ] = None,
    truncate_dim: TruncateDim = None,
    int8: Int8 = False,
    cache: Cache = None,
    resamples: Annotated[int, typer.Option(min=10, help="Bootstrap resamples for the intervals.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 0,
    device: Device = None,
    json_output: Json = False,
) -> None:
    """Measure how well queries find documents, both texts, in the sentence space.

    A folder in the BEIR layout has corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv with graded relevance. Of a file
    of labelled pairs the distinct second sentences are the corpus that every first sentence is ranked against. A tie
    counts against the model. The definition is printed with the numbers. BM25 needs dalr[lexical].

    --json prints: ndcg@10, map@10, recall@1, recall@5, recall@10, recall@100 (those smaller than the corpus), mrr,
    mrr@10, and for pairs auprc (all in percent), pairs and positive_pairs; queries, queries_without_answer (which are
    not asked), documents, ci95 (metric: [low, high]), scored_by, bad (rows left out) and definition.
    """
    from dalr.data.text_retrieval_sets import read_text_retrieval_set
    from dalr.errors import UsageError
    from dalr.evaluation.text_retrieval import evaluate_text_retrieval
    from dalr.lexical import BM25Index

    if model == LEXICAL and (hybrid != "none" or query_prompt or passage_prompt or truncate_dim or int8 or cache):
        raise UsageError(
            f"--model {LEXICAL} ranks by words alone; leave out --hybrid, prompts, --truncate-dim, --int8 and --cache"
        )
    if cache is not None and (query_prompt or passage_prompt):
        raise UsageError("--cache keeps embeddings that were made without a prompt; leave out one of the two")
    if lexical_weight is not None and hybrid != "sum":
        raise UsageError("--lexical-weight: is for --hybrid sum")
    of_pairs = {"--threshold": threshold, "--low": low, "--high": high, "--corpus": corpus}
    for name, value in {"--split": split, **of_pairs}.items():
        if value is not None and (data.is_file() if name == "--split" else data.is_dir()):
            kind = "a file of pairs" if data.is_file() else "a folder in BEIR's layout"
            raise UsageError(f"{name}: {data} is {kind}, where it means nothing; leave it out")
    found = read_text_retrieval_set(
        data,
        split=split or "test",
        threshold=threshold,
        low=low,
        high=high,
        corpus=(corpus or Corpus.second).value,
    )
    encoder = passages = None
    if model != LEXICAL:
        loaded = load_model(model, device)
        encoder = _in_form(loaded, query_prompt, cache, truncate_dim, int8)
        if query_prompt != passage_prompt:
            passages = _in_form(loaded, passage_prompt, cache, truncate_dim, int8)
    with bar("embedding texts") as progress:
        figures = evaluate_text_retrieval(
            encoder,
            found if queries is None else found.first(queries),
            passage_model=passages,
            hybrid=hybrid.value,
            lexical_weight=0.2 if lexical_weight is None else lexical_weight,
            make_index=lambda texts: BM25Index(texts, stopwords=stopwords.value),
            resamples=resamples,
            seed=seed,
            progress=progress,
        )
    if json_output:
        print_json(figures)
        return
    _show(figures)
    for row in found.bad[:5]:
        typer.echo(f"left out: {row.where}: {row.reason}", err=True)
    if len(found.bad) > 5:
        typer.echo(f"left out: {len(found.bad) - 5:,} more rows", err=True)


def _in_form(encoder: Any, prompt: str | None, cache: Path | None, truncate_dim: int | None, int8: bool) -> Any:
    from dalr.evaluation.compression import in_int8, truncated
    from dalr.evaluation.sentences import StoredSentences
    from dalr.evaluation.text_retrieval import Prompted

    model = encoder if prompt is None else Prompted(encoder, prompt)
    if cache is not None:
        model = StoredSentences(encoder, cache)
    if truncate_dim is not None:
        model = truncated(model, truncate_dim)
    return in_int8(model) if int8 else model


def _show(figures: dict[str, Any]) -> None:
    from dalr.cli.tables import show_table

    rows = [
        [metric, f"{figures[metric]:.2f}", f"{low:.2f} – {high:.2f}"] for metric, (low, high) in figures["ci95"].items()
    ]
    title = f"{figures['queries']:,} queries, {figures['documents']:,} documents"
    if figures["queries_without_answer"]:
        title += f"; {figures['queries_without_answer']:,} queries have no right document, and are not asked"
    if "pairs" in figures:
        title += f"; {figures['pairs']:,} labelled pairs, {figures['positive_pairs']:,} of them relevant"
    show_table(title, ["metric", "%", "95 %"], rows)
    typer.echo(f"\n{figures['definition']}")
