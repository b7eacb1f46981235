"""Train SimCSE with the public Python API alone: two dropout views of a sentence are each other's positive.

    python scripts/train_simcse.py --corpus wiki1m.txt --sts STS --out runs/simcse

Under several processes: `accelerate launch --num_processes 8 scripts/train_simcse.py …`, or on CPUs
`ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2 scripts/train_simcse.py …`.
Started again, a run goes on where it stopped.
"""

import argparse
from functools import partial
from pathlib import Path

import torch

from dalr import DualEncoder, ModelConfig, TrainConfig, Trainer
from dalr.evaluation.sts import sts_dev
from dalr.files import hash_json
from dalr.objectives import ObjectiveConfig, build_objective
from dalr.training_data import TrainingData, text_rows

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--corpus", required=True, help="text file, one sentence a line")
parser.add_argument("--sts", help="STS folder in the SentEval layout; its STS-B dev part selects the best weights")
parser.add_argument("--text", default="hf:google-bert/bert-base-uncased", help="text encoder")
parser.add_argument("--epochs", type=float, default=1)
parser.add_argument("--batch-size", type=int, default=64)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--out", required=True)
options = parser.parse_args()

# 1. A text encoder alone; every parameter learns.
torch.manual_seed(options.seed)
text = {"name": options.text, "train": "full", "pooling": "cls", "max_length": 32}
model = DualEncoder.build(ModelConfig.model_validate({"text": text}))

# 2. The sentences: tokenised once; batch t is a pure function of the seed, so a resumed run repeats it.
sentences = [line.strip() for line in Path(options.corpus).read_text(encoding="utf-8").splitlines() if line.strip()]
data = TrainingData(
    {"text": text_rows(sentences, model)},
    batch_size=options.batch_size,
    seed=options.seed,
    fingerprint=hash_json(sentences),
)

# 3. The method and the schedule.
objective = build_objective(ObjectiveConfig(name="simcse"), model)
config = TrainConfig(
    seed=options.seed,
    epochs=options.epochs,
    batch_size=options.batch_size,
    lr=3e-5,
    text_lr=3e-5,
    schedule="linear",
    evaluate_every=125,
    metric="sts_dev" if options.sts else None,
)

# 4. Train, select by STS-B dev, save.
evaluate = partial(sts_dev, folder=Path(options.sts)) if options.sts else None
trainer = Trainer(model, objective, data, config, out=options.out, evaluate=evaluate)
result = trainer.fit()
if trainer.accelerator.is_main_process:
    model.save_pretrained(options.out)
    best = "" if result.best is None else f", best STS-B dev {result.best:.2f}"
    print(f"{result.steps} steps{best}; model in {options.out}")
