"""The benchmark inside the package: enough of it, in the right scripts, answerable, and not guessable by position."""

import hashlib
import os
import re
import subprocess
import sys
import unicodedata
from collections import Counter, defaultdict
from difflib import SequenceMatcher

import pytest
import regex

from m4rag.datasets import load_documents, load_items, load_questions, sample
from m4rag.datasets.guards import examine
from m4rag.languages import LOW_RESOURCE, lookup
from m4rag.manifests import rows_digest
from m4rag.schema import Document, Question

SCRIPTS = {
    "Arab": r"\p{Script=Arabic}",
    "Cyrl": r"\p{Script=Cyrillic}",
    "Deva": r"\p{Script=Devanagari}",
    "Ethi": r"\p{Script=Ethiopic}",
    "Hans": r"\p{Script=Han}",
    "Jpan": r"[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}ー]",
    "Kore": r"\p{Script=Hangul}",
    "Latn": r"\p{Script=Latin}",
    "Sinh": r"\p{Script=Sinhala}",
    "Taml": r"\p{Script=Tamil}",
    "Telu": r"\p{Script=Telugu}",
    "Thai": r"\p{Script=Thai}",
}

# Languages whose grammar may change the answer inside a sentence: their documents may hold it inflected.
INFLECTED = {"am", "en", "hi", "jv", "ru", "sw", "ta", "yo"}


