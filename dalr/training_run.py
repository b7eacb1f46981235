"""A run: data, model, method and loop put together from a RunConfig, and carried out in a run folder."""

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dalr.config import parse_config
from dalr.data.faults import shuffle_captions
from dalr.data.groups import carve_dev
from dalr.data.manifest import BadRow, DataConfig, Manifest
from dalr.data.texts import read_corpus, read_triplets
from dalr.devices import on_cpu
from dalr.errors import ConfigError, DataError
from dalr.evaluation.catalogue import evaluate_retrieval
from dalr.evaluation.parts import Part, retrieval_evaluator
from dalr.evaluation.sts import sts_dev
from dalr.files import hash_json, write_atomically, write_json
from dalr.model import DualEncoder
from dalr.model_card import model_card
from dalr.noise import NoiseConfig, PairWeights, build_pair_weights
from dalr.objectives import AlignmentObjective, Features, Kind, ObjectiveConfig, Rows, build_objective
from dalr.run import DataSection, RunConfig
from dalr.run_folder import RUN_FILE, check_same_run, lock_run, read_run
from dalr.teachers import TeacherConfig
from dalr.trainer import TrainConfig, Trainer
from dalr.training_data import TrainingData, add_teachers, pair_rows, photo_keys, text_column, text_rows

Progress = Callable[[int, int], None]
SAMPLE_ROWS, SAMPLE_BATCH = 2048, 64


@dataclass(frozen=True)
class RunResult:
    """How `run_training` ended; `as_json` is what `dalr train --json` prints."""

    out: str
    status: str
    steps: int = 0
    best_step: int = 0
    metric: str | None = None
    best: float | None = None
    seconds: float = 0.0
    train_rows: int = 0
    bad_rows: int = 0
    figures: dict[str, float] = field(default_factory=dict)
    val: dict[str, Any] | None = None
    is_main_process: bool = True

    def as_json(self) -> dict[str, Any]:
        """All fields but the process's role."""
        return {name: value for name, value in vars(self).items() if name != "is_main_process"}


def run_training(
    config: RunConfig,
    out: str | Path,
    *,
    progress: Callable[[dict[str, Any]], None] | None = None,
    embedding: Progress | None = None,
    dry_run: bool = False,
) -> RunResult:
    """Train what `config` says into the run folder `out`, from where an earlier run with the same config stopped.

    `progress` gets every logged event, `embedding` the count of features computed before training. With `dry_run`
    everything is read and built, and nothing is trained or written.

    Raises UsageError (and ConfigError, DataError, ModelError below it) for what cannot be run, among it a run
    folder that holds another config, and DalrError when training fails.
    """
    from accelerate import PartialState

    out, main = Path(out), PartialState(cpu=on_cpu()).is_main_process
    settings = config.model_dump(mode="json")
    record = read_run(out)
    if record is not None and record["status"] == "finished" and not dry_run:
        check_same_run(record, settings, record.get("inputs", {}), out)
        return RunResult(**record["result"], is_main_process=main)
    with lock_run(out) if main and not dry_run else contextlib.nullcontext():
        plan = assemble(config, embedding)
        if record is not None:
            check_same_run(record, settings, plan.inputs, out)
        if dry_run:
            steps = config.train.steps or round(config.train.epochs * plan.data.batches_per_epoch)
            return RunResult(str(out), "checked", steps, train_rows=plan.train_rows, bad_rows=len(plan.bad))
        if main:
            write_json(out / RUN_FILE, {"status": "running", "config": settings, "inputs": plan.inputs})
            write_bad_rows(out / "bad_rows.jsonl", plan.bad)
        trainer = Trainer(
            plan.model,
            plan.objective,
            plan.data,
            plan.train_config,
            out=out,
            evaluate=plan.evaluate,
            progress=progress,
        )
        ended = trainer.fit()
        val = None
        if main:
            trainer.model.save_pretrained(out)
            if plan.val is not None:
                val = evaluate_retrieval(trainer.model, plan.val, cache=config.data.cache, progress=embedding)
        result = RunResult(
            out=str(out),
            status="finished",
            steps=ended.steps,
            best_step=ended.best_step,
            metric=plan.train_config.metric,
            best=ended.best,
            seconds=round(ended.seconds, 2),
            train_rows=plan.train_rows,
            bad_rows=len(plan.bad),
            figures=ended.figures,
            val=val,
            is_main_process=main,
        )
        if main:
            write_atomically(out / "README.md", model_card(settings, result.as_json()))
            record = {"status": "finished", "config": settings, "inputs": plan.inputs, "result": result.as_json()}
            write_json(out / RUN_FILE, record)
        return result


