"""Components that make corpora."""
