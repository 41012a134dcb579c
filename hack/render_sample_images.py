#!/usr/bin/env python3
"""Draw the pictures of the sample benchmark: `.venv/bin/python hack/render_sample_images.py`.

Emoji come from Noto Color Emoji (SIL OFL 1.1; Debian: `apt-get install fonts-noto-color-emoji`), the other
pictures are drawn here. Each concept gets two pictures that differ in background, size and angle: `<id>.webp` for
its questions and `<id>-document.webp` for its documents, so that finding one by the other is a real task.
The same font and Pillow give the same bytes: everything random is a hash of the id.
"""

from __future__ import annotations

import argparse
import colorsys
import hashlib
import math
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter, ImageFont

DATA = Path(__file__).resolve().parent.parent / "m4rag" / "datasets" / "sample_data"
FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
FONT_SIZE = 109  # the only size of the font's bitmaps
SIDE = 112  # pixels of a finished picture
CANVAS = 448  # pixels of a drawing before it is scaled down
CENTRE = CANVAS / 2

Point = tuple[float, float]


def disc(draw: ImageDraw.ImageDraw, centre: Point, radius: float, fill: str, outline: str | None = None) -> None:
    """A filled circle."""
    x, y = centre
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill, outline=outline, width=5)


def around(centre: Point, radius: float, degrees: float) -> Point:
    """The point at an angle (0 = right, clockwise) and distance from a centre."""
    angle = math.radians(degrees)
    return centre[0] + radius * math.cos(angle), centre[1] + radius * math.sin(angle)


def scattered(name: str, count: int, radius: float) -> list[Point]:
    """`count` points in a disc around the centre of the canvas, spread by the golden angle."""
    start = hashlib.sha256(name.encode()).digest()[0]
    return [around((CENTRE, CENTRE), radius * math.sqrt((i + 0.5) / count), start + i * 137.508) for i in range(count)]


def injera(draw: ImageDraw.ImageDraw) -> None:
    """A spongy flatbread full of small eyes, with four stews on it."""
    disc(draw, (CENTRE, CENTRE), 205, "#f4f1ea", "#cfc7b8")
    disc(draw, (CENTRE, CENTRE), 185, "#c9ae8c", "#a98d69")
    for point in scattered("injera", 260, 178):
        disc(draw, point, 3.2, "#8f7350")
    for degrees, fill in ((20, "#a8321f"), (110, "#d98f1f"), (200, "#5c7a2e"), (290, "#7a3b1d")):
        centre = around((CENTRE, CENTRE), 98, degrees)
        disc(draw, centre, 46, fill)
        for turn in range(0, 360, 60):
            disc(draw, around(centre, 24, turn), 9, "#e8b26a")
    disc(draw, (CENTRE, CENTRE), 40, "#fdfbf2", "#d8d0bd")
    disc(draw, (CENTRE, CENTRE), 18, "#f4b731")


def bibimbap(draw: ImageDraw.ImageDraw) -> None:
    """A stone bowl of rice with sectors of vegetables and an egg in the middle."""
    disc(draw, (CENTRE, CENTRE), 205, "#2d2a29")
    disc(draw, (CENTRE, CENTRE), 172, "#fbf8ef")
    box = (CENTRE - 158, CENTRE - 158, CENTRE + 158, CENTRE + 158)
    for i, fill in enumerate(("#e8792b", "#3f7d35", "#8c5a33", "#efe3c1", "#b7322c", "#6fae4a", "#5b3a29", "#f1c84b")):
        draw.pieslice(box, i * 45 + 3, i * 45 + 42, fill=fill)
        for step in range(3):
            start, end = (around((CENTRE, CENTRE), r, i * 45 + 14 + step * 9) for r in (80, 146))
            draw.line((start, end), fill="#ffffff55", width=4)
    disc(draw, (CENTRE, CENTRE), 70, "#ffffff")
    disc(draw, (CENTRE, CENTRE), 33, "#f7b520")
    disc(draw, (CENTRE - 10, CENTRE - 10), 9, "#fcdc86")