@dataclass(frozen=True)
class Plan:
    """Everything a run needs, read and built."""

    model: DualEncoder
    objective: AlignmentObjective
    data: TrainingData
    train_config: TrainConfig
    evaluate: Callable[[DualEncoder], dict[str, float]] | None
    val: Manifest | None
    inputs: dict[str, str]
    train_rows: int
    bad: list[BadRow]


def assemble(config: RunConfig, embedding: Progress | None = None) -> Plan:
    """Read the data, build model, objective and evaluation; the same config gives the same plan."""
    data = config.data
    train, dev, val = load_parts(data, config.train.seed)
    corpus, bad_lines = read_corpus(data.corpus) if data.corpus else ([], [])
    triplets, bad_triplets = read_triplets(data.triplets) if data.triplets else (None, [])
    texts = [*(train.texts if train else []), *corpus, *(triplets[0] if triplets else [])]
    torch.manual_seed(config.train.seed)
    model = DualEncoder.build(config.model, corpus=[text for text in texts if text])
    inputs = {"model": hash_json([model.fingerprint("text"), model.fingerprint("image") if model.image else ""])}

    cache = Path(data.cache) if data.cache else None
    build = partial(pair_rows, model=model, cache=cache, progress=embedding)
    needs = set(config.objective.kinds)
    rows: dict[Kind, Rows] = {}
    if train is not None and "pairs" in needs:
        train, rows["pairs"] = build(train)
    if "text" in needs and (triplets or corpus or "pairs" not in needs):
        rows["text"] = sentences(train, corpus, triplets, model, cache, embedding)
    if not rows:
        raise ConfigError(f"data.train: the objective {config.objective.name} trains on pairs; name a manifest")
    if "pairs" in rows and train is not None:
        captions = [text or "" for text in train.texts]
        rows["pairs"] = add_teachers(config.teachers, rows["pairs"], captions, train, cache)
    if "text" in rows:
        rows["text"] = add_teachers(config.teachers, rows["text"], sentence_texts(train, corpus, triplets), None, cache)
    inputs |= {"data.train": train.fingerprint() if train else "", "texts": hash_json([corpus, triplets])}
    standardise_heads(model, rows)
    weights = pair_weights(config.noise, rows.get("pairs")) if config.objective.pair_weights else None
    torch.manual_seed(config.train.seed)
    objective = build_objective(config.objective, model, pair_weights=weights)
    pictures = model.image is not None
    if val is not None and pictures and not len(val.pairs()):
        raise DataError(f"data.val: {val.source}: no row has both an image and a text to measure retrieval on")
    selecting = Part(*build(dev)) if dev is not None and pictures and config.evaluation.retrieval else None
    evaluate, metric = choose_evaluation(config.objective, config.train.metric, selecting, config.evaluation.sts)
    train_config = config.train.model_copy(update={"metric": metric})
    stream = TrainingData(
        rows,
        mix=data.mix,
        batch_size=train_config.batch_size // train_config.accumulate,
        seed=config.train.seed,
        fingerprint=inputs["data.train"] + inputs["texts"],
    )
    count = sum(len(part) for part in rows.values())
    bad = [*(train.bad if train is not None else []), *bad_lines, *bad_triplets]
    return Plan(model, objective, stream, train_config, evaluate, val if pictures else None, inputs, count, bad)


def sentences(
    train: Manifest | None,
    corpus: Sequence[str],
    triplets: tuple[list[str], list[str], list[str]] | None,
    model: DualEncoder,
    cache: Path | None,
    embedding: Progress | None,
) -> Rows:
    """The text-only training set: triplets, else the corpus, else the captions of the manifest."""
    if triplets is not None:
        columns = [text_column(column, model, cache, embedding) for column in triplets[1:]]
        anchors = text_rows(triplets[0], model, cache=cache, progress=embedding)
        return replace(anchors, positive=columns[0], negative=columns[1])
    return text_rows(sentence_texts(train, corpus, triplets), model, cache=cache, progress=embedding)


