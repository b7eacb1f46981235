"""The sentences of the study: a slice of Wikinews and the captions of Flickr8k, one sentence a line.

    python scripts/make_study_data.py --data $DALR_DATA --out runs/study/data

Writes corpus.txt; one_caption.csv, the catalogue with the first caption of each photo alone (its photos stay in
flickr8k/), and one_caption_corpus.txt, which goes with it.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from make_weak_start import sentences


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of wikinews/ and flickr8k/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--news", type=int, default=60_000, help="sentences of Wikinews")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    news = list(dict.fromkeys(sentences(options.data / "wikinews/articles.jsonl.gz")))
    chosen = np.random.default_rng(0).permutation(len(news))[: options.news]
    flickr = options.data / "flickr8k"
    with open(flickr / "captions.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    captions = (flickr / "captions_without_images.txt").read_text(encoding="utf-8").splitlines()
    first = list({row["image"]: row for row in reversed(rows)}.values())[::-1]
    for name, of in (("corpus", rows), ("one_caption_corpus", first)):
        taught = [row["caption"] for row in of if row["split"] == "train"]
        corpus = [*(news[number] for number in sorted(chosen)), *dict.fromkeys([*captions, *taught])]
        (options.out / f"{name}.txt").write_text("".join(f"{text}\n" for text in corpus), encoding="utf-8")
        print(f"{name}.txt: {len(corpus):,} sentences")
    with open(options.out / "one_caption.csv", "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(first)
    print(f"one_caption.csv: {len(first):,} photos")


if __name__ == "__main__":
    main()