def coffee(draw: ImageDraw.ImageDraw) -> None:
    """A steaming cup with three roasted beans beside it."""
    for x in (165, 215, 265):
        draw.line([(x + 11 * math.sin(y / 17), y) for y in range(40, 130, 4)], fill="#a79d95", width=9)
    draw.arc((290, 180, 400, 300), -80, 100, fill="#ffffff", width=26)
    draw.rounded_rectangle((90, 150, 340, 330), radius=80, fill="#ffffff")
    draw.rectangle((90, 150, 340, 230), fill="#ffffff")
    draw.ellipse((90, 122, 340, 182), fill="#ece6df")
    draw.ellipse((108, 132, 322, 174), fill="#4a2713")
    draw.ellipse((50, 325, 380, 375), fill="#ded5cb")
    for x, y in ((250, 372), (330, 395), (385, 350)):
        draw.ellipse((x - 42, y - 29, x + 42, y + 29), fill="#6b3a1b", outline="#3d1f0c", width=5)
        draw.line([(x + t, y + 9 * math.sin(t / 11)) for t in range(-38, 39, 4)], fill="#2f1708", width=6)


def vesak_lantern(draw: ImageDraw.ImageDraw) -> None:
    """An eight-sided paper lantern with small lanterns and streamers."""
    draw.line((CENTRE, 0, CENTRE, 60), fill="#6b5a3a", width=6)
    for x in range(134, 315, 30):
        draw.line([(x + 6 * math.sin(y / 14), y) for y in range(300, 440, 4)], fill="#f2b632", width=9)
    for degrees in range(0, 360, 45):
        centre = around((CENTRE, 180), 138, degrees + 22.5)
        draw.regular_polygon((centre, 36), 4, rotation=int(degrees), fill="#f06c9b", outline="#b83265", width=4)
        disc(draw, centre, 11, "#fff3c4")
    draw.regular_polygon(((CENTRE, 180), 120), 8, rotation=22, fill="#f9d34a", outline="#c98a12", width=7)
    for degrees in range(0, 360, 45):
        corner = around((CENTRE, 180), 108, degrees + 22.5)
        draw.line(((CENTRE, 180), corner), fill="#d3620f", width=5)
    draw.regular_polygon(((CENTRE, 180), 62), 8, rotation=22, fill="#fff7d6", outline="#d3620f", width=6)
    draw.regular_polygon(((CENTRE, 180), 34), 8, rotation=0, fill="#ef8a24")


def krathong(draw: ImageDraw.ImageDraw) -> None:
    """A float of folded banana leaf with flowers, incense and a candle, on moonlit water."""
    draw.rounded_rectangle((0, 0, CANVAS, CANVAS), radius=60, fill="#1f3a63")
    disc(draw, (350, 90), 46, "#fff4c9")
    for y in range(330, 440, 26):
        draw.line([(x, y + 6 * math.sin(x / 22 + y)) for x in range(20, 430, 5)], fill="#5b7fae", width=6)
    for x, top in ((165, 70), (285, 90)):
        draw.line((x, 260, x + (CENTRE - x) * -0.2, top), fill="#b98a5a", width=7)
        disc(draw, (x + (CENTRE - x) * -0.2, top), 8, "#ff7b3a")
    draw.rectangle((CENTRE - 13, 130, CENTRE + 13, 260), fill="#fbe7b0")
    draw.polygon(((CENTRE, 66), (CENTRE + 18, 112), (CENTRE, 132), (CENTRE - 18, 112)), fill="#ffb52e")
    for x in range(80, 369, 48):
        draw.polygon(((x - 34, 330), (x, 200), (x + 34, 330)), fill="#2f8a3b", outline="#17602a")
    for x in range(104, 360, 48):
        draw.polygon(((x - 30, 345), (x, 245), (x + 30, 345)), fill="#57b556", outline="#17602a")
    draw.rounded_rectangle((55, 325, 393, 368), radius=22, fill="#d9c27e", outline="#8f7433", width=5)
    for x, fill in ((140, "#f26ca7"), (CENTRE, "#ffd23f"), (308, "#c77dff")):
        for degrees in range(0, 360, 60):
            disc(draw, around((x, 262), 18, degrees), 14, fill)
        disc(draw, (x, 262), 11, "#fff6d8")


