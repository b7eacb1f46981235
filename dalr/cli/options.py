"""Options that several commands share: which model, and what the columns of a manifest mean."""

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    import torch

    from dalr.data.manifest import BadRow, Manifest
    from dalr.model import DualEncoder

Module = TypeVar("Module", bound="torch.nn.Module")

ModelName = Annotated[
    str, typer.Option("--model", help="A model folder (as `dalr train --out` makes it) or any encoder name.")
]
Device = Annotated[
    str | None, typer.Option("--device", help="Such as cpu or cuda:1; by default a GPU if there is one.")
]
ImageColumn = Annotated[str | None, typer.Option("--image-column", help="Column of image paths; guessed if not given.")]
TextColumn = Annotated[
    list[str] | None, typer.Option("--text-column", help="Column of texts; several are joined with ', '.")
]
GroupColumn = Annotated[
    str | None, typer.Option("--group-column", help="Column whose equal values are one product (all right answers).")
]
IdColumn = Annotated[str | None, typer.Option("--id-column", help="Column of row keys; the row number if not given.")]
SplitColumn = Annotated[str | None, typer.Option("--split-column", help="Column that names each row's split.")]
Split = Annotated[str | None, typer.Option("--split", help="Only the rows of this split, such as val.")]
Root = Annotated[str | None, typer.Option("--root", help="Folder of the images; by default the manifest's own.")]
MaxPixels = Annotated[int | None, typer.Option("--max-pixels", help="Largest width x height of an image.")]
Separator = Annotated[str | None, typer.Option("--separator", help="Of a CSV or TSV; found out if not given.")]
Encoding = Annotated[str | None, typer.Option("--encoding", help="Of a CSV or TSV; found out if not given.")]
AllowUrls = Annotated[bool, typer.Option("--allow-urls", help="Fetch images from public http(s) addresses.")]


@dataclass(frozen=True)
class CatalogueColumns:
    """What the columns of a catalogue mean, and where its pictures lie. `with_columns` makes options of the fields."""

    image_column: ImageColumn = None
    text_column: TextColumn = None
    group_column: GroupColumn = None
    id_column: IdColumn = None
    split_column: SplitColumn = None
    root: Root = None
    max_pixels: MaxPixels = None
    allow_urls: AllowUrls = False
    separator: Separator = None
    encoding: Encoding = None

    def load(self, data: str, split: str | None = None, tell: bool = True) -> "Manifest":
        """The rows of a catalogue, or of one split of it; with `tell` stderr says how many cannot be used."""
        manifest = load_manifest(
            data,
            split,
            image=self.image_column,
            text=self.text_column,
            group=self.group_column,
            id=self.id_column,
            split_column=self.split_column,
            root=self.root,
            max_pixels=self.max_pixels,
            allow_urls=self.allow_urls,
            separator=self.separator,
            encoding=self.encoding,
        )
        if tell:
            tell_left_out(manifest.bad)
        return manifest


def with_columns(function: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameter `columns` (CatalogueColumns) is an option for each of its fields."""
    fields = inspect.signature(CatalogueColumns).parameters
    own = inspect.signature(function)

    @functools.wraps(function)
    def command(**given: Any) -> None:
        columns = CatalogueColumns(**{name: given.pop(name) for name in fields})
        function(**given, columns=columns)

    parameters = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, replaced in own.parameters.items()
        for parameter in (fields.values() if name == "columns" else [replaced])
    ]
    # What typer reads.
    command.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def load_manifest(
    data: str,
    split: str | None,
    *,
    image: str | None = None,
    text: list[str] | None = None,
    group: str | None = None,
    id: str | None = None,
    split_column: str | None = None,
    root: str | None = None,
    max_pixels: int | None = None,
    allow_urls: bool = False,
    separator: str | None = None,
    encoding: str | None = None,
) -> "Manifest":
    """The rows that a command was pointed at."""
    from dalr.config import parse_config
    from dalr.data.manifest import DataConfig, Manifest

    values = {
        "image": image,
        "text": text or None,
        "group": group,
        "id": id,
        "split": split_column,
        "root": root,
        "allow_urls": allow_urls,
        "separator": separator,
        "encoding": encoding,
        **({} if max_pixels is None else {"max_pixels": max_pixels}),
    }
    return Manifest.load(data, parse_config(DataConfig, values, "options"), split)


def tell_left_out(bad: "Sequence[BadRow]", what: str = "rows") -> None:
    """Say on stderr how many rows were left out, and why the first was."""
    if bad:
        typer.echo(f"left out: {len(bad):,} {what}; the first, {bad[0].where}: {bad[0].reason}", err=True)


def check_output(option: str, out: Path, *inputs: "str | Path | None") -> None:
    """UsageError where a command would write over what it reads."""
    from dalr.errors import UsageError

    for source in inputs:
        if source is not None and out.exists() and Path(source).exists() and out.samefile(source):
            raise UsageError(f"{option} {out}: is a file that is read; name another one")


def load_model(source: str, device: str | None = None) -> "DualEncoder":
    """The model behind `--model`, on the device asked for, or on a GPU if there is one."""
    from dalr.model import DualEncoder

    return on_device(DualEncoder.from_pretrained(source), device)


def on_device(model: Module, device: str | None) -> Module:
    """The model, moved to the device asked for, or to a GPU if there is one."""
    import torch

    from dalr.errors import UsageError, one_line

    try:
        return model.to(torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")))
    except (RuntimeError, AssertionError) as error:
        reason = one_line(error)
        raise UsageError(f"--device {device}: cannot be used ({reason}); try cpu") from None
