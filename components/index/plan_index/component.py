"""Refuse an index that can't be built, before its build costs anything."""

from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def plan_index(base: str, encoder: str, channels: list, dim: int) -> str:
    """Check name, channels, Milvus and encoder of an index, and say which encoder it is.

    Reads MILVUS_URI, MILVUS_TOKEN and M4RAG_EMBEDDING_URL.

    Args:
        base: Base name of the collection and alias in Milvus.
        encoder: Encoder spec: `minilm`, `st:<path>`, `vllm`.
        channels: `dense`, or `dense` and `bm25`.
        dim: Numbers to keep of each vector; 0 for all.

    Returns:
        Digest of the encoder. The steps that use it refuse another one, so they can be cached.
    """
    from m4rag.index.steps import plan_index
    from m4rag.settings import settings

    return plan_index(base, encoder, settings(), channels=channels, dim=int(dim)).digest
