"""Components that make indexes."""
