"""Components that keep the record."""
