"""The painter: puts lit parts over each other on a transparent canvas.

Colours are RGB in 0..1 (as stored in image files); the canvas is kept premultiplied.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from demo_catalogue import surfaces
from demo_catalogue.curves import Points, evenly
from demo_catalogue.materials import MATERIALS, Material
from demo_catalogue.patterns import PATTERNS, Noise
from demo_catalogue.surfaces import Field, Pose, Profile, Surface

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Look:
    """What a part is made of and how it is coloured; `scale` sizes the pattern."""

    material: str
    colour: Colour
    accent: Colour = (1.0, 1.0, 1.0)
    pattern: str = "plain"
    scale: float = 1.0

    def plain(self, darker: float = 1.0) -> "Look":
        """The same without its pattern, its colour multiplied by `darker`."""
        r, g, b = (min(channel * darker, 1.0) for channel in self.colour)
        return Look(self.material, (r, g, b), self.accent)


STEEL = Look("metal", (0.74, 0.75, 0.77))
BRASS = Look("metal", (0.83, 0.66, 0.32))
OAK = Look("wood", (0.72, 0.53, 0.33))
WALNUT = Look("wood", (0.42, 0.27, 0.17))
INK = Look("plastic", (0.11, 0.11, 0.13))
CHALK = Look("plastic", (0.93, 0.92, 0.9))
GUM = Look("rubber", (0.93, 0.91, 0.86))


def mixed(a: Colour, b: Colour, share: float) -> Colour:
    """The colour `share` of the way from a to b."""
    r, g, b_ = (x + (y - x) * share for x, y in zip(a, b, strict=True))
    return r, g, b_


class Painter:
    """Paints the parts of one product, back to front."""

    def __init__(self, pose: Pose, light: NDArray[np.float64], rng: np.random.Generator) -> None:
        self.pose = pose
        self.light = light / np.linalg.norm(light)
        self.rng = rng
        self.noise = Noise(rng)
        # One stream for all parts of a product: a pattern is the same cut of cloth everywhere on it.
        self.cut = int(rng.integers(2**31))
        self.rgb: Field = np.zeros((pose.size, pose.size, 3), dtype=np.float32)
        self.alpha: Field = np.zeros((pose.size, pose.size), dtype=np.float32)

    def blob(
        self, outline: Points, look: Look, *, depth: float = 0.2, soft: float = 0.3, drop: float = 0.35
    ) -> Surface:
        """A cushion-like part."""
        return self.paint(surfaces.inflated(self.pose, outline, depth, soft=soft), look, drop=drop)

    def bar(self, outline: Points, look: Look, width: float, *, drop: float = 0.3) -> Surface:
        """A round bar: `outline` from `stroke` with this width."""
        return self.paint(surfaces.tube(self.pose, outline, width), look, drop=drop)

    def cloth(
        self,
        outline: Points,
        look: Look,
        *,
        folds: float = 1.0,
        bevel: float = 0.05,
        drop: float = 0.3,
        hang: float = 0.4,
    ) -> Surface:
        """A flat piece of cloth with folds; `hang` stretches them: below 1 they run down, above 1 across."""
        surface = surfaces.sheet(self.pose, outline, bevel=bevel)
        amount = folds * MATERIALS[look.material].folds * 0.12
        if amount:
            u, v = surface.u, surface.v
            bent = self.noise.layered(u * 2.6 + 0.5 * v, v * 2.6 * hang, 2) + 0.35 * self.noise(u * 6 + v, v * 3 * hang)
            surface = surfaces.draped(surface, bent * amount, self.pose)
        return self.paint(surface, look, drop=drop)

    def turned(self, profile: Profile, look: Look, *, x: float = 0.0, drop: float = 0.3) -> Surface:
        """A body of revolution."""
        return self.paint(surfaces.turned(self.pose, profile, x=x), look, drop=drop)

    def flat(self, outline: Points, colour: Colour, opacity: float = 1.0, *, blur: float = 0.0) -> None:
        """Flat colour: a print, an opening, a crease; only where something lies already when blurred."""
        rows, columns, mask, _, _ = surfaces.cropped(self.pose, outline)
        if blur:
            full: Field = np.zeros_like(self.alpha)
            full[rows, columns] = mask
            mask = np.asarray(ndimage.gaussian_filter(full, blur * self.pose.unit), dtype=np.float32)
            self._over(slice(None), slice(None), np.asarray(colour, np.float32), mask * opacity * (self.alpha > 0.5))
        else:
            self._over(rows, columns, np.asarray(colour, np.float32), mask * opacity)

    def line(self, path: Points, colour: Colour, width: float, opacity: float = 1.0, *, dash: float = 0.0) -> None:
        """A thin line over what lies there; with `dash`, stitches of that length."""
        image = Image.new("L", (self.pose.size, self.pose.size))
        draw = ImageDraw.Draw(image)
        thick = max(round(width * self.pose.unit), 1)
        pixels = self.pose.pixels(evenly(path, dash / 2 if dash else 0.02, closed=False))
        spots = [(float(x), float(y)) for x, y in pixels]
        if dash:
            for start in range(0, len(spots) - 1, 3):
                draw.line(spots[start : start + 2], fill=255, width=thick)
        else:
            draw.line(spots, fill=255, width=thick, joint="curve")
        found = image.getbbox()
        if found is None:
            return
        columns, rows = slice(found[0], found[2]), slice(found[1], found[3])
        mask = np.asarray(image, dtype=np.float32)[rows, columns] / 255.0 * opacity * (self.alpha[rows, columns] > 0.5)
        self._over(rows, columns, np.asarray(colour, np.float32), mask)

    def paint(self, surface: Surface, look: Look, *, drop: float = 0.3) -> Surface:
        """Light the surface, lay its shadow on what is below, and put it on top."""
        if drop:
            self._drop(surface, drop)
        colour, alpha = self._lit(surface, look)
        self._over(surface.rows, surface.columns, colour, alpha)
        seam = MATERIALS[look.material].seam
        if seam and surface.edge.max() > 0.14:
            self._stitch(surface, look, seam)
        return surface

    def _over(self, rows: slice, columns: slice, colour: Field, alpha: Field) -> None:
        keep = (1.0 - alpha)[..., None]
        self.rgb[rows, columns] = self.rgb[rows, columns] * keep + colour * alpha[..., None]
        self.alpha[rows, columns] = self.alpha[rows, columns] * keep[..., 0] + alpha

    def _drop(self, surface: Surface, strength: float) -> None:
        """The soft shadow a part throws on the parts below it."""
        margin = int(0.12 * self.pose.unit)
        r0, c0 = max(surface.rows.start - margin, 0), max(surface.columns.start - margin, 0)
        r1 = min(surface.rows.stop + margin, self.pose.size)
        c1 = min(surface.columns.stop + margin, self.pose.size)
        if not self.alpha[r0:r1, c0:c1].any():
            return
        full: Field = np.zeros((r1 - r0, c1 - c0), dtype=np.float32)
        top, left = surface.rows.start - r0, surface.columns.start - c0
        full[top : top + surface.mask.shape[0], left : left + surface.mask.shape[1]] = surface.mask
        offset = -self.light[:2] * 0.05 * self.pose.unit
        full = ndimage.shift(full, (offset[1], offset[0]), order=0)
        shade = 1.0 - strength * ndimage.gaussian_filter(full, 0.03 * self.pose.unit)
        self.rgb[r0:r1, c0:c1] *= shade[..., None]

    def _lit(self, surface: Surface, look: Look) -> tuple[Field, Field]:
        material = MATERIALS[look.material]
        u, v = surface.u, surface.v
        nx, ny, nz = surface.normal
        relief = material.relief(u, v, self.noise)
        if relief.any():
            gy, gx = np.gradient(relief * self.pose.unit)
            nx, ny, nz = surfaces.normalised(nx - gx * nz, ny - gy * nz, nz)
        lx, ly, lz = (float(axis) for axis in self.light)
        facing = nx * lx + ny * ly + nz * lz
        lit = np.clip((facing + material.wrap) / (1 + material.wrap), 0.0, 1.0)
        sky = 0.5 - 0.5 * ny
        amount = 0.3 + 0.16 * sky + 0.68 * lit
        base = self._coloured(look, material, u, v) * material.tint(u, v, self.noise)[..., None]
        hx, hy, hz = lx, ly, lz + 1.0
        length = float(np.sqrt(hx * hx + hy * hy + hz * hz))
        half = np.clip((nx * hx + ny * hy + nz * hz) / length, 0.0, 1.0)
        shine = material.shine * half**material.gloss
        grazing = (1.0 - np.clip(nz, 0, 1)) ** 2
        colour = base * (amount * material.diffuse)[..., None]
        if material.mirror:
            colour += base * (material.mirror * self._room(nx + 0.3 * np.sin(1.9 * u + 1.3 * v + 0.8), ny))[..., None]
        if material.rim:
            colour += (base * 0.6 + 0.4) * (material.rim * grazing * (0.35 + 0.65 * sky))[..., None]
        if look.material in ("ceramic", "glass"):
            colour += 0.45 * self._window(nx, ny)[..., None]
        colour = np.clip(colour + shine[..., None], 0.0, 1.0)
        alpha = surface.mask
        if material.clear:
            # Thick glass at the rim, clear in the middle; what shines is seen whatever lies behind.
            solid = 1.0 - material.clear * (1.0 - grazing) ** 1.5
            alpha = alpha * np.clip(solid + shine + 0.5 * self._window(nx, ny), 0.0, 1.0)
        return np.asarray(colour, np.float32), np.asarray(alpha, np.float32)

    def _coloured(self, look: Look, material: Material, u: Field, v: Field) -> Field:
        colour = np.asarray(look.colour, dtype=np.float32)
        accent = np.asarray(look.accent, dtype=np.float32)
        grey = colour.mean()
        colour = np.clip(grey + (colour - grey) * material.saturation, 0.0, 1.0)
        if look.pattern == "plain":
            return np.broadcast_to(colour, (*u.shape, 3))
        share = PATTERNS[look.pattern](u, v, look.scale, np.random.default_rng(self.cut))[..., None]
        return np.asarray(colour + (accent - colour) * share, dtype=np.float32)

    def _room(self, nx: Field, ny: Field) -> Field:
        """A studio seen in polished metal: two bright panels, a dark middle, a pale floor."""
        side = nx if self.light[0] > 0 else -nx
        main = np.exp(-(((side - 0.45) / 0.16) ** 2))
        second = 0.6 * np.exp(-(((side + 0.62) / 0.14) ** 2))
        overhead = 0.45 * np.exp(-(((ny + 0.6) / 0.25) ** 2))
        return np.asarray(0.2 + 0.75 * main + second + overhead - 0.25 * np.exp(-((side / 0.16) ** 2)), np.float32)

    def _window(self, nx: Field, ny: Field) -> Field:
        """The reflection of a tall window on a glaze."""
        side = nx if self.light[0] > 0 else -nx
        across = np.clip((0.13 - np.abs(side - 0.58)) / 0.05, 0, 1)
        return np.asarray(across * np.clip((0.6 - np.abs(ny + 0.05)) / 0.1, 0, 1), np.float32)

    def _stitch(self, surface: Surface, look: Look, seam: str) -> None:
        """A row of stitches inside the outline."""
        dark = sum(look.colour) < 1.5
        thread: Colour = (0.86, 0.55, 0.2) if seam == "orange" else ((0.9, 0.85, 0.74) if dark else (0.35, 0.24, 0.16))
        inset = 0.055
        band = np.abs(surface.edge - inset) < 0.011
        spots = evenly(surface.outline, 0.05)
        image = Image.new("L", (self.pose.size, self.pose.size))
        draw = ImageDraw.Draw(image)
        reach = (inset + 0.05) * self.pose.unit
        pixels = self.pose.pixels(spots)
        tangent = np.roll(pixels, -1, axis=0) - np.roll(pixels, 1, axis=0)
        tangent /= np.hypot(tangent[:, 0], tangent[:, 1])[:, None] + 1e-9
        normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1) * reach
        thick = max(round(0.032 * self.pose.unit), 2)
        for point, way in zip(pixels[::1], normal[::1], strict=True):
            draw.line([tuple(point - way), tuple(point + way)], fill=255, width=thick)
        comb = np.asarray(image, dtype=np.float32)[surface.rows, surface.columns] / 255.0
        self._over(surface.rows, surface.columns, np.asarray(thread, np.float32), 0.85 * comb * band * surface.mask)

    def picture(self) -> tuple[Field, Field]:
        """Premultiplied RGB and alpha."""
        return self.rgb, np.clip(self.alpha, 0.0, 1.0)
