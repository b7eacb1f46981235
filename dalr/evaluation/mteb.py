"""MTEB 2.x: a DualEncoder as an encoder of the Massive Text Embedding Benchmark, texts and images.

`MtebEncoder(model)` is what `mteb.evaluate(encoder, tasks)` takes; `evaluate_mteb` runs tasks by name and returns plain
figures. A task with images is measured in the shared space, one with texts alone in the sentence space.

N inputs of a task, D width of the space.
"""

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dalr.data.fetch import cache_root
from dalr.errors import MissingExtraError, ModelError, UsageError, one_line
from dalr.evaluation.sentences import unit_rows
from dalr.files import hash_json
from dalr.model import DualEncoder, Space

if TYPE_CHECKING:
    from mteb import TaskMetadata
    from mteb.abstasks import AbsTask
    from mteb.models.model_meta import ModelMeta

# What MTEB calls a kind of prompt, and the names under which a model may have it.
PROMPT_NAMES = {"query": ("query",), "document": ("document", "passage")}
IMAGES_OF_A_BATCH = 32


class MtebEncoder:
    """A DualEncoder with the methods that MTEB asks of an encoder (its `EncoderProtocol`).

    Args:
        model: any DualEncoder. Where an input has a text and an image and the model both towers, its embedding is
            the sum of both unit vectors at unit length; a tower that is not there is left out.
        name: what results are filed under; `dalr/` is put before a name without an owner.

    Queries and documents get the model's prompts of these names (`passage` is another name for `document`), or one
    for the task or its type, in MTEB's own order of preference.
    """

    def __init__(self, model: DualEncoder, name: str = "model") -> None:
        self.model = model
        self.mteb_model_meta = model_meta(model, name)
        self._prompts = _mteb_prompts(model)

    def encode(
        self,
        inputs: Any,
        *,
        task_metadata: "TaskMetadata",
        hf_split: str = "",
        hf_subset: str = "",
        prompt_type: Any = None,
        **kwargs: Any,
    ) -> npt.NDArray[np.float32]:
        """Unit vectors (N, D) of the inputs, batches with the keys `text`, `image` or both, in their order.

        Raises ModelError where the model has no tower for any of these.
        """
        space: Space = "shared" if self._has_both and "image" in task_metadata.modalities else "sentence"
        texts: list[str] = []
        images: list[npt.NDArray[np.float32]] = []
        for batch in inputs:
            if "text" in batch and self.model.text is not None:
                texts.extend(batch["text"])
            if "image" in batch and self.model.image is not None:
                images.append(self.model.encode_image(batch["image"]))
        sides = []
        if texts:
            prompt = self._prompt(task_metadata, prompt_type)
            sides.append(self.model.encode_text(texts, space=space, prompt=prompt))
        if images:
            sides.append(np.concatenate(images))
        if not sides:
            raise ModelError(f"{task_metadata.name}: the model has no tower for what this task gives it")
        if len(sides) == 1:
            return sides[0]
        return unit_rows(sides[0] + sides[1])

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Cosine of every row with every row, a tensor (n, m)."""
        from mteb.similarity_functions import cos_sim

        return cos_sim(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Cosine of each row with its fellow, a tensor (n,)."""
        from mteb.similarity_functions import pairwise_cos_sim

        return pairwise_cos_sim(embeddings1, embeddings2)

    @property
    def _has_both(self) -> bool:
        return self.model.text is not None and self.model.image is not None

    def _prompt(self, task_metadata: "TaskMetadata", prompt_type: Any) -> str | None:
        """The name of the model's prompt for a task, or None."""
        if not self._prompts:
            return None
        from mteb.models.abs_encoder import get_prompt_name

        found = get_prompt_name(self._prompts, task_metadata, prompt_type)
        return None if found is None else self._prompts[found]


def model_meta(model: DualEncoder, name: str = "model") -> "ModelMeta":
    """What MTEB files results under and checks tasks against. The revision is the model's fingerprint.

    A model with both towers and a sentence space of another width than its shared one has both widths.
    """
    load_mteb()
    from mteb.models.model_meta import ModelMeta, ScoringFunction

    sides = [side for side, tower in (("text", model.text), ("image", model.image)) if tower is not None]
    fingerprints = [model.fingerprint(side) for side in sides]  # type: ignore[arg-type]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    widths = _widths(model)
    return ModelMeta(
        name=name if "/" in name else f"dalr/{name}",
        revision=fingerprints[0] if len(fingerprints) == 1 else hash_json(fingerprints),
        loader=None,
        release_date=None,
        languages=None,
        n_parameters=parameters,
        n_embedding_parameters=_embedding_parameters(model),
        memory_usage_mb=round(size / 2**20, 1),
        max_tokens=model.text.max_length if model.text is not None else None,
        embed_dim=widths[0] if len(widths) == 1 else widths,
        license=None,
        open_weights=None,
        public_training_code=None,
        public_training_data=None,
        framework=["PyTorch"],
        similarity_fn_name=ScoringFunction.COSINE,
        use_instructions=bool(_mteb_prompts(model)),
        training_datasets=None,
        modalities=sides,
        model_type=["dense"],
    )


