"""Contexts that need no search: the gold documents, and those of other questions."""

from __future__ import annotations

import pytest

from m4rag.bench.contexts import gold_documents, irrelevant_contexts, oracle_contexts
from m4rag.datasets import load_documents, load_questions
from m4rag.errors import BadData

QUESTIONS = load_questions("museum", limit=96)
GOLD = gold_documents(QUESTIONS, load_documents("museum"))


def test_irrelevant_contexts_are_as_long_as_the_oracle_and_never_gold() -> None:
    oracle, irrelevant = oracle_contexts(QUESTIONS, GOLD), irrelevant_contexts(QUESTIONS, GOLD)
    for question, gold, other in zip(QUESTIONS, oracle, irrelevant, strict=True):
        assert gold.question_id == other.question_id == question.question_id
        assert len(gold.passages) == len(other.passages) == 1
        assert gold.passages[0].document_id != other.passages[0].document_id
        assert other.passages[0].language == "en"
        assert other.scores == (0.0,)
    assert len({context.passages[0].document_id for context in irrelevant}) > len(GOLD) / 2


def test_irrelevant_contexts_depend_on_the_question_alone() -> None:
    whole = {context.question_id: context for context in irrelevant_contexts(QUESTIONS, GOLD)}
    assert all(irrelevant_contexts([question], GOLD)[0] == whole[question.question_id] for question in QUESTIONS[:10])


def test_a_corpus_with_nothing_else_has_no_irrelevant_context() -> None:
    question = QUESTIONS[0]
    with pytest.raises(BadData, match="1 gold documents, 0 of other questions"):
        irrelevant_contexts([question], {question.gold[0]: GOLD[question.gold[0]]})
