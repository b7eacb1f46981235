"""Captions: how a shop would name a product, in several wordings."""

import numpy as np

Rng = np.random.Generator

TYPES: dict[str, tuple[str, ...]] = {
    "mug": ("mug", "coffee mug", "tea mug"),
    "teapot": ("teapot", "tea pot"),
    "vase": ("vase", "flower vase"),
    "bottle": ("bottle", "water bottle", "drinking bottle"),
    "lamp": ("lamp", "table lamp", "desk lamp"),
    "chair": ("chair", "dining chair"),
    "sofa": ("sofa", "couch"),
    "cushion": ("cushion", "pillow", "throw pillow"),
    "t-shirt": ("T-shirt", "tee", "short-sleeved shirt"),
    "dress": ("dress", "summer dress"),
    "jumper": ("jumper", "sweater", "pullover"),
    "trousers": ("trousers", "pants"),
    "skirt": ("skirt", "ladies' skirt"),
    "cap": ("cap", "baseball cap"),
    "scarf": ("scarf", "neck scarf"),
    "mittens": ("mittens", "pair of mittens"),
    "socks": ("socks", "pair of socks"),
    "backpack": ("backpack", "rucksack"),
    "handbag": ("handbag", "purse", "ladies' handbag"),
    "suitcase": ("suitcase", "trolley case"),
    "boot": ("boot", "ankle boot", "winter boot"),
    "sneaker": ("sneaker", "trainer", "sports shoe"),
    "high heel": ("high heel", "court shoe", "high-heeled shoe"),
    "watch": ("watch", "wristwatch"),
    "umbrella": ("umbrella", "rain umbrella"),
    "guitar": ("guitar", "six-string guitar"),
    "headphones": ("headphones", "over-ear headphones"),
    "sunglasses": ("sunglasses", "shades", "pair of sunglasses"),
}
COLOURS: dict[str, tuple[str, ...]] = {
    "red": ("red", "scarlet"),
    "orange": ("orange",),
    "yellow": ("yellow",),
    "green": ("green",),
    "teal": ("teal", "turquoise"),
    "blue": ("blue", "royal blue"),
    "purple": ("purple", "violet"),
    "pink": ("pink", "rose pink"),
    "brown": ("brown", "chestnut brown"),
    "black": ("black", "jet black"),
    "white": ("white", "off-white"),
    "grey": ("grey", "gray"),
}
# As an adjective, and after "with".
PATTERNS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "plain": (("", "plain", "solid"), ("no pattern", "a plain finish")),
    "striped": (("striped", "stripy"), ("stripes", "broad stripes")),
    "polka dot": (("polka dot", "dotted", "spotted"), ("polka dots", "round dots")),
    "checked": (("checked", "gingham", "chequered"), ("checks", "a check pattern")),
    "floral": (("floral", "flowered"), ("flowers", "a floral print")),
    "zigzag": (("zigzag", "chevron"), ("zigzags", "a chevron pattern")),
}
# As an adjective, and after "made of".
MATERIALS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "ceramic": (("ceramic", "glazed"), ("glazed ceramic", "stoneware")),
    "glass": (("glass", "clear glass"), ("glass", "see-through glass")),
    "metal": (("metal", "brushed metal"), ("metal", "brushed metal")),
    "plastic": (("plastic",), ("plastic", "smooth plastic")),
    "wood": (("wooden", "wood"), ("wood", "solid wood")),
    "wicker": (("wicker", "woven wicker"), ("wicker", "woven rattan")),
    "leather": (("leather", "stitched leather"), ("leather", "real leather")),
    "denim": (("denim", "jeans denim"), ("denim", "sturdy denim")),
    "wool": (("knitted", "woollen", "chunky knit"), ("knitted wool", "chunky wool")),
    "velvet": (("velvet", "soft velvet"), ("velvet", "soft velvet")),
    "satin": (("satin", "shiny satin"), ("satin", "silky satin")),
    "canvas": (("canvas", "woven canvas"), ("canvas", "coarse canvas")),
    "cotton": (("cotton", "soft cotton"), ("cotton", "pure cotton")),
}
EXTRAS = (
    "new season", "gift idea", "for every day", "limited edition", "best seller", "free returns", "back in stock",
    "great value", "our favourite", "last ones",
)  # fmt: skip


def caption(kind: str, colour: str, pattern: str, material: str, rng: Rng) -> str:
    """One natural caption that names all four attributes (a plain product may leave its pattern unsaid)."""

    def pick(words: tuple[str, ...]) -> str:
        return words[int(rng.integers(len(words)))]

    name, hue = pick(TYPES[kind]), pick(COLOURS[colour])
    adjective, phrase = pick(PATTERNS[pattern][0]), pick(PATTERNS[pattern][1])
    stuff, made_of = pick(MATERIALS[material][0]), pick(MATERIALS[material][1])
    forms = [
        f"{hue} {adjective} {stuff} {name}",
        f"{adjective} {stuff} {name} in {hue}",
        f"{name} made of {made_of}, {hue} with {phrase}",
        f"{stuff} {name}, {hue}, {adjective}" if adjective else f"{stuff} {name}, {hue}",
        f"{hue} {name} with {phrase}, made of {made_of}",
        f"{hue} {stuff} {name} with {phrase}",
        f"{adjective} {hue} {name}, {made_of}",
        f"{name} in {hue} {made_of}" + (f", {adjective}" if adjective else ""),
    ]
    text = " ".join(pick(tuple(forms)).split())
    if rng.random() < 0.15:
        text = f"{text}, {pick(EXTRAS)}"
    return text[0].upper() + text[1:]
