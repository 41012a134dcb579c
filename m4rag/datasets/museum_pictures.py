"""Picture variants of the museum's things: a sprite, turned, scaled, cropped and recoloured on a drawn background.

A variant depends on its key alone, so a seed gives the same pictures on every machine with the same Pillow.
"""

from __future__ import annotations

import colorsys
import random
from functools import cache
from typing import TYPE_CHECKING

from m4rag.datasets.museum import FOLDER

if TYPE_CHECKING:
    from PIL import Image

SIDE = 112
"""Pixels of a picture."""

SPRITES = FOLDER / "sprites"
"""One RGBA sprite for each thing, and others for which there are no texts: a picture model learns from all."""


@cache
def sprites() -> tuple[str, ...]:
    """Names of all sprites, sorted."""
    return tuple(sorted(path.stem for path in SPRITES.glob("*.webp")))


def variant(name: str, key: str) -> Image.Image:
    """A picture of a sprite, RGB, 112 x 112.

    Args:
        name: One of `sprites()`.
        key: Determines rotation (-25 to 25 degrees), size (58 to 104 px), place (may be cut at an edge), a small shift
            of hue, saturation and light, and the background.
    """
    from PIL import Image, ImageEnhance

    draw = random.Random(f"{key}:{name}")
    motif = _sprite(name).rotate(draw.uniform(-25, 25), Image.Resampling.BICUBIC, expand=True)
    scale = draw.uniform(58, 104) / max(motif.size)
    motif = motif.resize((max(1, round(motif.width * scale)), max(1, round(motif.height * scale))))
    alpha = motif.getchannel("A")
    colours = _turn_hue(motif.convert("RGB"), draw.uniform(-10, 10))
    colours = ImageEnhance.Color(colours).enhance(draw.uniform(0.75, 1.25))
    colours = ImageEnhance.Brightness(colours).enhance(draw.uniform(0.85, 1.15))
    made = _background(draw)
    free_x, free_y = SIDE - motif.width, SIDE - motif.height
    corner = (round(free_x / 2 + draw.uniform(-14, 14)), round(free_y / 2 + draw.uniform(-14, 14)))
    made.paste(colours, corner, alpha)
    return made


@cache
def _sprite(name: str) -> Image.Image:
    from PIL import Image

    return Image.open(SPRITES / f"{name}.webp").convert("RGBA")


def _turn_hue(image: Image.Image, degrees: float) -> Image.Image:
    from PIL import Image

    hue, saturation, value = image.convert("HSV").split()
    turned = hue.point(lambda level: int(level + degrees * 256 / 360) % 256)
    return Image.merge("HSV", (turned, saturation, value)).convert("RGB")


def _background(draw: random.Random) -> Image.Image:
    """A gradient of one hue, from pale to deep, with two blurred spots of light."""
    from PIL import Image, ImageDraw, ImageFilter

    hue, depth = draw.random(), draw.uniform(0.55, 0.85)
    light, deep = (
        tuple(round(255 * part) for part in colorsys.hls_to_rgb(hue, lightness, 0.5)) for lightness in (0.93, depth)
    )
    slope = Image.linear_gradient("L").resize((SIDE, SIDE)).rotate(90 * draw.randrange(4))
    made = Image.composite(Image.new("RGB", (SIDE, SIDE), light), Image.new("RGB", (SIDE, SIDE), deep), slope)
    spots = Image.new("L", (SIDE, SIDE))
    for _ in range(2):
        x, y = draw.randrange(SIDE), draw.randrange(SIDE)
        ImageDraw.Draw(spots).ellipse((x - 22, y - 22, x + 22, y + 22), fill=110)
    made.paste((255, 255, 255), mask=spots.filter(ImageFilter.GaussianBlur(9)))
    return made
