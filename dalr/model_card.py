"""The README of a trained model: what it is, what made it, what it scored, how to use it."""

from collections.abc import Mapping
from typing import Any

TEMPLATE = """---
library_name: dalr
tags: [{tags}]
---

# A dalr model

Trained with {method} on `{data}` ({train_rows} rows) for {steps} steps, seed {seed}.

{parts}

{scores}

## Data

{data_list}

## Settings that are not the defaults

```yaml
{settings}```

## Limits

{limits}

## Use

```python
from dalr import DualEncoder

model = DualEncoder.from_pretrained("path/to/this/folder")
{usage}
```

## The same again

    dalr train path/to/this/folder/config.yaml --out another-folder

in the working directory of the first time, since paths are relative to it. The whole config, defaults included, is in
`run.json`.
"""

PAIR_USAGE = """texts = model.encode_text(["a red mug"])
images = model.encode_image(["mug.jpg"])
print(model.similarity(texts, images))"""
TEXT_USAGE = """texts = model.encode_text(["a red mug", "a mug that is red"])
print(model.similarity(texts, texts))"""


def model_card(config: Mapping[str, Any], result: Mapping[str, Any], inputs: Mapping[str, str], settings: str) -> str:
    """The card as Markdown.

    Args:
        config, result: of the run, as plain values.
        inputs: fingerprints of what was read, by name.
        settings: what of the config is not the default, as YAML.
    """
    model, data = config["model"], config["data"]
    paired = bool(model.get("image"))
    return TEMPLATE.format(
        tags="image-text, sentence-similarity, retrieval" if paired else "sentence-similarity, feature-extraction",
        method=_method(config),
        data=_data(data),
        train_rows=result["train_rows"],
        steps=result["steps"],
        seed=config["train"]["seed"],
        parts="\n".join(_parts(model)),
        scores=_scores(result),
        data_list="\n".join(_inputs(result, inputs)),
        settings=settings,
        limits="\n".join(_limits(model, result)),
        usage=PAIR_USAGE if paired else TEXT_USAGE,
    )


def _inputs(result: Mapping[str, Any], inputs: Mapping[str, str]) -> list[str]:
    lines = [f"- `{name}`: fingerprint `{value}`" for name, value in inputs.items() if value]
    if result.get("bad_rows"):
        lines.append(f"- {result['bad_rows']} rows could not be used; they are listed in `bad_rows.jsonl`")
    if result.get("leaks") and result["leaks"].get("dropped"):
        lines.append(f"- {result['leaks']['dropped']} rows were left out since they stand in a test or dev set")
    return lines


def _limits(model: Mapping[str, Any], result: Mapping[str, Any]) -> list[str]:
    text = model.get("text") or model
    lines = []
    if text.get("max_length"):
        lines.append(f"- It reads the first {text['max_length']} tokens of a text.")
    lines.append("- It is known to work on what it was measured on; other languages, topics or photos it may not know.")
    if not _scores(result):
        lines.append("- Nothing was measured while it was trained.")
    if model.get("image"):
        lines.append("- A cosine is not a probability that a caption fits its picture; `dalr audit` gives one.")
    lines.append("- The licences of the encoders it started from, and of the data, apply to it.")
    return lines


def _method(config: Mapping[str, Any]) -> str:
    if "schedule" in config:
        return f"causal and masked language modelling, `{config['schedule']}`,"
    if "tasks" in config:
        return f"the tasks {', '.join(f'`{name}`' for name in config['tasks']['tasks'])} together"
    return f"the objective `{config['objective']['name']}`"


def _data(data: Mapping[str, Any]) -> str:
    scores = ", ".join(source["path"] for source in data.get("scores") or [])
    named = data.get("train") or data.get("corpus") or data.get("triplets") or scores
    return str(named or ", ".join(data.get("paths", ["the tasks' own files"])))


def _parts(model: Mapping[str, Any]) -> list[str]:
    if "new" in model:  # of language modelling
        return [f"- Text encoder: `{model['name'] or 'new'}`", "- The language model with its head: `lm/`"]
    towers = [(side, model[side]) for side in ("text", "image") if model.get(side)]
    lines = [f"- {side.capitalize()} encoder: `{tower['name']}` ({tower['train']})" for side, tower in towers]
    return [*lines, f"- Shared space: {model['dim']} dimensions"] if len(towers) == 2 else lines


def _scores(result: Mapping[str, Any]) -> str:
    val = result.get("val")
    if not val:
        best = result.get("best")
        if best is not None:
            return f"Best {result['metric']} while training: {best:.2f}."
        last = ", ".join(f"`{name}` {value:.2f}" for name, value in (result.get("figures") or {}).items())
        return f"Measured at the end on what was kept out of training: {last}." if last else ""
    lines = ["| on the validation data | recall@1 | recall@10 | MRR | queries |", "|---|---|---|---|---|"]
    for name in ("text_to_image", "image_to_text"):
        found = val[name]
        lines.append(
            f"| {name.replace('_', ' ')} | {found['recall@1']:.1f} | {found['recall@10']:.1f} | {found['mrr']:.1f} "
            f"| {found['queries']} |"
        )
    return "\n".join(lines)