def folded(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()


def texts_of(row: Question | Document) -> list[str]:
    return [row.question, *row.options] if isinstance(row, Question) else [row.title, row.text]


QUESTIONS = list(sample.questions())
DOCUMENTS = {document.document_id: document for document in sample.documents()}
DISTRACTORS = [document for document in DOCUMENTS.values() if not document.extra["gold"]]


def gold_document(question: Question) -> Document:
    return DOCUMENTS[f"{question.gold[0]}:{question.language}"]


def right_option(question: Question) -> str:
    return question.options[question.answer_index]


def test_has_enough_concepts_from_six_continents():
    concepts = sample.concepts()
    assert len(concepts) >= 52
    assert {concept.continent for concept in concepts} == set(sample.CONTINENTS)
    assert {concept.category for concept in concepts} == set(sample.CATEGORIES)
    assert {concept.prompt_type for concept in concepts} == set(sample.PROMPT_TYPES)


def test_has_enough_languages_scripts_and_low_resource_languages():
    varieties = [lookup(code) for code in sample.LANGUAGES]
    assert [variety.code for variety in varieties] == list(sample.LANGUAGES)
    assert len(varieties) >= 14
    assert len({variety.script for variety in varieties}) >= 9
    assert sum(variety.language.joshi in LOW_RESOURCE for variety in varieties) >= 5


def test_every_language_has_enough_questions_and_every_concept_enough_languages():
    by_language = Counter(question.language for question in QUESTIONS)
    assert set(by_language) == set(sample.LANGUAGES)
    assert min(by_language.values()) >= 18
    languages = defaultdict(set)
    for question in QUESTIONS:
        languages[question.group].add(question.language)
    assert set(languages) == {concept.name for concept in sample.concepts()}
    assert all("en" in codes and len(codes) >= 6 for codes in languages.values())


def test_has_enough_distractors_for_every_language_and_for_half_of_the_concepts():
    assert len(DISTRACTORS) >= 100
    assert min(Counter(document.language for document in DISTRACTORS).values()) >= 7
    assert len({document.extra["concept"] for document in DISTRACTORS}) >= len(sample.concepts()) / 2


def test_is_small():
    files = [path for path in sample.FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 2_000_000
    assert sum(path.stat().st_size for path in files if path.suffix == ".webp") < 500_000


def test_every_picture_opens_and_documents_show_another_one_than_questions():
    from PIL import Image

    asked = {question.image for question in QUESTIONS}
    shown = {document.image for document in DOCUMENTS.values()}
    digests = set()
    for path in asked | shown:
        with Image.open(path) as image:
            assert image.size == (112, 112)
            digests.add(hashlib.sha256(image.convert("RGB").tobytes()).hexdigest())
    assert len(digests) == len(asked) + len(shown)
    assert asked | shown == {str(path) for path in (sample.FOLDER / "images").iterdir()}


def test_ids_are_unique_and_name_concept_and_language():
    assert len({question.question_id for question in QUESTIONS}) == len(QUESTIONS)
    assert len(DOCUMENTS) == len(list(sample.documents()))
    for question in QUESTIONS:
        assert question.question_id == f"{question.group}-{question.language}"
        assert question.gold == (f"sample:{question.group}",)


def test_passes_the_guards_and_loads_under_its_name(tmp_path):
    findings = examine(load_items("sample", None), "sample", tmp_path)
    assert [finding for finding in findings if finding.level != "ok"] == []
    assert load_questions("sample") == QUESTIONS
    assert list(load_documents("sample")) == list(DOCUMENTS.values())


def test_no_option_equals_or_contains_another():
    for question in QUESTIONS:
        options = [folded(option) for option in question.options]
        assert len(set(options)) == 4, question.question_id
        for option in options:
            assert sum(option in other for other in options) == 1, question.question_id


def test_the_right_option_has_no_favourite_position_in_any_language():
    positions = Counter((question.language, question.answer_index) for question in QUESTIONS)
    for language in sample.LANGUAGES:
        counts = [positions[language, position] for position in range(4)]
        assert max(counts) - min(counts) <= 1, language
    overall = Counter(question.answer_index for question in QUESTIONS)
    assert max(overall.values()) / len(QUESTIONS) < 0.27


def test_choosing_by_length_does_not_find_the_right_option():
    for extreme in (min, max):
        hits = sum(extreme(question.options, key=len) == right_option(question) for question in QUESTIONS)
        assert hits / len(QUESTIONS) < 0.35, extreme


def test_the_order_of_the_options_is_the_same_in_every_process():
    program = "from m4rag.datasets import sample; from m4rag.manifests import rows_digest; "
    program += "print(rows_digest(sample.questions()))"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == rows_digest(QUESTIONS)


@pytest.mark.parametrize("language", sample.LANGUAGES)
def test_text_is_in_the_script_of_its_language(language):
    own = regex.compile(SCRIPTS[lookup(language).script])
    for row in [*QUESTIONS, *DOCUMENTS.values()]:
        if row.language == language:
            letters = regex.findall(r"\p{L}", " ".join(texts_of(row)))
            assert sum(bool(own.fullmatch(letter)) for letter in letters) / len(letters) >= 0.6, row


def test_text_is_in_composed_normal_form_and_free_of_stray_marks():
    for row in [*QUESTIONS, *DOCUMENTS.values()]:
        for text in texts_of(row):
            assert text == unicodedata.normalize("NFC", text).strip(), row
            assert not re.search(r"  |\ufffd|\ufeff|\t|\n", text), row


def test_documents_have_at_least_three_sentences_and_name_their_concept():
    for document in DOCUMENTS.values():
        if document.extra["gold"]:
            assert folded(document.title) in folded(document.text), document.document_id
        if document.language != "th":  # Thai ends sentences with a space, as it does clauses
            assert len(re.findall(r"[.。።।?!؟]", document.text)) >= 3, document.document_id


def test_no_question_names_its_concept():
    for question in QUESTIONS:
        assert folded(gold_document(question).title) not in folded(question.question), question.question_id


def test_the_gold_document_states_the_answer():
    """Word for word, or where grammar bends the words in a form that shares at least half of the option with it."""
    for question in QUESTIONS:
        option, evidence = folded(right_option(question)), folded(question.extra["evidence"])
        assert evidence in folded(gold_document(question).text), question.question_id
        if evidence == option:
            continue
        assert question.language in INFLECTED, question.question_id
        shared = SequenceMatcher(None, option, evidence, autojunk=False).find_longest_match().size
        assert shared >= max(2, len(option) / 2), question.question_id
        for other in question.options:
            assert other == right_option(question) or evidence not in folded(other), question.question_id


def test_no_distractor_contains_the_answer_of_the_concept_that_it_is_near_to():
    asked = {(question.group, question.language): question for question in QUESTIONS}
    for document in DISTRACTORS:
        question = asked[document.extra["concept"], document.language]
        text = folded(f"{document.title} {document.text}")
        assert folded(right_option(question)) not in text, document.document_id
        assert folded(question.extra["evidence"]) not in text, document.document_id


def test_the_data_card_counts_what_is_there():
    card = (sample.FOLDER / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|[^|]+\|[^|]+\| (\d+) \| (\d+) \|$", card, flags=re.MULTILINE)
    asked = Counter(question.language for question in QUESTIONS)
    near = Counter(document.language for document in DISTRACTORS)
    assert rows == [(code, str(asked[code]), str(near[code])) for code in sample.LANGUAGES]
    scripts = {lookup(code).script for code in sample.LANGUAGES}
    rows_there = f"{len(QUESTIONS)} questions and {len(DOCUMENTS)} documents"
    assert f"{rows_there} in {len(asked)} languages and {len(scripts)} scripts" in " ".join(card.split())
