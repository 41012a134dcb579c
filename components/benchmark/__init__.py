"""Components that measure."""
