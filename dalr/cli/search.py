"""`dalr search`: the products of an embedded catalogue that fit a text, an image, or both."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from dalr.cli import Json, app, command, print_json
from dalr.cli.options import Device, load_model


@command(app, "search")
def search(
    store: Annotated[Path, typer.Option("--store", help="Store made by dalr embed.")],
    query: Annotated[str | None, typer.Argument(help="Text, or the path of an image file.")] = None,
    image: Annotated[str | None, typer.Option("--image", help="Image file; with a text query, both count.")] = None,
    image_weight: Annotated[float, typer.Option("--image-weight", help="Share of the image in both, 0 to 1.")] = 0.5,
    against: Annotated[str | None, typer.Option("--against", help="Rank image (default) or text.")] = None,
    k: Annotated[int, typer.Option("-k", help="How many results.")] = 10,
    model: Annotated[str | None, typer.Option("--model", help="Where the store's model is, if it has moved.")] = None,
    device: Device = None,
    json_output: Json = False,
) -> None:
    """Search an embedded catalogue by text, by image, or by both.

    An argument that is an existing image file is an image; --image and a text together are both, weighted. Products
    are ranked by their images, each distinct image once; with --against text (or where the store holds no images)
    the distinct captions are ranked. A store whose model has changed since is refused.

    --json prints: store, query (text, image, image_weight), against (image or text) and results, each with rank, score
    (cosine), key (of the row), caption, image (path) and rows (how many rows share that image or caption).
    """
    from dalr.catalogue.search import Catalogue, image_or_text
    from dalr.errors import UsageError

    text, pictured = image_or_text(query) if query is not None else (None, None)
    if pictured is not None and image is not None:
        raise UsageError(f"two images are given, {pictured} and --image {image}; give one, and a text if you like")
    if image is not None and image_or_text(image)[1] is None:
        raise UsageError(f"--image {image}: there is no such image file")
    if against not in (None, "image", "text"):
        raise UsageError(f"--against {against}: expected image or text")
    if text is None and pictured is None and image is None:
        raise UsageError("there is no query; give a text, the path of an image file, or --image")
    catalogue = Catalogue(store, load_model(model or Catalogue.model_source(store), device))
    ranked = catalogue.side(against)
    hits = catalogue.search(text=text, image=image or pictured, image_weight=image_weight, against=ranked, k=k)
    if json_output:
        asked = {"text": text, "image": image or pictured, "image_weight": image_weight}
        print_json({"store": str(store), "query": asked, "against": ranked, "results": [asdict(hit) for hit in hits]})
        return
    from dalr.cli.tables import show_table

    rows = [[str(hit.rank), f"{hit.score:.3f}", hit.key, hit.caption or "", hit.image or ""] for hit in hits]
    show_table(f"{len(hits)} of {catalogue.count(ranked):,}", ["rank", "score", "row", "caption", "image"], rows)
