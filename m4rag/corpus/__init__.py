"""Documents in, passages out: readers, the chunker and the folders they write."""