def kolam(draw: ImageDraw.ImageDraw) -> None:
    """White loops that run around a grid of dots on swept red earth."""
    draw.rounded_rectangle((0, 0, CANVAS, CANVAS), radius=60, fill="#8a4630")
    step = 74
    for row in range(-2, 3):
        for column in range(-2, 3):
            if abs(row) + abs(column) > 2:
                continue
            x, y = CENTRE + column * step, CENTRE + row * step
            disc(draw, (x, y), 8, "#fff8ee")
            loop = [around((x, y), 45 + 13 * math.cos(math.radians(4 * t)), t) for t in range(0, 364, 4)]
            draw.line(loop, fill="#fff8ee", width=7, joint="curve")
    for degrees in range(0, 360, 90):
        x, y = around((CENTRE, CENTRE), 150, degrees + 45)
        draw.arc((x - 52, y - 52, x + 52, y + 52), degrees - 90 + 45, degrees + 90 + 45, fill="#fff8ee", width=7)
        disc(draw, around((CENTRE, CENTRE), 172, degrees + 45), 9, "#f6c445")


def talking_drum(draw: ImageDraw.ImageDraw) -> None:
    """An hourglass drum with leather cords from head to head, and its curved stick."""
    draw.polygon(((100, 90), (348, 90), (262, 225), (348, 360), (100, 360), (186, 225)), fill="#7a4520")
    for i in range(11):
        x = 100 + i * 24.8
        waist = 186 + i * 7.6
        draw.line(((x, 90), (waist, 225), (x, 360)), fill="#e6c48f", width=6)
    draw.rounded_rectangle((178, 208, 270, 242), radius=12, fill="#b32d2d")
    for y in (90, 360):
        draw.ellipse((88, y - 36, 360, y + 36), fill="#5a2f14")
        draw.ellipse((104, y - 27, 344, y + 27), fill="#f3e2bf")
    draw.line(((300, 300), (400, 190)), fill="#4b2a12", width=18)
    draw.arc((345, 120, 435, 215), 180, 60, fill="#4b2a12", width=18)


def gong(draw: ImageDraw.ImageDraw) -> None:
    """A knobbed gong hanging in a carved frame, with a padded mallet."""
    draw.rounded_rectangle((20, 30, 428, 72), radius=18, fill="#8e1f1f", outline="#d4a52a", width=7)
    for x in (40, 378):
        draw.rectangle((x, 60, x + 30, 410), fill="#8e1f1f", outline="#d4a52a", width=5)
        draw.rounded_rectangle((x - 25, 395, x + 55, 430), radius=10, fill="#6d1515")
    for x in (165, 283):
        draw.line((x, 70, x, 130), fill="#e8d6a0", width=8)
    disc(draw, (CENTRE, 240), 140, "#9c6a1c", "#5f3d0b")
    disc(draw, (CENTRE, 240), 112, "#bd862a")
    disc(draw, (CENTRE, 240), 78, "#d5a241", "#8c5f17")
    disc(draw, (CENTRE, 240), 34, "#e9c167", "#8c5f17")
    disc(draw, (CENTRE - 10, 230), 10, "#fbe6ac")
    draw.line(((250, 425), (330, 330)), fill="#6b4423", width=16)
    disc(draw, (336, 322), 30, "#f0e4d0", "#a78a62")


def panpipes(draw: ImageDraw.ImageDraw) -> None:
    """A row of tubes that get shorter, bound with two woven bands."""
    for i in range(9):
        x, bottom = 42 + i * 41, 420 - i * 31
        draw.rounded_rectangle((x, 60, x + 36, bottom), radius=14, fill="#d8a95b", outline="#8a5f23", width=4)
        draw.line((x + 11, 90, x + 11, bottom - 16), fill="#f2d296", width=6)
        draw.line((x, 60 + (bottom - 60) * 0.72, x + 36, 60 + (bottom - 60) * 0.72), fill="#8a5f23", width=4)
        draw.ellipse((x + 2, 50, x + 34, 72), fill="#3f260c", outline="#8a5f23", width=3)
    for y in (98, 138):
        draw.rectangle((32, y, 416, y + 22), fill="#b3262f")
        for x in range(44, 405, 36):
            draw.polygon(((x, y + 11), (x + 10, y + 2), (x + 20, y + 11), (x + 10, y + 20)), fill="#f7cf3d")


def pyramids(draw: ImageDraw.ImageDraw) -> None:
    """Three stone pyramids on sand under a low sun."""
    draw.rounded_rectangle((0, 0, CANVAS, CANVAS), radius=60, fill="#9fd4ee")
    disc(draw, (350, 90), 46, "#ffe27a")
    draw.rounded_rectangle((0, 300, CANVAS, CANVAS), radius=60, fill="#e8c887")
    draw.rectangle((0, 300, CANVAS, 360), fill="#e8c887")
    for left, right, top, base in ((250, 440, 185, 325), (20, 200, 200, 335), (90, 350, 110, 375)):
        peak, edge = (left + right) / 2, left + (right - left) * 0.64
        draw.polygon(((left, base), (peak, top), (edge, base)), fill="#d9a95a")
        draw.polygon(((edge, base), (peak, top), (right, base)), fill="#a97836")
        for i in range(1, 8):
            part = i / 8
            y = top + (base - top) * part
            draw.line((peak + (left - peak) * part, y, peak + (edge - peak) * part, y), fill="#bd8c42", width=3)


