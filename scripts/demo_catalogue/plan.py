"""Which products there are, what their captions say, which split they are in, and which captions are wrong.

Every product has a combination of type, colour, pattern and material of its own, so the products of the test
split are combinations that training never shows, while it shows each of their values, and each pair of type and
material, in other products.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from demo_catalogue import goods_carried, goods_home, goods_things, goods_wear
from demo_catalogue.painter import Colour, Look, Painter
from demo_catalogue.words import COLOURS, PATTERNS, caption

SEED = 20250
PER_TYPE = {"train": 45, "val": 3, "test": 5}
WRONG_SHARE = 0.06
WICKER_PATTERNS = ("plain", "striped", "checked", "zigzag")
Draw = Callable[[Painter, Look], None]


@dataclass(frozen=True)
class Kind:
    """A product type: how it is drawn, whether it stands on a floor or lies, and what it can be made of."""

    draw: Draw
    stands: bool
    materials: tuple[str, ...]


KINDS: dict[str, Kind] = {
    "mug": Kind(goods_home.mug, True, ("ceramic", "glass", "metal")),
    "teapot": Kind(goods_home.teapot, True, ("ceramic", "glass", "metal")),
    "vase": Kind(goods_home.vase, True, ("ceramic", "glass", "metal", "wood")),
    "bottle": Kind(goods_home.bottle, True, ("glass", "metal", "plastic")),
    "lamp": Kind(goods_home.lamp, True, ("canvas", "metal", "wicker", "glass")),
    "chair": Kind(goods_home.chair, True, ("wood", "plastic", "velvet", "leather")),
    "sofa": Kind(goods_home.sofa, True, ("velvet", "leather", "canvas")),
    "cushion": Kind(goods_home.cushion, False, ("velvet", "canvas", "wool", "satin")),
    "t-shirt": Kind(goods_wear.tshirt, False, ("cotton", "wool", "satin")),
    "dress": Kind(goods_wear.dress, False, ("cotton", "satin", "denim", "velvet")),
    "jumper": Kind(goods_wear.jumper, False, ("wool", "cotton", "velvet")),
    "trousers": Kind(goods_wear.trousers, False, ("denim", "cotton", "leather", "velvet")),
    "skirt": Kind(goods_wear.skirt, False, ("denim", "cotton", "leather", "satin")),
    "cap": Kind(goods_wear.cap, False, ("cotton", "denim", "leather")),
    "scarf": Kind(goods_wear.scarf, False, ("wool", "satin", "cotton")),
    "mittens": Kind(goods_wear.mitten, False, ("wool", "leather", "velvet")),
    "socks": Kind(goods_wear.sock, False, ("wool", "cotton")),
    "backpack": Kind(goods_carried.backpack, True, ("canvas", "leather", "denim")),
    "handbag": Kind(goods_carried.handbag, True, ("leather", "canvas", "wicker", "velvet")),
    "suitcase": Kind(goods_carried.suitcase, True, ("plastic", "metal", "leather", "canvas")),
    "boot": Kind(goods_carried.boot, True, ("leather", "plastic", "canvas", "velvet")),
    "sneaker": Kind(goods_carried.sneaker, True, ("canvas", "leather", "denim", "wool")),
    "high heel": Kind(goods_carried.heel, True, ("leather", "satin", "velvet")),
    "watch": Kind(goods_things.watch, False, ("leather", "metal", "plastic", "canvas")),
    "umbrella": Kind(goods_things.umbrella, False, ("cotton", "plastic", "satin")),
    "guitar": Kind(goods_things.guitar, False, ("wood", "plastic", "metal")),
    "headphones": Kind(goods_things.headphones, False, ("plastic", "metal", "wood")),
    "sunglasses": Kind(goods_things.sunglasses, False, ("plastic", "metal", "wood")),
}
PAINTS: dict[str, Colour] = {
    "red": (0.78, 0.13, 0.13),
    "orange": (0.93, 0.48, 0.1),
    "yellow": (0.95, 0.8, 0.16),
    "green": (0.2, 0.52, 0.24),
    "teal": (0.08, 0.56, 0.57),
    "blue": (0.16, 0.31, 0.73),
    "purple": (0.45, 0.22, 0.6),
    "pink": (0.94, 0.56, 0.69),
    "brown": (0.43, 0.27, 0.16),
    "black": (0.12, 0.12, 0.13),
    "white": (0.93, 0.92, 0.9),
    "grey": (0.52, 0.53, 0.55),
}


@dataclass
class Product:
    """One product: its four attributes, its split, its captions and the seed its picture is drawn from."""

    name: str
    kind: str
    colour: str
    pattern: str
    material: str
    split: str
    seed: int
    captions: list[str] = field(default_factory=list)

    @property
    def combination(self) -> tuple[str, str, str, str]:
        """What tells it from every other product."""
        return self.kind, self.colour, self.pattern, self.material


@dataclass(frozen=True)
class Row:
    """One line of the manifest: a product's picture and a caption, its own or (in `own`'s case) a wrong one."""

    id: str
    product: Product
    text: str
    own: str
    text_of: Product

    @property
    def wrong(self) -> bool:
        """Whether the caption belongs to another product."""
        return self.text_of is not self.product


def products(seed: int = SEED) -> list[Product]:
    """Every product, in the order of its number, the types well mixed."""
    rng = np.random.default_rng(seed)
    made: list[Product] = []
    count = sum(PER_TYPE.values())
    splits = [split for split, number in PER_TYPE.items() for _ in range(number)]
    for kind, facts in KINDS.items():
        seen: set[tuple[str, str, str]] = set()
        # Every value comes equally often: the lists are dealt out like packs of cards.
        colours, patterns, materials = (_dealt(pack, rng) for pack in _packs(facts))
        while len(seen) < count:
            material, pattern, colour = next(materials), next(patterns), next(colours)
            if material == "wicker" and pattern not in WICKER_PATTERNS:
                pattern = WICKER_PATTERNS[int(rng.integers(4))]
            combination = (colour, pattern, material)
            if combination in seen:
                continue
            split = splits[len(seen)]
            seen.add(combination)
            made.append(Product("", kind, colour, pattern, material, split, int(rng.integers(2**31))))
    order = rng.permutation(len(made))
    result = [made[int(place)] for place in order]
    for number, product in enumerate(result):
        product.name = f"p{number + 1:04d}"
        wanted = int(rng.choice([1, 2, 3], p=[0.25, 0.5, 0.25]))
        while len(product.captions) < wanted:
            text = caption(*product.combination, rng)
            if text not in product.captions:
                product.captions.append(text)
    return result


def rows(catalogue: list[Product], seed: int = SEED) -> list[Row]:
    """The manifest's lines: in train, 6 % of the captions have changed places.

    Each wrong caption is that of a product of another type and another colour, so that anyone sees the mistake.
    """
    lines = [
        Row(f"{product.name}-{number + 1}", product, text, text, product)
        for product in catalogue
        for number, text in enumerate(product.captions)
    ]
    rng = np.random.default_rng(seed + 1)
    train = [number for number, line in enumerate(lines) if line.product.split == "train"]
    chosen = [int(number) for number in rng.choice(train, size=round(WRONG_SHARE * len(train)), replace=False)]
    giver = list(chosen)
    for _ in range(1000):
        clashes = [k for k in range(len(chosen)) if not _differ(lines[chosen[k]].product, lines[giver[k]].product)]
        if not clashes:
            break
        for k in clashes:
            other = int(rng.integers(len(chosen)))
            giver[k], giver[other] = giver[other], giver[k]
    result = list(lines)
    for place, source in zip(chosen, giver, strict=True):
        line, other_line = lines[place], lines[source]
        result[place] = Row(line.id, line.product, other_line.own, line.own, other_line.product)
    return result


def _differ(a: Product, b: Product) -> bool:
    return a.kind != b.kind and a.colour != b.colour


def _packs(facts: Kind) -> tuple[list[str], list[str], list[str]]:
    return list(COLOURS), [*PATTERNS, "plain"], list(facts.materials)


def _dealt(pack: list[str], rng: np.random.Generator) -> Iterator[str]:
    while True:
        for place in rng.permutation(len(pack)):
            yield pack[int(place)]
