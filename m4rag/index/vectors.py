"""Passages become vectors on disk first: the costly step survives a kill, and serves any Milvus."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from m4rag.encoders import Encoder
from m4rag.manifests import Manifest
from m4rag.schema import Chunk, Row
from m4rag.shards import map_folder, read_rows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Vector(Row):
    """A passage's vector.

    Attributes:
        chunk_id: The passage.
        vector: Base64 of little-endian float32, as embedding servers send it.
    """

    chunk_id: str
    vector: str


def plan(chunks: Path, encoder: Encoder) -> Manifest:
    """What `embed` would make: its manifest without files, whose identity names the work."""
    inputs = {"chunks": Manifest.read(chunks).digest}
    return Manifest(kind="vectors", command="index build", config={"encoder": encoder.identity}, inputs=inputs)


def embed(chunks: Path, vectors: Path, encoder: Encoder, progress: Callable[[int], None]) -> int:
    """Encode a folder of passages, part by part; parts that a killed call finished are not encoded again.

    Args:
        chunks: A complete folder of `Chunk` rows.
        vectors: Target folder of `Vector` rows, the same passages in the same parts.
        encoder: Makes the vectors.
        progress: Called with the number of passages after each part.

    Returns:
        How many passages this call encoded.
    """
    encoded = 0

    def encode(part: Sequence[Chunk]) -> list[Vector]:
        nonlocal encoded
        made = encoder.encode_passages(part)
        encoded += len(part)
        return [
            Vector(chunk_id=chunk.chunk_id, vector=base64.b64encode(row.astype("<f4").tobytes()).decode())
            for chunk, row in zip(part, made, strict=True)
        ]

    map_folder(chunks, Chunk, vectors, Vector, encode, plan(chunks, encoder), progress=progress)
    return encoded


def read_vectors(path: Path, dim: int) -> dict[str, NDArray[np.float32]]:
    """One part's vectors by passage id."""
    import numpy as np

    return {
        row.chunk_id: np.frombuffer(base64.b64decode(row.vector), dtype="<f4", count=dim)
        for row in read_rows(path, Vector)
    }
