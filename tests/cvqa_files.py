"""Small files of exactly the columns and types that CVQA is published in."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
SCHEMA = pa.schema(
    [
        ("image", IMAGE),
        ("ID", pa.string()),
        ("Subset", pa.string()),
        ("Question", pa.string()),
        ("Translated Question", pa.string()),
        ("Options", pa.list_(pa.string())),
        ("Translated Options", pa.list_(pa.string())),
        ("Label", pa.int64()),
        ("Category", pa.string()),
        ("Image Type", pa.string()),
        ("Image Source", pa.string()),
        ("License", pa.string()),
    ]
)
"""The columns and types as they are published."""


def picture(colour: str = "teal", kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (24, 16), colour).save(buffer, kind)
    return buffer.getvalue()


def shade(number: int) -> dict[str, Any]:
    """An `image` cell that differs from that of every other number."""
    return {"bytes": picture(f"#00{number:04x}", "PNG"), "path": None}


def row(**changes: Any) -> dict[str, Any]:
    return {
        "image": {"bytes": picture(), "path": "5919991144272485961.jpg"},
        "ID": "5919991144272485961_0",
        "Subset": "('Javanese', 'Indonesia')",
        "Question": "Panganan iki jenenge apa?",
        "Translated Question": "What is this food called?",
        "Options": ["gudeg", "rawon", "soto", "tempe"],
        "Translated Options": ["Gudeg", "Rawon", "Soto", "Tempeh"],
        "Label": 1,
        "Category": "Cooking and food",
        "Image Type": "Self",
        "Image Source": "Self-open",
        "License": "CC BY 4.0",
    } | changes


def parquet(path: Path, *rows: dict[str, Any], schema: pa.Schema = SCHEMA) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path)
    return path
