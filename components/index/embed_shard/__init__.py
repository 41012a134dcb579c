"""See `component`."""

from components.index.embed_shard.component import embed_shard

__all__ = ["embed_shard"]
