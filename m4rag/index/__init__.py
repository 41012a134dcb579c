"""The index: immutable Milvus collections behind aliases, searched by meaning, by words, or both."""
