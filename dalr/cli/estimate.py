"""What `dalr check --config` says about time and memory: the config's own run, put together on a sample of the rows."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dalr.data.manifest import Manifest
    from dalr.model import DualEncoder
    from dalr.run import RunConfig

# Rows of the sample, and the batch at which a tower in training is measured (time and memory grow with the batch).
SAMPLE, TOWER_BATCH = 256, 32
CORPUS_LINES = 2_000


def estimate_run(
    config: "RunConfig", train: "Manifest | None", everything: "Manifest"
) -> "tuple[DualEncoder, dict[str, Any]]":
    """The model of a config, and what its run will take: embedding, training, memory.

    Args:
        config: the run's.
        train: the training rows; None where it trains on texts alone.
        everything: the rows of all manifests, whose images and texts frozen towers embed once.
    """
    from dalr.catalogue.estimate import estimate_embedding, estimate_steps, write_sample
    from dalr.run.assembly import assemble

    trained = any(tower is not None and tower.train != "frozen" for tower in (config.model.text, config.model.image))
    wanted = config.train.batch_size // config.train.accumulate
    batch = min(wanted, TOWER_BATCH) if trained else wanted
    with tempfile.TemporaryDirectory(prefix="dalr-check-") as folder:
        home = Path(folder)
        data: dict[str, Any] = {"val": None, "dev": 0.0, "shuffle_captions": 0.0, "cache": folder}
        if train is not None:
            write_sample(train, max(SAMPLE, 2 * batch) if trained else SAMPLE, home / "sample.jsonl")
            image = "image" if train.roles.image else None
            group = "group" if train.group is not None else None
            data |= {
                "train": str(home / "sample.jsonl"), "root": "/", "image": image, "text": "text", "group": group,
                "weight": "weight", "id": None, "split": None,
            }  # fmt: skip
        corpus_lines = _sample_lines(config.data.corpus, home / "corpus.txt")
        triplet_lines = _sample_lines(config.data.triplets, home / "triplets.csv")
        data |= {"corpus": str(home / "corpus.txt")} if config.data.corpus else {}
        data |= {"triplets": str(home / "triplets.csv")} if config.data.triplets else {}
        update = {"batch_size": batch, "accumulate": 1, "chunk": None}
        small = config.model_copy(
            update={
                "data": config.data.model_copy(update=data),
                "train": config.train.unmeasured().model_copy(update=update),
                "evaluation": config.evaluation.model_copy(update={"sts": None, "pairs": {}}),
            }
        )
        plan = assemble(small)
        at_once = min(wanted, config.train.chunk or wanted)
        found = estimate_steps(
            plan.model, plan.objective, plan.data, plan.train_config, scale=at_once / batch, steps=4 if trained else 12
        )
        # A tower in training is run in every step and has nothing embedded beforehand.
        towers = {"text": config.model.text, "image": config.model.image}
        frozen = [side for side, tower in towers.items() if tower is not None and tower.train == "frozen"]
        embedding = estimate_embedding(plan.model, everything, frozen)
    paired = "pairs" in plan.data.rows
    full = len(train.pairs()) if paired and train is not None else max(corpus_lines, triplet_lines) or len(everything)
    measured = len(plan.data.rows["pairs" if paired else "text"])
    steps = config.train.total_steps(plan.data.batches_per_epoch * (full / measured) * (batch / wanted))
    # A step may be several micro-batches, or two passes over chunks (a forward more, a third of the work again).
    per_step = (
        found["seconds_per_step"] * (wanted / at_once) * config.train.accumulate * (4 / 3 if config.train.chunk else 1)
    )
    return plan.model, {
        "embedding": embedding,
        "training": {
            "steps": steps,
            "seconds_per_step": float(f"{per_step:.3g}"),
            "seconds": round(steps * per_step, 1),
            "measured_on": found["measured_on"],
        },
        "seconds": round(embedding["seconds"] + steps * per_step, 1),
        "memory_mb": found["memory_mb"],
        "gpu_memory_mb": found["gpu_memory_mb"],
        "left_out": "evaluation, checkpoints, reading the data",
    }


def _sample_lines(source: str | None, target: Path) -> int:
    """Copy the first lines of a text file; how many it has in all (0 without one)."""
    if source is None:
        return 0
    count = 0
    with open(source, "rb") as stream, open(target, "wb") as copy:
        for line in stream:
            if count < CORPUS_LINES:
                copy.write(line)
            count += 1
    return count
