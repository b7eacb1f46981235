"""The README of a trained model: what it is, what made it, what it scored, how to use it."""

from collections.abc import Mapping
from typing import Any

TEMPLATE = """---
library_name: dalr
tags: [image-text, sentence-similarity, retrieval]
---

# A dalr model

Trained with the objective `{objective}` on `{train}` ({train_rows} rows) for {steps} steps, seed {seed}.

- Text encoder: `{text}` ({text_train})
- Image encoder: `{image}` ({image_train})
- Shared space: {dim} dimensions

{scores}

```python
from dalr import DualEncoder

model = DualEncoder.from_pretrained("path/to/this/folder")
texts = model.encode_text(["a red mug"])
images = model.encode_image(["mug.jpg"])
print(model.similarity(texts, images))
```

The whole config is in `run.json`; `dalr train` with it makes this model again.
"""


def model_card(config: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """The card as Markdown, from a run's config and result as plain values."""
    model, data = config["model"], config["data"]
    text, image = model.get("text") or {}, model.get("image") or {}
    return TEMPLATE.format(
        objective=config["objective"]["name"],
        train=data.get("train") or data.get("corpus") or data.get("triplets"),
        train_rows=result["train_rows"],
        steps=result["steps"],
        seed=config["train"]["seed"],
        text=text.get("name", "none"),
        text_train=text.get("train", "none"),
        image=image.get("name", "none"),
        image_train=image.get("train", "none"),
        dim=model["dim"],
        scores=_scores(result),
    )


def _scores(result: Mapping[str, Any]) -> str:
    val = result.get("val")
    if not val:
        best = result.get("best")
        return "" if best is None else f"Best {result['metric']} while training: {best:.2f}."
    lines = ["| on the validation data | recall@1 | recall@10 | MRR | queries |", "|---|---|---|---|---|"]
    for name in ("text_to_image", "image_to_text"):
        found = val[name]
        lines.append(
            f"| {name.replace('_', ' ')} | {found['recall@1']:.1f} | {found['recall@10']:.1f} | {found['mrr']:.1f} "
            f"| {found['queries']} |"
        )
    return "\n".join(lines)
