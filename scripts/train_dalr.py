"""Train DALR, in one of two settings, with the public Python API alone.

Product photos and captions, both towers frozen (minutes on a laptop):

    python scripts/train_dalr.py catalogue --train products.csv --val products_val.csv --out runs/products

Sentence embeddings with BERT on captions and plain sentences, as in He et al., ACL Findings 2025 (sized for GPUs;
Flickr30k or COCO as a CSV with the columns image and text, and a file with one sentence a line):

    accelerate launch --num_processes 8 scripts/train_dalr.py paper \\
        --train flickr30k.csv --corpus wiki1m.txt --sts STS --out runs/dalr-bert

Both run alone or under `accelerate launch`; on several CPU processes start them with
`ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2`. Started again, a run goes on where it stopped.
"""

import argparse
from pathlib import Path

import torch

from dalr import DALRTrainer, DualEncoder, ModelConfig, TrainConfig
from dalr.teachers import TeacherConfig

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("setting", choices=["catalogue", "paper"])
parser.add_argument("--train", required=True, help="manifest with images and captions")
parser.add_argument("--val", help="manifest that selects the best weights by retrieval")
parser.add_argument("--corpus", help="text file, one sentence a line, for text-only steps (paper)")
parser.add_argument("--sts", help="STS folder in the SentEval layout; its STS-B dev part selects the best weights")
parser.add_argument("--text", help="text encoder (default: MiniLM for catalogue, BERT-base for paper)")
parser.add_argument("--image", help="image encoder (default: MobileNetV2 for catalogue, ViT-B/32 of CLIP for paper)")
parser.add_argument("--teacher", nargs="*", help="text encoders to learn from (default: none, or SimCSE for paper)")
parser.add_argument("--epochs", type=float)
parser.add_argument("--batch-size", type=int)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--out", required=True)
options = parser.parse_args()

# 1. The pair of encoders. Frozen towers run once; their features are cached and training never opens an image.
torch.manual_seed(options.seed)
if options.setting == "catalogue":
    head = {"kind": "mlp", "hidden": 1024, "dropout": 0.3, "input_dropout": 0.2}
    shape = {
        "text": {"name": options.text or "hf:sentence-transformers/all-MiniLM-L6-v2", "train": "frozen"},
        "image": {"name": options.image or "timm:mobilenetv2_100", "train": "frozen"},
        "text_head": head,
        "image_head": head,
    }
else:
    shape = {
        "text": {"name": options.text or "hf:google-bert/bert-base-uncased", "train": "full", "pooling": "cls"},
        "image": {"name": options.image or "open_clip:ViT-B-32/laion2b_s34b_b79k", "train": "frozen"},
    }
model = DualEncoder.build(ModelConfig.model_validate(shape))

# 2. The schedule: batch sizes are global, over all processes.
if options.setting == "catalogue":
    config = TrainConfig(
        seed=options.seed, epochs=options.epochs or 30, batch_size=options.batch_size or 256, lr=1e-3, ema=0.99
    )
else:
    config = TrainConfig(
        seed=options.seed,
        epochs=options.epochs or 4,
        batch_size=options.batch_size or 128,
        lr=3e-5,
        text_lr=3e-5,
        schedule="linear",
        evaluate_every=125,
    )

# 3. Train. DALRTrainer is Trainer with the objective, the streams and the evaluation built from the manifests.
# Teachers are run once over all texts and cached; in the catalogue setting the frozen towers teach by themselves.
teachers = [TeacherConfig(name=name) for name in options.teacher or ()]
if options.teacher is None and options.setting == "paper":
    teachers = [TeacherConfig(name="hf:princeton-nlp/unsup-simcse-bert-base-uncased", pooling="cls")]
corpus = []
if options.corpus:
    corpus = [line.strip() for line in Path(options.corpus).read_text(encoding="utf-8").splitlines() if line.strip()]
trainer = DALRTrainer(
    model,
    options.train,
    options.val,
    profile=options.setting,
    corpus=corpus,
    sts=options.sts,
    teachers=teachers,
    config=config,
    out=options.out,
)
result = trainer.fit()

# 4. Keep the best weights: the folder loads with DualEncoder.from_pretrained and as --model of every command.
if trainer.accelerator.is_main_process:
    model.save_pretrained(options.out)
    best = "" if result.best is None else f", best {trainer.config.metric} {result.best:.2f}"
    print(f"{result.steps} steps{best}; model in {options.out}")
