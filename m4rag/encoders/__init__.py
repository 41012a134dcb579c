"""Encoders turn queries and passages into unit vectors. `load` makes one from its name."""

from m4rag.encoders.base import Encoder, Query
from m4rag.encoders.loading import load

__all__ = ["Encoder", "Query", "load"]