def evaluate_mteb(
    model: DualEncoder,
    tasks: "Sequence[str | AbsTask]",
    *,
    name: str = "model",
    languages: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    out: str | Path | None = None,
    batch_size: int = IMAGES_OF_A_BATCH,
    progress: bool = False,
) -> dict[str, Any]:
    """Run MTEB tasks.

    Args:
        model: what is measured.
        tasks: names that MTEB knows (`STS12`, `NFCorpus`, …), or tasks themselves. Their data comes from the hub,
            or from its local cache.
        name: what results are filed under.
        languages, splits: only these; None is all that a task evaluates.
        out: folder of MTEB's results; what lies there for this model's fingerprint is not run again.
        batch_size: images that are held in memory at once.
        progress: whether MTEB shows its bars on stderr.

    Returns:
        `model`, `revision`, `mteb` (its version), `tasks` (task → `metric`, `main_score`, `seconds` and `scores`:
        split → one dict a subset, as MTEB has them, 0 to 1; no number is None) and `failed` (task → reason).

    Raises MissingExtraError without mteb, UsageError for a name that it does not know, or a task that asks for what
    the model has no tower for.
    """
    mteb = load_mteb()
    found = [task for task in tasks if not isinstance(task, str)]
    try:
        found += [
            mteb.get_task(task, languages=_listed(languages), eval_splits=_listed(splits))
            for task in tasks
            if isinstance(task, str)
        ]
    except (KeyError, ValueError) as error:
        # The text of a KeyError stands in quotes, and here begins with its name.
        reason = one_line(ValueError(*error.args)).removeprefix("KeyError: ")
        raise UsageError(f"MTEB task: {reason}") from None
    encoder = MtebEncoder(model, name)
    try:
        ended = mteb.evaluate(
            encoder,
            found,
            cache=mteb.ResultCache(out) if out is not None else None,
            encode_kwargs={"batch_size": batch_size},
            raise_error=False,
            show_progress_bar=progress,
            co2_tracker=False,
        )
    except ValueError as error:
        raise UsageError(f"MTEB: {one_line(error)}") from None
    meta = encoder.mteb_model_meta
    return {
        "model": meta.name,
        "revision": meta.revision,
        "mteb": mteb.__version__,
        "tasks": {result.task_name: _figures(result, found) for result in ended.task_results},
        "failed": {error.task_name: error.exception for error in ended.exceptions or []},
    }


def load_mteb() -> Any:
    """The package. Raises MissingExtraError where it is not installed."""
    # It makes a folder for results when it is imported, in the home folder unless told otherwise.
    os.environ.setdefault("MTEB_CACHE", str(cache_root() / "mteb"))
    try:
        import mteb
    except ModuleNotFoundError as error:
        if error.name != "mteb":
            raise
        raise MissingExtraError("mteb", "mteb", "evaluation on MTEB tasks") from None
    return mteb


def results_name(source: str) -> str:
    """A model's folder or encoder name as a name that results can be filed under."""
    return re.sub(r"[^\w.-]+", "-", Path(source).name if Path(source).is_dir() else source).strip("-.") or "model"


def _figures(result: Any, tasks: "Sequence[AbsTask]") -> dict[str, Any]:
    metric = next(task.metadata.main_score for task in tasks if task.metadata.name == result.task_name)
    scores = {split: [_finite(subset) for subset in subsets] for split, subsets in result.scores.items()}
    return {
        "metric": metric,
        "main_score": _finite(result.get_score()),
        "seconds": None if result.evaluation_time is None else round(result.evaluation_time, 1),
        "scores": scores,
    }


def _finite(value: Any) -> Any:
    """JSON has no NaN: what is no number is None."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _mteb_prompts(model: DualEncoder) -> dict[str, str]:
    """MTEB's name → the model's own name of a prompt."""
    own = {} if model.text is None else {name: text for name, text in model.text.spec.prompts.items() if text}
    names = {name: name for name in own}
    for theirs, ours in PROMPT_NAMES.items():
        found = next((name for name in ours if name in own), None)
        if found is not None:
            names[theirs] = found
    return names


def _widths(model: DualEncoder) -> list[int]:
    if model.text is None:
        assert model.image is not None
        return [model.image.width]
    spaces: list[Space] = ["sentence", "shared"] if model.image is not None else ["sentence"]
    return sorted({model.encode_text(["a"], space=space).shape[1] for space in spaces})


def _embedding_parameters(model: DualEncoder) -> int | None:
    """The size of the text tower's tables, tokens and positions; None without a text tower."""
    from torch import nn

    if model.text is None:
        return None
    return sum(module.weight.numel() for module in model.text.modules() if isinstance(module, nn.Embedding))


def _listed(values: Sequence[str] | None) -> list[str] | None:
    return list(values) if values else None
