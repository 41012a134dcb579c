"""Training code: the reference models that come with m4rag, and what they learn from."""
