"""Let production read an index."""

from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def promote_index(index: dsl.Input[dsl.Artifact], promoted: dsl.Output[dsl.Artifact]) -> None:
    """Verify a collection, then point the alias of its base to it.

    Reads MILVUS_URI and MILVUS_TOKEN. `m4rag index rollback` points the alias back.

    Args:
        index: Pointer of `load_index`.
        promoted: The same. Metadata: that of the index; before, the collection that was served until now.
    """
    from m4rag.index.aliases import promote
    from m4rag.index.store import connect
    from m4rag.settings import settings

    with connect(settings()) as store:
        moved = promote(store, index.metadata["base"], index.metadata["collection"])
    promoted.metadata.update({**index.metadata, "served": moved.served, "before": moved.before or ""})
