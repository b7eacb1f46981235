"""`dalr search`: the products of an embedded catalogue that fit a text, an image, or both."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from dalr.cli import Json, app, command, print_json
from dalr.cli.options import Device, load_model

if TYPE_CHECKING:
    from dalr.catalogue.search import Hit
    from dalr.catalogue.table_search import Mode

RANKED = {"vector": "cosine", "words": "the words of the caption (BM25)", "hybrid": "cosine and words (rank fusion)"}


@command(app, "search")
def search(
    query: Annotated[str | None, typer.Argument(help="Text, or the path of an image file.")] = None,
    store: Annotated[Path | None, typer.Option("--store", help="Store made by dalr embed: exact.")] = None,
    db: Annotated[str | None, typer.Option("--db", help="Database made by dalr index: filters, words, large.")] = None,
    table: Annotated[str, typer.Option("--table", help="Name of the table in the database.")] = "products",
    image: Annotated[str | None, typer.Option("--image", help="Image file; with a text query, both count.")] = None,
    image_weight: Annotated[
        float | None, typer.Option("--image-weight", help="Share of the image in both, 0 to 1; 0.5 if none.")
    ] = None,
    against: Annotated[str | None, typer.Option("--against", help="Rank image (default) or text.")] = None,
    where: Annotated[
        str | None,
        typer.Option(
            "--where",
            help="Filter in SQL, as in \"colour = 'red' AND `net price` < 50\": odd names in backticks (--db).",
        ),
    ] = None,
    mode: Annotated[str, typer.Option("--mode", help="vector, words (BM25) or hybrid (--db).")] = "vector",
    probes: Annotated[
        int | None, typer.Option("--probes", help="Partitions of an approximate index that are looked at (--db).")
    ] = None,
    compare_exact: Annotated[
        bool, typer.Option("--compare-exact", help="Also print what share of the exact results is found (--db).")
    ] = False,
    k: Annotated[int, typer.Option("-k", help="How many results.")] = 10,
    html: Annotated[Path | None, typer.Option("--html", help="Also write the results as a page with pictures.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Where the store's model is, if it has moved.")] = None,
    device: Device = None,
    json_output: Json = False,
) -> None:
    """Search an embedded catalogue by text, by image, or by both.

    An argument that is an existing image file is an image; --image and a text together are both, weighted. Products
    are ranked by their images, each distinct image once; with --against text (or where there are no images) the
    distinct captions are ranked. Embeddings of a model that has changed since are refused.

    --store looks at every row. --db asks a table that dalr index wrote, which takes filters over the catalogue's
    columns, searches the captions' words, and has an approximate index where it is large: --compare-exact measures,
    over 200 of the table's own vectors, the recall@k of that index.

    --json prints: store or db, query (text, image, image_weight), against (image or text), mode, where, recall (0 to
    1, with --compare-exact, else null) and results, each with rank, score (cosine, BM25 or fused), key (of the row),
    caption, image and thumbnail (paths), rows (that share that image or caption; a store alone knows) and attributes.
    """
    from dalr.catalogue.search import Catalogue, image_or_text
    from dalr.errors import UsageError

    text, pictured = image_or_text(query) if query is not None else (None, None)
    if pictured is not None and image is not None:
        raise UsageError(f"two images are given, {pictured} and --image {image}; give one, and a text if you like")
    if image is not None and image_or_text(image)[1] is None:
        raise UsageError(f"--image {image}: there is no such image file")
    image = image or pictured
    if against not in (None, "image", "text"):
        raise UsageError(f"--against {against}: expected image or text")
    if text is None and image is None:
        raise UsageError("there is no query; give a text, the path of an image file, or --image")
    if (store is None) == (db is None):
        both = ", not both" if store is not None else ""
        raise UsageError(f"give --store (made by dalr embed) or --db (made by dalr index){both}")
    if html is not None and html.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--html {html}: expected the name of a page, ending in .html")
    if mode not in RANKED:
        raise UsageError(f"--mode {mode}: expected {', '.join(RANKED)}")
    if image_weight is not None and (text is None or image is None):
        raise UsageError("--image-weight: shares out between a text and an image; give both")
    image_weight = 0.5 if image_weight is None else image_weight
    recall: float | None = None
    asked: dict[str, Any] = {"text": text, "image": image, "image_weight": image_weight, "against": against, "k": k}
    if store is not None:
        given = {"--where": where, "--probes": probes, "--compare-exact": compare_exact, "--mode": mode != "vector"}
        for name, value in given.items():
            if value:
                raise UsageError(f"{name} is for --db; make a database with dalr index --store {store}")
        catalogue = Catalogue(store, load_model(model or Catalogue.model_source(store), device))
        ranked = catalogue.side(against)
        hits = catalogue.search(**asked)
        of = catalogue.count(ranked)
    else:
        from dalr.catalogue.table_search import SearchTable

        assert db is not None
        products = SearchTable(db, table)
        ranked = products.side(against)
        if mode != "words":
            products.model = load_model(model or products.head.model, device)
        hits = products.search(**asked, mode=cast("Mode", mode), where=where, probes=probes)
        of = len(products)
        if compare_exact:
            recall = products.recall(k=k, against=against, probes=probes)
    if html is not None:
        from dalr.catalogue.gallery import write_gallery

        write_gallery(html, hits, text=text, image=image, of=of, ranked=RANKED[mode], where=where)
    if json_output:
        head = {"store": str(store)} if store is not None else {"db": db, "table": table}
        query_of = {"text": text, "image": image, "image_weight": image_weight}
        found = {"against": ranked, "mode": mode, "where": where, "recall": recall}
        print_json({**head, "query": query_of, **found, "results": [asdict(hit) for hit in hits]})
        return
    _show(hits, of)
    if recall is not None:
        typer.echo(f"recall@{k} of the index against an exact search: {recall:.3f}")
    if html is not None:
        typer.echo(f"page: {html.resolve()}")


def _show(hits: "list[Hit]", of: int) -> None:
    from dalr.cli.tables import show_table

    names = list(dict.fromkeys(name for hit in hits for name in hit.attributes))
    rows = [
        [str(hit.rank), f"{hit.score:.3f}", hit.key, hit.caption or "", hit.image or ""]
        + [str(hit.attributes.get(name, "")) for name in names]
        for hit in hits
    ]
    show_table(f"{len(hits)} of {of:,}", ["rank", "score", "row", "caption", "image", *names], rows)
