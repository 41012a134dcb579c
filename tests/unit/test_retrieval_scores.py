"""Retrieval measures are trec_eval's, and the alias queries are what they claim to be."""

from __future__ import annotations

import pytest

from m4rag.errors import BadData
from m4rag.index.capabilities import capabilities_of
from m4rag.index.collection import Description, base_name, check_base
from m4rag.index.evaluate import EvalQuery, alias_queries, score, summarise
from m4rag.index.store import literal
from m4rag.schema import Document


def query(query_id: str, language: str = "en", **relevant: int) -> EvalQuery:
    return EvalQuery(query_id=query_id, text=query_id, language=language, relevant=relevant or {"a": 1})


def test_ndcg_has_linear_gain() -> None:
    judged = query("q", a=1, b=2)
    values = score([judged], {"q": ["a", "b", "c", "d", "e"]})["q"]
    assert values["ndcg@5"] == pytest.approx(2.2619 / 2.6309, abs=1e-4)
    assert values == {**values, "recall@1": 0.5, "recall@5": 1.0, "recall@10": 1.0, "mrr": 1.0}


def test_the_returned_order_counts_whatever_the_ids_are() -> None:
    values = score([query("q", z=1), query("r", a=1)], {"q": ["a", "z"], "r": ["z", "a"]})
    assert values["q"]["mrr"] == values["r"]["mrr"] == 0.5


def test_a_query_that_found_nothing_counts_as_zero() -> None:
    assert score([query("q")], {"q": []})["q"] == dict.fromkeys(
        ("recall@1", "recall@5", "recall@10", "mrr", "ndcg@5"), 0.0
    )


def test_the_macro_average_weighs_languages_and_leaves_small_ones_out() -> None:
    queries = [query(f"en{number}", "en") for number in range(40)]
    queries += [query(f"sw{number}", "sw") for number in range(20)]
    queries += [query(f"yo{number}", "yo") for number in range(19)]
    ranked = {each.query_id: ["a"] if each.language == "sw" else ["b"] for each in queries}
    summary = summarise(queries, score(queries, ranked))["all"]
    assert (summary["macro"]["recall@1"], summary["macro_languages"]) == (0.5, 2)
    assert summary["mean"]["recall@1"] == pytest.approx(20 / 79, abs=1e-4)
    assert summary["languages"]["yo"] == {**summary["languages"]["yo"], "queries": 19, "recall@1": 0.0}


def test_alias_queries_say_how_they_relate_to_the_title() -> None:
    aliases = {"ja": "ラウォン", "id": " RAWON", "nan": "Rawon-thng", "ru": "Равон 2", "fr": ""}
    document = Document(document_id="d", title="Rawon", text="x", language="en", source="s", extra={"aliases": aliases})
    subsets = {each.language: set(each.subsets) for each in alias_queries([document])}
    assert subsets == {
        "ja": {"all", "other name", "other script"},
        "ru": {"all", "other name", "other script"},
        "nan": {"all", "other name"},
        "id": {"all"},
    }
    assert all(each.relevant == {"d": 1} for each in alias_queries([document]))


def test_a_corpus_without_aliases_has_nothing_to_evaluate() -> None:
    with pytest.raises(BadData, match="no document names itself"):
        alias_queries([Document(document_id="d", title="t", text="x", language="en", source="s")])


@pytest.mark.parametrize(
    ("version", "embedded", "bm25", "hybrid"),
    [
        ("milvus_lite-3.2.2", True, True, True),
        ("v2.3.5-lite", False, False, False),
        ("v2.4.15", False, False, True),
        ("v2.5.0", False, True, True),
        ("v2.6.20", False, True, True),
        ("3.0.1", False, True, True),
        ("v10.0", False, True, True),
        ("unknown", False, False, False),
        ("", False, False, False),
    ],
)
def test_capabilities_follow_from_the_version_and_fail_closed(
    version: str, embedded: bool, bm25: bool, hybrid: bool
) -> None:
    found = capabilities_of(version)
    assert (found.embedded, found.bm25, found.hybrid) == (embedded, bm25, hybrid)


def test_the_digest_covers_what_is_stored_and_nothing_else() -> None:
    first = Description(base="a", chunks="c", rows=1, channels=("dense",), dim=4, encoder="e", created=1.0)
    same = first.model_copy(update={"base": "b", "encoder": "f", "encoder_spec": "vllm:http://x", "created": 2.0})
    assert same.digest == first.digest
    for change in ({"chunks": "d"}, {"rows": 2}, {"dim": 8}, {"encoder_identity": {"model": "x"}}, {"lexical": 1}):
        assert first.model_copy(update=change).digest != first.digest
    assert first.name == f"a__{first.digest[:12]}"


@pytest.mark.parametrize("bad", ["", "a__b", "1a", "a-b", "a b", "_a", "a_", "ሀ", "x" * 201])
def test_a_name_that_milvus_or_the_aliases_would_not_take_is_refused(bad: str) -> None:
    from m4rag.errors import UsageError

    with pytest.raises(UsageError, match="can't name an index"):
        check_base(bad)


def test_a_corpus_name_becomes_an_index_name() -> None:
    assert check_base(base_name("worldcuisines-kb.v1")) == "worldcuisines_kb_v1"


def test_filter_literals_keep_letters_and_escape_quotes() -> None:
    assert literal(["አማ", 'a"b', "c\\d"]) == '["አማ", "a\\"b", "c\\\\d"]'