def petal(flower: Point, degrees: float, length: float, width: float) -> list[Point]:
    """An oval (half its length and width given) that points away from the middle of a flower."""
    centre, turn = around(flower, 48, degrees), math.radians(degrees)
    ring = [(length * math.cos(math.radians(t)), width * math.sin(math.radians(t))) for t in range(0, 360, 10)]
    return [
        (centre[0] + x * math.cos(turn) - y * math.sin(turn), centre[1] + x * math.sin(turn) + y * math.cos(turn))
        for x, y in ring
    ]


def batik(draw: ImageDraw.ImageDraw) -> None:
    """Cloth in the kawung pattern: crossed ovals on indigo and brown."""
    draw.rectangle((0, 0, CANVAS, CANVAS), fill="#2b1a12")
    cell = 112
    for row in range(-1, 5):
        for column in range(-1, 5):
            x, y = column * cell + cell / 2, row * cell + cell / 2
            for degrees in range(45, 360, 90):
                draw.polygon(petal((x, y), degrees, 40, 24), fill="#f0dcb4", outline="#8a4b1f", width=5)
                draw.line((around((x, y), 26, degrees), around((x, y), 70, degrees)), fill="#8a4b1f", width=5)
            disc(draw, (x, y), 8, "#c47a2c")
            disc(draw, (x + cell / 2, y), 9, "#3d5a80")


def kente(draw: ImageDraw.ImageDraw) -> None:
    """Strips of cloth with alternating woven blocks."""
    gold, green, red, black = "#f2b705", "#1f7a3d", "#c1272d", "#1b1b1b"
    size = CANVAS // 7
    for column in range(7):
        for row in range(7):
            x, y = column * size, row * size
            if (row + column) % 2:
                for i, fill in enumerate((gold, black, red, black, gold, green, gold, black)):
                    draw.rectangle((x, y + i * 8, x + size, y + i * 8 + 8), fill=fill)
            else:
                draw.rectangle((x, y, x + size, y + size), fill=(gold, green, red)[(row * 2 + column) % 3])
                middle = (x + size / 2, y + size / 2)
                draw.regular_polygon((middle, 26), 4, rotation=45, fill=black)
                draw.regular_polygon((middle, 15), 4, rotation=45, fill=(red, gold, green)[(row * 2 + column) % 3])
        draw.line((column * size, 0, column * size, CANVAS), fill=black, width=4)


def bao(draw: ImageDraw.ImageDraw) -> None:
    """A wooden board with four rows of eight pits and some seeds in them."""
    draw.rounded_rectangle((4, 92, 444, 356), radius=34, fill="#8a5427", outline="#4f2b0e", width=8)
    for row in range(4):
        for column in range(8):
            x, y = 49 + column * 50, 133 + row * 61
            disc(draw, (x, y), 22, "#5a3112", "#3d1f08")
            for i in range((row * 5 + column * 3) % 4):
                disc(draw, around((x, y), 9, i * 120 + 30), 6.5, "#c9cfc4")


def dhow(draw: ImageDraw.ImageDraw) -> None:
    """A wooden ship with a slanting yard and a lateen sail."""
    draw.rounded_rectangle((0, 0, CANVAS, CANVAS), radius=60, fill="#bfe3f2")
    draw.rounded_rectangle((0, 330, CANVAS, CANVAS), radius=60, fill="#2f7fa8")
    draw.rectangle((0, 330, CANVAS, 380), fill="#2f7fa8")
    draw.line((215, 60, 235, 330), fill="#5b3717", width=13)
    draw.polygon(((330, 30), (95, 265), (330, 290), (372, 190)), fill="#fdf6e3", outline="#c9b68a")
    draw.line((345, 12, 80, 282), fill="#5b3717", width=10)
    draw.polygon(((40, 300), (70, 318), (340, 322), (425, 268), (385, 378), (120, 384)), fill="#7b4a20")
    draw.line(((48, 305), (70, 322), (340, 326), (422, 272)), fill="#d9a85e", width=8)
    for y in range(395, 440, 20):
        draw.line([(x, y + 5 * math.sin(x / 20 + y)) for x in range(30, 420, 5)], fill="#7fbad6", width=6)


