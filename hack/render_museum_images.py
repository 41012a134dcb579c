"""Draw the museum's sprites (from the motifs of the sample's pictures) and its held-out picture variants.

Writes m4rag/datasets/museum_data/{sprites,images}. Needs the font Noto Color Emoji for the sprites; `--variants` draws
the variants again from the sprites that are there.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from pathlib import Path

from PIL import Image, ImageFont
from render_sample_images import DATA, FONT, FONT_SIZE, motif

from m4rag.datasets import museum, museum_pictures

SPRITE_SIDE = 96  # longest side in pixels


def draw_sprites(font_file: Path) -> None:
    if not font_file.exists():
        sys.exit(f"{font_file}: no such font. Install fonts-noto-color-emoji or give --font.")
    font = ImageFont.truetype(font_file, FONT_SIZE)
    table = tomllib.loads((DATA / "concepts.toml").read_text(encoding="utf-8"))
    museum_pictures.SPRITES.mkdir(parents=True, exist_ok=True)
    for name, entry in {**table["concept"], **table["distractor"]}.items():
        drawn = motif(name, entry["picture"], font)
        scale = SPRITE_SIDE / max(drawn.size)
        size = (round(drawn.width * scale), round(drawn.height * scale))
        sprite = drawn.resize(size, Image.Resampling.LANCZOS)
        sprite.save(museum_pictures.SPRITES / f"{name}.webp", quality=84, method=6)


def draw_variants() -> None:
    folder = museum.picture("any", 0).parent
    folder.mkdir(parents=True, exist_ok=True)
    for name in museum.things():
        for which in (*range(museum.VARIANTS), "card"):
            museum_pictures.variant(name, f"test:{which}").save(museum.picture(name, which), quality=80, method=6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--font", type=Path, default=FONT, help="NotoColorEmoji.ttf (default: %(default)s)")
    parser.add_argument("--variants", action="store_true", help="draw only the variants")
    options = parser.parse_args()
    if not options.variants:
        draw_sprites(options.font)
    draw_variants()
    files = list(museum.FOLDER.rglob("*.webp"))
    sys.stdout.write(f"{len(files)} pictures, {sum(file.stat().st_size for file in files) / 1000:.0f} kB\n")


if __name__ == "__main__":
    main()
