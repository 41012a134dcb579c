"""m4rag: multilingual, multi-cultural, multimodal RAG that measures whether retrieval helps."""

__version__ = "0.1.0"
