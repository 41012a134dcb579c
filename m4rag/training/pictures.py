"""The pool of training pictures: drawn once, kept as bytes, shared by all trainings."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from m4rag.datasets.museum_pictures import SIDE, sprites, variant
from m4rag.manifests import digest, file_digest, short
from m4rag.progress import Progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VARIANTS = 96
"""Training pictures of each sprite."""


def pool(folder: Path, seed: int, progress: Progress) -> NDArray[np.uint8]:
    """Pictures [sprite, variant, 112, 112, 3], mapped from a file that is drawn if it is not there.

    Args:
        folder: Where the file is kept.
        seed: Determines the pictures.
        progress: Shows the drawing.
    """
    import numpy as np

    made_of = {"sprites": {name: _digest(name) for name in sprites()}, "seed": seed, "variants": VARIANTS}
    path = folder / f"pictures-{short(digest(made_of))}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        drawn = np.empty((len(sprites()), VARIANTS, SIDE, SIDE, 3), dtype=np.uint8)
        with progress("training pictures", len(sprites())) as advance:
            for row, name in enumerate(sprites()):
                for column in range(VARIANTS):
                    drawn[row, column] = np.asarray(variant(name, f"train:{seed}:{column}"))
                advance(1)
        temporary = path.with_suffix(".tmp.npy")
        np.save(temporary, drawn)
        temporary.replace(path)
    mapped: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    return mapped


def _digest(name: str) -> str:
    from m4rag.datasets.museum_pictures import SPRITES

    return file_digest(SPRITES / f"{name}.webp")


@cache
def row_of(name: str) -> int:
    """Where a sprite stands in the pool."""
    return sprites().index(name)