def sentence_texts(
    train: Manifest | None, corpus: Sequence[str], triplets: tuple[list[str], list[str], list[str]] | None
) -> Sequence[str]:
    """The (anchor) sentences of the text-only training set, in the order of its rows."""
    if triplets is not None:
        return triplets[0]
    return corpus or [text for text in (train.texts if train else []) if text]


def pair_weights(config: NoiseConfig, rows: Rows | None) -> PairWeights | None:
    """Pair weights of the paired rows, from the teachers' embeddings where both sides have one."""
    if rows is None:
        return None
    text = rows.text_teachers[0].array if rows.text_teachers else None
    image = rows.image_teachers[0].array if rows.image_teachers else None
    return build_pair_weights(config, text, image, rows.ids_NK)


def standardise_heads(model: DualEncoder, rows: Mapping[Kind, Rows]) -> None:
    """Fit the heads' input standardisation, where it is on and not yet set, to the features training starts from."""
    if "pairs" not in rows:
        return
    pairs = rows["pairs"]
    for head, column, tower in (
        (model.text_head, pairs.text, model.text),
        (model.image_head, pairs.image, model.image),
    ):
        if head is None or column is None or not head.config.standardise or head.fitted:
            continue
        # Of a tower in training, a sample is enough: its features will move anyway.
        share = 1 if isinstance(column, Features) else max(1, len(pairs) // SAMPLE_ROWS)
        chosen = np.arange(0, len(pairs), share)
        features = []
        with torch.inference_mode():
            for start in range(0, len(chosen), SAMPLE_BATCH):
                block = chosen[start : start + SAMPLE_BATCH]
                inputs = column.take(block, block)
                if tower is not None and not isinstance(column, Features):
                    inputs = tower(inputs)
                assert isinstance(inputs, torch.Tensor)
                features.append(inputs.numpy())
        head.fit_input(np.concatenate(features))


def choose_evaluation(
    objective: ObjectiveConfig, metric: str | None, dev: Part | None, sts: str | None
) -> tuple[Callable[[DualEncoder], dict[str, float]] | None, str | None]:
    """What is measured while training, and the metric that selects the best weights: `metric`, or the first.

    Raises ConfigError for a metric where nothing is measured.
    """
    measures: list[Callable[[DualEncoder], dict[str, float]]] = []
    default = None
    if sts:
        measures.append(partial(sts_dev, folder=Path(sts)))
        default = "sts_dev"
    if dev is not None and objective.uses_images:
        measures.append(retrieval_evaluator(dev))
        default = default or "mrr"
    if not measures:
        if metric:
            raise ConfigError(f"train.metric={metric}: nothing is measured; name data.val or evaluation.sts")
        return None, None

    def evaluate(model: DualEncoder) -> dict[str, float]:
        return {name: value for measure in measures for name, value in measure(model).items()}

    return evaluate, metric or default


def write_bad_rows(path: Path, bad: Sequence[BadRow]) -> None:
    """One JSON object a row that could not be used: its number, key and the reason."""
    lines = [json.dumps(asdict(row), ensure_ascii=False) for row in bad]
    write_atomically(path, "".join(f"{line}\n" for line in lines))


def load_part(data: DataSection, source: str | None, split: str) -> Manifest | None:
    """The rows of `split` where the source has such a part, else all of them (a file for each part)."""
    if source is None:
        return None
    manifest = Manifest.load(source, data)
    if manifest.split is None or (data.train != data.val and split not in manifest.split):
        return manifest
    return manifest.part(split)


def load_parts(data: DataSection, seed: int) -> tuple[Manifest | None, Manifest | None, Manifest | None]:
    """(train, dev, val) manifests; dev is carved from train by group, or is val where nothing is carved."""
    train = load_part(data, data.train, data.train_split)
    val = load_part(data, data.val, data.val_split)
    if train is None:
        return None, val, val
    dev = val
    if data.dev:
        train_rows, dev_rows = carve_dev(train.ids(photo_keys(train)), data.dev, seed)
        train, dev = train.select(train_rows), train.select(dev_rows)
    if data.shuffle_captions:
        # What is measured keeps its own captions.
        train = shuffle_captions(train, data.shuffle_captions, seed)
    return train, dev, val


class DALRTrainer(Trainer):
    """`Trainer` with the DALR objective, its streams and its evaluation built from manifests.

        DALRTrainer(model, "train.csv", "val.csv", profile="catalogue", config=TrainConfig(epochs=20)).fit()

    Args:
        model: its frozen towers are run once and cached; the others learn.
        train: a manifest, or the path of one (columns are guessed).
        val: a manifest or path that selects the best weights; None keeps the last ones.
        profile: `catalogue` for retrieval on product data, `paper` for sentence embeddings.
        corpus: sentences for text-only steps, one of them after every step on pairs.
        sts: an STS folder whose STS-B dev part selects the best weights.
        teachers: encoders whose similarities the model learns from; a frozen tower is one of its own accord.
        objective: a whole ObjectiveConfig instead of a profile.
        config, out, progress: as for `Trainer`.
    """

    def __init__(
        self,
        model: DualEncoder,
        train: Manifest | str | Path,
        val: Manifest | str | Path | None = None,
        *,
        profile: str = "catalogue",
        corpus: Sequence[str] = (),
        sts: str | Path | None = None,
        teachers: Sequence[TeacherConfig] = (),
        objective: ObjectiveConfig | None = None,
        config: TrainConfig | None = None,
        out: str | Path | None = None,
        progress: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        method = objective or parse_config(ObjectiveConfig, {"name": "dalr", "profile": profile}, "profile")
        settings = config or TrainConfig()
        columns = DataConfig()
        train, rows = pair_rows(_manifest(train, columns), model)
        captions = [text or "" for text in train.texts]
        sets: dict[Kind, Rows] = {"pairs": add_teachers(teachers, rows, captions, train, None)}
        if corpus:
            sets["text"] = add_teachers(teachers, text_rows(corpus, model), corpus, None, None)
        standardise_heads(model, sets)
        weights = pair_weights(NoiseConfig(), sets["pairs"]) if method.pair_weights else None
        part = Part(*pair_rows(_manifest(val, columns), model)) if val is not None else None
        evaluate, metric = choose_evaluation(method, settings.metric, part, str(sts) if sts else None)
        settings = settings.model_copy(update={"metric": metric})
        data = TrainingData(
            sets,
            batch_size=settings.batch_size // settings.accumulate,
            seed=settings.seed,
            fingerprint=train.fingerprint() + hash_json(list(corpus)),
        )
        torch.manual_seed(settings.seed)
        built = build_objective(method, model, pair_weights=weights)
        super().__init__(model, built, data, settings, out=out, evaluate=evaluate, progress=progress)


def _manifest(source: Manifest | str | Path, columns: DataConfig) -> Manifest:
    return source if isinstance(source, Manifest) else Manifest.load(str(source), columns)


def heads_benchmark(
    config: RunConfig, steps: int, embedding: Progress | None = None
) -> tuple[Callable[[], float], dict[str, Callable[[], float]]]:
    """What `dalr bench train` times: the bare loop, and ours as `clip` and with the config's own objective.

    Raises ConfigError where a tower is in training: the bare loop reads cached features.
    """
    import tempfile

    from dalr.bench.train import bare_loop

    clip = config.model_copy(update={"objective": parse_config(ObjectiveConfig, {"name": "clip"}, "bench")})
    plans = {"clip": clip, "own": config}
    rows = assemble(config, embedding).data.rows["pairs"]
    if not (isinstance(rows.text, Features) and isinstance(rows.image, Features)):
        raise ConfigError("bench train: both towers must be frozen; set model.text.train and model.image.train")
    text, image = (torch.from_numpy(column.array[:]) for column in (rows.text, rows.image))
    head = config.model.text_head
    train = config.train

    def bare() -> float:
        hidden = head.hidden if head.kind == "mlp" else None
        size = train.batch_size
        return bare_loop(text, image, dim=config.model.dim, hidden=hidden, batch_size=size, steps=steps, lr=train.lr)

    def ours(settings: RunConfig) -> float:
        plan = assemble(settings)
        with tempfile.TemporaryDirectory() as out:
            return Trainer(plan.model, plan.objective, plan.data, plan.train_config, out=out).fit().seconds

    return bare, {name: partial(ours, settings) for name, settings in plans.items()}
