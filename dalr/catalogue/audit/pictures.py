"""What is wrong with a picture on its own: blank, dark, blurred, small, odd in shape, a placeholder."""

from collections import Counter
from collections.abc import Sequence

from pydantic import Field

from dalr.catalogue.audit.captions import Fault
from dalr.catalogue.photos import Measures, PhotoSurvey
from dalr.config import Config


class PictureConfig(Config):
    """When a picture is faulty on its own (see `dalr.catalogue.photos.Measures` for the units).

    `contrast`, `light`, `sharpness` and `side` are the least allowed, `aspect` the largest ratio of the longer to the
    shorter side; a picture that more than `most_products` different products (or captions) show is a placeholder.
    """

    contrast: float = Field(default=4.0, ge=0)
    light: float = Field(default=60.0, ge=0, le=255)
    sharpness: float = Field(default=15.0, ge=0)
    side: int = Field(default=64, ge=1)
    aspect: float = Field(default=3.0, ge=1)
    most_products: int = Field(default=10, ge=1)


def picture_faults(
    survey: PhotoSurvey, products: Sequence[str | None], config: PictureConfig, alike: Sequence[int] | None = None
) -> list[list[Fault]]:
    """For each of N rows the faults of its picture, each a name and a reason in words.

    Args:
        survey: of the rows' pictures, with measures.
        products: what tells products apart, by row: the group, else the caption.
        alike: by row a number that equal-looking pictures share, -1 for none; None takes equal files alone.
    """
    looks = survey.contents() if alike is None else alike
    shown = Counter(look for look, _ in {(int(look), one) for look, one in zip(looks, products, strict=True) if one})
    found = []
    for row, number in enumerate(survey.photo_of):
        if number < 0:
            found.append([("no picture", "there is no picture")])
            continue
        photo = survey.photos[number]
        if photo.reason:
            found.append([("unreadable picture", f"the picture {photo.reason}")])
            continue
        assert photo.measures is not None
        faults = list(_seen(photo.measures, config))
        count = shown[int(looks[row])] if looks[row] >= 0 else 0
        if count > config.most_products:
            faults.append(("placeholder", f"{count:,} different products show this picture"))
        found.append(faults)
    return found


def _seen(measures: Measures, config: PictureConfig) -> list[Fault]:
    width, height = measures.width, measures.height
    if measures.contrast < config.contrast:
        return [("blank", "the picture is one flat colour")]
    found = []
    if measures.light < config.light:
        found.append(("dark", f"its light parts have a brightness of {measures.light:.0f} of 255"))
    elif measures.sharpness < config.sharpness:
        found.append(("blurred", f"the picture is not sharp anywhere ({measures.sharpness:.0f}; sharp ones have 30)"))
    if min(width, height) < config.side:
        found.append(("small", f"the picture has {width} × {height} pixels"))
    if max(width, height) > config.aspect * min(width, height):
        found.append(("odd shape", f"the picture has {width} × {height} pixels"))
    return found
