"""The names of the reference models that `m4rag train` makes. Their weights are not shipped yet."""

VLM = "m4rag-nano-vlm-4m"
"""Answers, captions, judges; 4 M parameters."""

SMALL_VLM = "m4rag-nano-vlm-1m"
"""The same at about 1 M: what a weaker model makes of the same context."""

EMBED = "m4rag-nano-embed"
"""Questions, passages and page pictures in one space: the last token's vector."""

COLEMBED = "m4rag-nano-colembed"
"""Its multi-vector sister: every token's vector, compared by MaxSim."""