DRAWINGS: dict[str, Callable[[ImageDraw.ImageDraw], None]] = {
    function.__name__: function
    for function in (
        injera, bibimbap, coffee, vesak_lantern, krathong, kolam, talking_drum, gong, panpipes, pyramids, batik,
        kente, bao, dhow,
    )
}  # fmt: skip


def motif(name: str, picture: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    """The concept without a background, cropped to what is drawn."""
    if picture == "drawn":
        canvas = Image.new("RGBA", (CANVAS, CANVAS))
        DRAWINGS[name](ImageDraw.Draw(canvas))
    else:
        canvas = Image.new("RGBA", (160, 160))
        ImageDraw.Draw(canvas).text((12, 16), picture, font=font, embedded_color=True)
    return canvas.crop(canvas.getbbox())


def background(hue: float, seed: bytes) -> Image.Image:
    """A soft gradient of one pale hue with two blurred spots of light."""
    light, deep = (
        tuple(round(255 * part) for part in colorsys.hls_to_rgb(hue, lightness, 0.5)) for lightness in (0.93, 0.8)
    )
    slope = Image.linear_gradient("L").resize((SIDE, SIDE)).rotate(90 * (seed[3] % 4))
    image = Image.composite(Image.new("RGB", (SIDE, SIDE), light), Image.new("RGB", (SIDE, SIDE), deep), slope)
    spots = Image.new("L", (SIDE, SIDE))
    for x, y in ((seed[4] % SIDE, seed[5] % SIDE), (seed[6] % SIDE, seed[7] % SIDE)):
        ImageDraw.Draw(spots).ellipse((x - 22, y - 22, x + 22, y + 22), fill=110)
    image.paste((255, 255, 255), mask=spots.filter(ImageFilter.GaussianBlur(9)))
    return image


def compose(name: str, drawn: Image.Image, *, document: bool) -> Image.Image:
    """The finished picture: motif on background, the document's smaller, turned and on another hue."""
    seed = hashlib.sha256(f"{name}{'-document' if document else ''}".encode()).digest()
    hue = hashlib.sha256(name.encode()).digest()[0] / 256 + (0.45 if document else 0)
    side, angle = (76 + seed[1] % 9, (8 + seed[2] % 9) * (1 if seed[8] % 2 else -1)) if document else (98, 0)
    scale = side / max(drawn.size)
    turned = drawn.rotate(angle, Image.Resampling.BICUBIC, expand=True)  # before scaling, or edges turn jagged
    size = (round(turned.width * scale), round(turned.height * scale))
    placed = turned.resize(size, Image.Resampling.LANCZOS)
    shift = (seed[9] % 9 - 4, seed[10] % 9 - 4) if document else (0, 0)
    image = background(hue % 1, seed)
    corner = ((SIDE - placed.width) // 2 + shift[0], (SIDE - placed.height) // 2 + shift[1])
    image.paste(placed, corner, placed)
    return image


def main() -> None:
    """Draw every picture that concepts.toml names, and remove those it no longer names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--font", type=Path, default=FONT, help="NotoColorEmoji.ttf (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=DATA / "images", help="folder to write (default: %(default)s)")
    options = parser.parse_args()
    if not options.font.exists():
        sys.exit(f"{options.font}: no such font. Install fonts-noto-color-emoji or give --font.")
    font = ImageFont.truetype(options.font, FONT_SIZE)
    table = tomllib.loads((DATA / "concepts.toml").read_text(encoding="utf-8"))
    options.out.mkdir(parents=True, exist_ok=True)
    written = set()
    for kind in ("concept", "distractor"):
        for name, entry in table[kind].items():
            drawn = motif(name, entry["picture"], font)
            for document in (False, True) if kind == "concept" else (True,):
                path = options.out / f"{name}{'-document' if document else ''}.webp"
                compose(name, drawn, document=document).save(path, quality=82, method=6)
                written.add(path)
    for stale in set(options.out.glob("*.webp")) - written:
        stale.unlink()
    total = sum(path.stat().st_size for path in written)
    sys.stdout.write(f"{len(written)} pictures, {total / 1000:.0f} kB, in {options.out}\n")


if __name__ == "__main__":
    main()
