"""Pairs of questions, and a classifier of pairs that knows their words."""

from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertForSequenceClassification

from dalr.encoders.new_tokenizer import TokenizerConfig, train_tokenizer

COLOURS, THINGS = ("red", "blue", "green", "black", "white"), ("mug", "dress", "chair", "lamp", "shoe", "bag")


def rows() -> list[tuple[str, str, int, float]]:
    """60 pairs: a question about a thing beside the same in other words, or about another thing."""
    found = []
    for number, (colour, thing) in enumerate((c, t) for c in COLOURS for t in THINGS):
        other = THINGS[(number + 1) % len(THINGS)]
        found.append((f"where is the {colour} {thing}", f"the {colour} {thing} is where", 1, 0.8 + number / 1000))
        found.append((f"where is the {colour} {thing}", f"who has a {other} to sell", 0, 0.1 + number / 1000))
    return found


def save_classifier(folder: Path, classes: int, seed: int = 0) -> tuple[Any, Any]:
    """A small cross-encoder of random weights in `folder`: (tokenizer, model)."""
    torch.manual_seed(seed)
    tokenizer = train_tokenizer([row[0] for row in rows()], TokenizerConfig(vocab_size=120), 32)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        num_labels=classes, initializer_range=0.5,
    )  # fmt: skip
    model = BertForSequenceClassification(config).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return tokenizer, model
