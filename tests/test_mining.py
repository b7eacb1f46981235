"""Mining of hard negatives.

Invariants
- On random vectors with groups, repeated anchors and both choices the tiles give what plain loops over the whole
  matrix give, negative by negative and count by count; the tile size changes nothing.
- Each rule alone refuses what it says and nothing else: known positives (own text in any spelling, any pair's or
  group's, in both directions, no further), ranks, margin, share (also of a negative cosine), teacher and ceiling.
- The counts add up; a pair without a negative is named with the rule that left it none.
- Texts are embedded once, through the cache, the anchors with their own prompt; the file that is written is read
  back as it was by `read_triplets`, whatever the texts hold, and trains.
- On real captions whose siblings are hidden, the margin and the teacher lower the share of false negatives.
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dalr.config import parse_config
from dalr.data.groups import normalise_caption
from dalr.data.manifest import Manifest
from dalr.data.pairs import Pairs, Texts, caption_pairs
from dalr.data.texts import read_triplets
from dalr.encoders import NewTextConfig, TextConfig, build_text_encoder
from dalr.errors import ConfigError, DataError
from dalr.mining import KnownPositives, Mined, MiningConfig, View, mine_texts, mine_vectors, vectors, write_triplets

OFF = MiningConfig(ranks=(0, 1000), share=None, negatives=1000)


def pairs_of(*rows: tuple[str, ...]) -> Pairs:
    pairs = Pairs()
    for number, (anchor, positive, *group) in enumerate(rows):
        pairs.add(anchor, positive, group[0] if group else None, f"pairs.csv:{number + 2}")
    return pairs


def ungrouped(*texts: str) -> Texts:
    return Texts(list(texts), [None] * len(texts))


def together(pairs: Pairs, candidates: Texts) -> list[set[str]]:
    """The sets of texts that a pair or a group puts together, normalised."""
    facts = [{normalise_caption(text) for text in pair} for pair in zip(pairs.anchors, pairs.positives, strict=True)]
    groups: dict[str, set[str]] = defaultdict(set)
    for texts, names in [
        (pairs.anchors, pairs.group),
        (pairs.positives, pairs.group),
        (candidates.texts, candidates.group),
    ]:
        for text, name in zip(texts, names, strict=True):
            if name is not None:
                groups[name].add(normalise_caption(text))
    return [*facts, *groups.values()]


def twin(
    view: View, pairs: Pairs, candidates: Texts, config: MiningConfig, teacher: View | None = None
) -> tuple[list[tuple[int, int, int]], dict[str, int], list[int]]:
    """(pair, candidate, rank) of every negative, counts and pairs without one, by plain loops."""
    facts = together(pairs, candidates)
    names = list(dict.fromkeys(normalise_caption(text) for text in candidates.texts))
    counts: dict[str, int] = defaultdict(int)
    chosen, without = [], []
    draws = np.random.default_rng(config.seed).random((len(pairs), config.ranks[1] - config.ranks[0]))

    def cosine(a: Any, b: Any) -> float:
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        return float(a @ b / np.sqrt((a @ a) * (b @ b)))

    for pair in range(len(pairs)):
        own = {normalise_caption(pairs.anchors[pair]), normalise_caption(pairs.positives[pair])}
        known = own.union(*(fact for fact in facts if fact & own))
        ranked = sorted(
            (-cosine(view.anchors[pair], view.candidates[at]), at) for at, name in enumerate(names) if name not in known
        )
        counts["known_positives"] += len(names) - len(ranked)
        positive = cosine(view.anchors[pair], view.positives[pair])
        gaps = [config.margin, None if config.share is None else (1 - config.share) * abs(positive)]
        gap = max((gap for gap in gaps if gap is not None), default=-9.0)
        allowed = []
        for rank, (score, at) in enumerate(ranked):
            if not config.ranks[0] <= rank < config.ranks[1]:
                counts["outside_ranks"] += 1
            elif -score > positive - gap:
                counts["refused_by_margin"] += 1
            elif teacher is not None and (
                cosine(teacher.anchors[pair], teacher.candidates[at])
                > min(
                    cosine(teacher.anchors[pair], teacher.positives[pair]) - config.teacher_margin,
                    2 if config.teacher_ceiling is None else config.teacher_ceiling,
                )
            ):
                counts["refused_by_teacher"] += 1
            else:
                allowed.append((rank, at))
        if config.choice == "random":
            allowed.sort(key=lambda item: draws[pair, item[0] - config.ranks[0]])
        taken = sorted(allowed[: config.negatives])
        chosen += [(pair, at, rank + 1) for rank, at in taken]
        counts["spare"] += len(allowed) - len(taken)
        if not taken:
            without.append(pair)
    return chosen, counts, without


def random_case(seed: int) -> tuple[View, View, Pairs, Texts]:
    """60 pairs over few words, so that anchors repeat and groups meet; vectors that follow the texts."""
    rng = np.random.default_rng(seed)
    names = [f"text {number}" for number in range(70)]
    pairs, candidates = Pairs(), Texts()
    for number in range(60):
        anchor, positive = rng.choice(names, size=2, replace=False)
        group = f"g{rng.integers(8)}" if rng.random() < 0.3 else None
        pairs.add(str(anchor), str(positive), group, str(number))
    for name in rng.permutation([*names, *(name.upper() for name in names[:20]), *(f"other {k}" for k in range(40))]):
        candidates.texts.append(str(name))
        candidates.group.append(f"g{rng.integers(8)}" if rng.random() < 0.2 else None)
    order = list(dict.fromkeys(normalise_caption(text) for text in candidates.texts))

    def view(width: int) -> View:
        rows: dict[str, np.ndarray] = defaultdict(lambda: rng.normal(size=width) * rng.uniform(0.5, 3))

        def table(texts: list[str]) -> np.ndarray:
            return np.stack([rows[normalise_caption(text)] for text in texts]).astype(np.float32)

        return View(table(pairs.anchors), table(pairs.positives), table(order))

    return view(6), view(9), pairs, candidates


CASES: dict[str, dict[str, Any]] = {
    "nothing but known positives": {"ranks": (0, 500), "share": None, "negatives": 500},
    "window": {"ranks": (3, 20), "share": None, "negatives": 4},
    "share": {"ranks": (0, 60), "share": 0.9},
    "margin and share": {"ranks": (2, 60), "margin": 0.2, "negatives": 3},
    "teacher": {"ranks": (0, 60), "share": None, "teacher_margin": 0.1, "negatives": 3},
    "ceiling": {"ranks": (0, 60), "share": None, "teacher_ceiling": 0.1, "negatives": 2},
    "all of it, drawn": {
        "ranks": (1, 40), "margin": 0.05, "teacher_ceiling": 0.4, "negatives": 3, "choice": "random", "seed": 5,
    },
}  # fmt: skip


@pytest.mark.parametrize("tile", [7, 1000])
@pytest.mark.parametrize("case", CASES)
def test_tiles_equal_the_twin(case: str, tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "ANCHOR_TILE", tile)
    monkeypatch.setattr(vectors, "CANDIDATE_TILE", tile + 4)
    monkeypatch.setattr(vectors, "TEACHER_TILE", 3)
    config = MiningConfig(**CASES[case])
    view, second, pairs, candidates = random_case(len(case))
    teacher = second if "teacher" in str(CASES[case]) else None
    steps: list[tuple[int, int]] = []
    mined = mine_vectors(
        view, KnownPositives(pairs, candidates), config, teacher=teacher, progress=lambda *at: steps.append(at)
    )
    chosen, counts, without = twin(view, pairs, candidates, config, teacher)
    assert list(zip(mined.pair, mined.candidate, mined.rank, strict=True)) == chosen
    assert list(mined.without) == without
    for name in ("known_positives", "outside_ranks", "refused_by_margin", "refused_by_teacher", "spare"):
        assert mined.counts[name] == counts[name], name
    assert steps[-1] == (60, 60)
    assert_counts_add_up(mined)
    # Not vacuous: the rule of the case did refuse something, and something was left.
    assert counts["known_positives"] > 200
    assert len(chosen) > 0
    wanted = "refused_by_teacher" if teacher else "refused_by_margin" if config.share else "outside_ranks"
    assert counts[wanted] > 0 or config.ranks[1] == 500


def assert_counts_add_up(mined: Mined) -> None:
    counts = mined.counts
    assert counts["pairs"] == counts["with_negatives"] + counts["without"] == len(mined.positive_cosine)
    assert counts["with_negatives"] == len(set(mined.pair.tolist()))
    assert counts["without"] == len(mined.without)
    assert counts["negatives"] == len(mined.pair)
    parts = ("known_positives", "outside_ranks", "refused_by_margin", "refused_by_teacher", "spare", "negatives")
    assert counts["pairs"] * counts["candidates"] == sum(counts[name] for name in parts)


def negatives(pairs: Pairs, candidates: Texts) -> list[set[str]]:
    """What may be a negative of each pair when no rule but the known positives holds."""
    known = KnownPositives(pairs, candidates)
    texts = list(dict.fromkeys(candidates.texts))
    ones = View(np.ones((len(pairs), 2)), np.ones((len(pairs), 2)), np.ones((known.candidates, 2)))
    mined = mine_vectors(ones, known, OFF)
    return [{texts[at] for at in mined.candidate[mined.pair == pair]} for pair in range(len(pairs))]


def test_known_positives() -> None:
    # a–b and b–c share b, so that a, b, c are positives of each other; d hangs on c and is not known to be one of a.
    chain = pairs_of(("a", "b"), ("b", "c"), ("c", "d"), ("x", "y"))
    found = negatives(chain, ungrouped("a", "b", "c", "d", "x", "y", "z"))
    assert found == [{"d", "x", "y", "z"}, {"x", "y", "z"}, {"a", "x", "y", "z"}, {"a", "b", "c", "d", "z"}]
    grouped = pairs_of(("a", "b", "g"), ("c", "d", "g"), ("e", "f", "h"), ("i", "j"))
    some = Texts(["d", "q", "f", "r", "j"], [None, "g", None, "h", None])
    assert negatives(grouped, some) == [{"f", "r", "j"}, {"f", "r", "j"}, {"d", "q", "j"}, {"d", "q", "f", "r"}]
    spelled = pairs_of(("A red  Dress", "one"))
    assert negatives(spelled, ungrouped("a RED dress", "One", "red dress")) == [{"red dress"}]


def one_pair(candidates: list[float], positive: float, **values: Any) -> Mined:
    """Candidates and a positive at these cosines from one anchor."""

    def at(cosine: float) -> list[float]:
        return [cosine, float(np.sqrt(1 - cosine**2))]

    texts = ungrouped(*(f"c{number}" for number in range(len(candidates))))
    view = View(np.array([[1.0, 0.0]]), np.array([at(positive)]), np.array([at(cosine) for cosine in candidates]))
    config = MiningConfig(**{"share": None, "negatives": 100} | values)
    return mine_vectors(view, KnownPositives(pairs_of(("a", "p")), texts), config)


def test_each_window_in_closed_form() -> None:
    cosines = [0.1, 0.9, 0.5, 0.7, 0.3]
    assert one_pair(cosines, 0.8).candidate.tolist() == [1, 3, 2, 4, 0]
    assert one_pair(cosines, 0.8, ranks=(1, 3)).candidate.tolist() == [3, 2]
    assert one_pair(cosines, 0.8, ranks=(1, 3)).rank.tolist() == [2, 3]
    assert one_pair(cosines, 0.8, margin=0.2).candidate.tolist() == [2, 4, 0]
    assert one_pair(cosines, 0.8, margin=0.0).candidate.tolist() == [3, 2, 4, 0]
    assert one_pair(cosines, 0.8, share=0.5).candidate.tolist() == [4, 0]
    # Of a positive below 0 a share must not lie above it.
    assert one_pair([-0.1, -0.45, -0.54, -0.7], -0.5, share=0.9).candidate.tolist() == [3]
    assert one_pair([-0.1, -0.45, -0.56, -0.7], -0.5, share=0.9).candidate.tolist() == [2, 3]
    np.testing.assert_allclose(one_pair(cosines, 0.8, ranks=(0, 2)).cosine, [0.9, 0.7], atol=1e-6)
    np.testing.assert_allclose(one_pair(cosines, 0.8).positive_cosine, [0.8], atol=1e-6)


def test_why_a_pair_has_none() -> None:
    assert one_pair([0.9, 0.7], 0.2, share=0.9).without == {0: "refused 2 as too near its positive's cosine"}
    assert one_pair([0.9, 0.7], 0.2, ranks=(2, 5)).without == {0: "has 2 candidates, none from rank 3 on"}
    ones = View(np.ones((1, 2)), np.ones((1, 2)), np.ones((1, 2)))
    mined = mine_vectors(ones, KnownPositives(pairs_of(("a", "b")), ungrouped("B")), OFF)
    assert mined.without == {0: "every candidate is a known positive"}
    assert_counts_add_up(mined)
    low = MiningConfig(share=None, teacher_ceiling=0.5)
    mined = mine_vectors(ones, KnownPositives(pairs_of(("a", "b")), ungrouped("c")), low, teacher=ones)
    assert mined.without == {0: "refused 1 by the teacher"}
    with pytest.raises(DataError, match=r"not one of 1 pairs has a negative left .*by the teacher"):
        write_triplets("unused.csv", pairs_of(("a", "b")), mined, ["c"])


def test_random_choice_is_the_seed_alone() -> None:
    view, _, pairs, candidates = random_case(1)
    known = KnownPositives(pairs, candidates)
    draws = [
        mine_vectors(
            view, known, MiningConfig(share=None, ranks=(0, 30), choice="random", seed=seed)
        ).candidate.tolist()
        for seed in (0, 0, 1)
    ]
    assert draws[0] == draws[1] != draws[2]
    ranks = mine_vectors(view, known, MiningConfig(share=None, ranks=(0, 30), choice="random")).rank
    assert ranks.max() > 20
    assert ranks.min() < 10


@pytest.mark.parametrize(
    ("values", "named"),
    [({"ranks": (5, 5)}, "5:5 is no window"), ({"share": 1.5}, "share"), ({"choice": "best"}, "choice")],
)
def test_options_that_make_no_sense(values: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        parse_config(MiningConfig, values, "options")


class Letters:
    """An encoder that counts letters, and remembers what it was asked."""

    width = 27

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None]] = []

    def fingerprint(self) -> str:
        return "letters"

    def prompt_text(self, prompt: str | None = None) -> str:
        return prompt or ""

    def encode(self, items: Any, prompt: str | None = None) -> np.ndarray:
        self.asked += [(text, prompt) for text in items]
        text_of = [(prompt or "") + text for text in items]
        return np.array([[0.1, *(text.count(letter) for letter in "abcdefghijklmnopqrstuvwxyz")] for text in text_of])


TRICKY = ['a "quoted", text', "two\nlines", " spaces ", "Ünï – ✓", "'; --", "=1+1", "tab\tin it", "a\r\nb"]


def test_texts_become_a_file_that_training_reads(tmp_path: Path) -> None:
    pairs = pairs_of(*((text, f"positive of {text}") for text in TRICKY))
    encoder = Letters()
    config = MiningConfig(share=None, negatives=2)
    mined, texts = mine_texts(pairs, pairs.candidates("both"), encoder, config, cache=tmp_path)
    assert len(encoder.asked) == len(set(encoder.asked)) == 2 * len(TRICKY)
    mine_texts(pairs, pairs.candidates("both"), encoder, config, cache=tmp_path)
    assert len(encoder.asked) == 2 * len(TRICKY)
    write_triplets(tmp_path / "t.csv", pairs, mined, texts, scores=True)
    found, bad = read_triplets(str(tmp_path / "t.csv"))
    assert bad == []
    assert found.anchors == [text for text in TRICKY for _ in range(2)]
    assert found.positives == [f"positive of {text}" for text in TRICKY for _ in range(2)]
    assert found.negatives == [texts[at] for at in mined.candidate]
    heading = (tmp_path / "t.csv").read_text().splitlines()[0]
    assert heading == "anchor,positive,negative,rank,positive_cosine,negative_cosine"
    assert mined.counts["candidates"] == 2 * len(TRICKY)


def test_prompts_are_the_anchors_and_the_others_own(tmp_path: Path) -> None:
    encoder, pairs = Letters(), pairs_of(("a", "b"), ("c", "d"))
    mine_texts(pairs, pairs.candidates(), encoder, OFF, prompts=("query ", "text "), cache=tmp_path)
    assert set(encoder.asked) == {("a", "query "), ("c", "query "), ("b", "text "), ("d", "text ")}


def test_what_holds_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1 pairs and 0 candidates"):
        mine_texts(pairs_of(("a", "b")), Texts(), Letters(), cache=tmp_path)


def test_a_caption_of_two_photos_joins_their_groups(tmp_path: Path) -> None:
    path = tmp_path / "products.csv"
    path.write_text("image,text\n1.jpg,a\n1.jpg,b\n2.jpg,c\n2.jpg,a\n3.jpg,d\n3.jpg,e\n")
    pairs, captions, _ = caption_pairs(Manifest.load(path))
    found = dict(zip(pairs.anchors, negatives(pairs, captions), strict=True))
    assert found["b"] == found["c"] == {"d", "e"}
    assert found["d"] == {"a", "b", "c"}


def test_a_tower_mines_and_the_file_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dalr.run import RunConfig
    from dalr.run.training import run_training

    words = [
        f"a {colour} {kind}" for colour in ("red", "blue", "old", "new") for kind in ("dress", "shoe", "bag", "hat")
    ]
    pairs = pairs_of(*((word, f"{word} for sale") for word in words))
    new = NewTextConfig(layers=1, width=16, heads=2, vocab_size=100)
    tower = build_text_encoder(TextConfig(name="new", train="full", new=new), words)
    mined, texts = mine_texts(pairs, pairs.candidates(), tower, MiningConfig(share=None), cache=tmp_path / "cache")
    assert mined.counts["with_negatives"] == len(words)
    write_triplets(tmp_path / "triplets.csv", pairs, mined, texts)
    config = parse_config(
        RunConfig,
        {
            "data": {"triplets": str(tmp_path / "triplets.csv")},
            "model": {"text": {"name": "new", "train": "full", "new": new.model_dump()}},
            "objective": {"name": "simcse"},
            "train": {"steps": 3, "batch_size": 8},
        },
        "test",
    )
    ended = run_training(config, tmp_path / "run")
    assert (ended.status, ended.steps, ended.train_rows) == ("finished", 3, len(words))


@pytest.mark.data
def test_false_negatives_are_fewer_with_a_guard(data_dir: Path, minilm_dir: Path, tmp_path: Path) -> None:
    """Two captions of a photo are a pair, its other three are hidden among the candidates."""
    manifest = Manifest.load(data_dir / "flickr8k" / "captions.csv")
    photos: dict[str, list[str]] = defaultdict(list)
    for image, text in zip(manifest.images, manifest.texts, strict=True):
        photos[image or ""].append(text or "")
    some = list(photos.values())[:60]
    pairs = pairs_of(*((captions[0], captions[1]) for captions in some))
    candidates = ungrouped(*(text for captions in some for text in captions))
    strong = build_text_encoder(TextConfig(name=str(minilm_dir)))
    weak = build_text_encoder(TextConfig(name=str(minilm_dir)))
    weak.backbone.model.encoder.layer = weak.backbone.model.encoder.layer[:1]

    def false_negatives(encoder: Any, config: MiningConfig, teacher: Any = None) -> float:
        mined, texts = mine_texts(pairs, candidates, encoder, config, teacher=teacher, cache=tmp_path)
        assert_counts_add_up(mined)
        assert mined.counts["with_negatives"] > 30
        wrong = [texts[at] in some[pair] for pair, at in zip(mined.pair, mined.candidate, strict=True)]
        return float(np.mean(wrong))

    nearest, guarded = (false_negatives(strong, MiningConfig(share=share)) for share in (None, 0.9))
    assert nearest > 0.4
    assert guarded < nearest / 2
    alone = false_negatives(weak, MiningConfig(share=None))
    assert false_negatives(weak, MiningConfig(share=None), strong) < alone / 2
