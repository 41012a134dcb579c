"""Components about when to retrieve."""
