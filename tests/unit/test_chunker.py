"""Passages: nothing lost, nothing torn, never too long, in every script."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m4rag.corpus.chunker import PORTABLE, Tokenizer, chunk_document, split
from m4rag.corpus.chunks import chunk_corpus
from m4rag.errors import BadData, UsageError
from m4rag.manifests import Manifest
from m4rag.schema import Chunk, Document
from m4rag.shards import read_folder, write_folder

SENTENCES = {
    "am": ["ይህ ምግብ በጣም ጣፋጭ ነው። ", "ብዙ ሰዎች ይወዱታል። ", "በበዓል ቀን ይበላል።"],
    "hi": ["यह व्यंजन बहुत स्वादिष्ट है। ", "लोग इसे पसंद करते हैं। ", "यह त्योहार पर बनता है।"],
    "ja": ["これは祭りの日の料理です。", "多くの人が好きです。", "とてもおいしい。"],
    "my": ["ဒီဟင်းက အရမ်းအရသာရှိတယ်။ ", "လူတွေကြိုက်တယ်။ ", "ပွဲတော်မှာစားတယ်။"],
    "ar": ["هذا الطبق لذيذ جدا. ", "هل يحبه الناس؟ ", "يؤكل في العيد."],
    "ur": ["یہ کھانا بہت مزیدار ہے۔ ", "لوگ اسے پسند کرتے ہیں۔ ", "یہ عید پر بنتا ہے۔"],
    "te": ["ఈ వంటకం చాలా రుచిగా ఉంటుంది. ", "ప్రజలు ఇష్టపడతారు. ", "పండుగ రోజున తింటారు."],
    "zh": ["这道菜非常好吃。", "很多人喜欢它！", "节日时才吃。"],
    "ko": ["이 음식은 정말 맛있다. ", "많은 사람이 좋아한다. ", "명절에 먹는다."],
    "yo": ["Oúnjẹ yìí dùn gan-an. ", "Ọ̀pọ̀ ènìyàn fẹ́ràn rẹ̀. ", "A máa ń jẹ ẹ́ ní ọjọ́ ọdún."],
    "el": ["Αυτό το φαγητό είναι νόστιμο. ", "Το αγαπούν όλοι; ", "Τρώγεται στη γιορτή."],
    "en": ["This dish is very tasty. ", "Do people like it? ", "It is eaten at festivals! "],
}

EMOJI = "👩‍👩‍👧🍜𠀀"

TEXTS = st.lists(
    st.one_of(
        st.text(max_size=40),
        st.sampled_from([sentence for sentences in SENTENCES.values() for sentence in sentences]),
        st.sampled_from([EMOJI * 3, "\n\n", " " * 30, "a" * 300, "ภาษาไทยไม่มีการเว้นวรรคระหว่างคำ" * 4, "\r\n", "\x00"]),
    ),
    max_size=25,
).map("".join)

BYTES = Tokenizer(name="bytes", count=lambda texts: [len(text.encode()) for text in texts])


def _rough(texts: Sequence[str]) -> list[int]:
    """A text counts for more than its sentences do: as some subword tokenizers have it."""
    return [0 if not text else 1 + len(text) // 3 + len(text) // 17 for text in texts]


ROUGH = Tokenizer(name="rough", count=_rough)


def document(text: str, **changes: str) -> Document:
    fields = {"document_id": "d", "title": "T", "text": text, "language": "en", "source": "s"}
    return Document(**{**fields, **changes})


@pytest.mark.parametrize("tokenizer", [PORTABLE, BYTES, ROUGH], ids=lambda tokenizer: tokenizer.name)
@given(text=TEXTS, sizes=st.sampled_from([(8, 0), (16, 5), (64, 20), (256, 50)]))
def test_m4rag_fault_11_the_parts_that_are_new_in_each_passage_are_the_source(
    tokenizer: Tokenizer, text: str, sizes: tuple[int, int]
) -> None:
    max_tokens, overlap = sizes
    spans = split(text, tokenizer, max_tokens=max_tokens, overlap=overlap)
    if text.isspace() or not text:
        assert spans == []
        return
    assert "".join(text[span.fresh : span.end] for span in spans) == text
    for before, span in itertools.pairwise(spans):
        assert before.start < span.start <= span.fresh == before.end < span.end
    for span in spans:
        assert tokenizer.count([text[span.start : span.end]])[0] <= max_tokens


@given(texts=st.lists(TEXTS, max_size=12))
def test_many_texts_count_as_each_by_itself(texts: list[str]) -> None:
    assert PORTABLE.count(texts) == [PORTABLE.count([text])[0] for text in texts]


@given(text=TEXTS)
def test_additive_counts_keep_the_overlap_within_its_limit(text: str) -> None:
    for span in split(text, BYTES, max_tokens=64, overlap=20):
        assert BYTES.count([text[span.start : span.fresh]])[0] <= 20


@pytest.mark.parametrize("language", sorted(SENTENCES))
def test_m4rag_fault_39_sentences_are_the_units_in_every_script(language: str) -> None:
    sentences = SENTENCES[language]
    text = "".join(sentences)
    longest = max(PORTABLE.count(sentences))
    spans = split(text, max_tokens=longest, overlap=0, language=language)
    ends, position = set(), 0
    for sentence in sentences:
        position += len(sentence)
        ends.add(position)
    assert {span.end for span in spans} <= ends
    assert len(spans) > 1


def test_overlap_repeats_whole_sentences() -> None:
    sentences = SENTENCES["en"]
    text = "".join(sentences)
    first, second = split(text, max_tokens=12, overlap=6)
    assert text[first.start : first.end] == sentences[0] + sentences[1]
    assert text[second.start : second.end] == sentences[1] + sentences[2]
    assert text[second.fresh : second.end] == sentences[2]


def test_the_last_passage_is_never_a_piece_of_the_one_before_it() -> None:
    text = "abcd " * 16
    spans = split(text, Tokenizer("letters", lambda texts: [len(each) for each in texts]), max_tokens=40, overlap=15)
    assert spans[-1].fresh < spans[-1].end == len(text)
    assert [span.fresh for span in spans[1:]] == [span.end for span in spans[:-1]]


def test_a_long_thai_sentence_is_cut_between_words() -> None:
    words = ["ภาษา", "ไทย", "ไม่มี", "การ", "เว้น", "วรรค", "ระหว่าง", "คำ"]
    text = "".join(words) * 5
    starts = {0}
    for word in words * 5:
        starts.add(max(starts) + len(word))
    assert {span.start for span in split(text, max_tokens=8, overlap=2, language="th")} <= starts


def test_pictographs_before_a_boundary_do_not_shift_it() -> None:
    text = "👩‍👩‍👧 One sentence here. 🍜🍜 Another sentence there. 𠀀 The third one."
    pieces = [text[span.start : span.end] for span in split(text, max_tokens=6, overlap=0)]
    assert pieces == ["👩‍👩‍👧 One sentence here. ", "🍜🍜 Another sentence there. ", "𠀀 The third one."]


def test_a_grapheme_is_not_torn_while_it_fits() -> None:
    family = "👩‍👩‍👧"
    text = family * 40
    spans = split(text, Tokenizer("letters", lambda texts: [len(each) for each in texts]), max_tokens=12, overlap=0)
    assert {text[span.start : span.end] for span in spans} == {family * 2}


def test_a_character_with_more_tokens_than_a_passage_is_refused() -> None:
    with pytest.raises(UsageError, match="alone has 4 tokens"):
        split("🍜", BYTES, max_tokens=3, overlap=0)


@pytest.mark.parametrize("overlap", [256, 300, -1])
def test_an_overlap_that_leaves_no_room_is_refused(overlap: int) -> None:
    with pytest.raises(UsageError, match="Make the overlap smaller"):
        split("text", max_tokens=256, overlap=overlap)


def test_a_short_document_is_one_passage_and_an_empty_one_is_none() -> None:
    (chunk,) = chunk_document(document("  One sentence.\n"))
    assert (chunk.text, chunk.tokens, chunk.index, chunk.title) == ("One sentence.", 3, 0, "T")
    assert chunk_document(document(" \n\n ")) == chunk_document(document("")) == []


def test_title_and_passage_together_stay_within_the_limit() -> None:
    title = "a title of some seven words indeed"
    text = "".join(SENTENCES["en"]) * 10
    for chunk in chunk_document(document(text, title=title), max_tokens=32, overlap=8):
        assert PORTABLE.count([f"{chunk.title}\n{chunk.text}"])[0] <= 32


def test_a_title_that_leaves_no_room_is_refused() -> None:
    with pytest.raises(BadData, match="d: the title leaves 12 of 32 tokens"):
        chunk_document(document("text", title="word " * 20), max_tokens=32)


def test_an_unchanged_passage_keeps_its_id_and_a_changed_one_does_not() -> None:
    sentences = SENTENCES["en"]
    before = chunk_document(document("".join(sentences)), max_tokens=9, overlap=0)
    after = chunk_document(document("".join([*sentences[:2], "Nobody eats it."])), max_tokens=9, overlap=0)
    same = [old.chunk_id == new.chunk_id for old, new in zip(before, after, strict=True)]
    assert same == [True, True, False]
    assert len({chunk.chunk_id for chunk in before}) == 3
    elsewhere = chunk_document(document("".join(sentences), document_id="e"), max_tokens=9, overlap=0)
    assert not {chunk.chunk_id for chunk in before} & {chunk.chunk_id for chunk in elsewhere}
    assert all(len(chunk.chunk_id) == 32 for chunk in before)


def folder_of(path: Path, rows: Sequence[Document]) -> Path:
    write_folder(path, Document, rows, Manifest(kind="documents", command="test"))
    return path


def test_a_corpus_is_cut_and_counted(tmp_path: Path) -> None:
    rows = [
        document("".join(SENTENCES["hi"]) * 30, document_id="a", language="hi"),
        document("Short.", document_id="b"),
        document(" ", document_id="c"),
    ]
    documents = folder_of(tmp_path / "documents", rows)
    manifest = chunk_corpus(documents, tmp_path / "chunks", max_tokens=64, overlap=10)
    chunks = list(read_folder(tmp_path / "chunks", Chunk))
    hindi = sum(chunk.language == "hi" for chunk in chunks)
    assert hindi > 1
    assert manifest.counts == {"documents": 3, "empty": 1, "languages": {"en": 1, "hi": hindi}}
    assert manifest.inputs == {"documents": Manifest.read(documents).digest}
    assert chunk_corpus(documents, tmp_path / "chunks", max_tokens=64, overlap=10) == manifest
    assert chunk_corpus(documents, tmp_path / "other", max_tokens=32, overlap=10).identity != manifest.identity


def test_m4rag_fault_26_parts_are_cut_once_on_all_cores_and_a_kill_loses_only_unfinished_ones(tmp_path: Path) -> None:
    languages = sorted(SENTENCES)
    rows = [
        document("".join(SENTENCES[language]) * 20, document_id=f"{language}{number}", language=language)
        for number in range(2)
        for language in languages
    ]
    made_by = Manifest(kind="documents", command="test")
    documents = tmp_path / "documents"
    write_folder(documents, Document, rows, made_by, shard_rows=5)
    whole = chunk_corpus(documents, tmp_path / "whole", max_tokens=64, overlap=10)
    assert list(read_folder(tmp_path / "whole", Chunk)) == [
        chunk for row in rows for chunk in chunk_document(row, max_tokens=64, overlap=10)
    ]
    assert len(whole.files) == 5

    finished: list[int] = []

    def kill(count: int) -> None:
        finished.append(count)
        if sum(finished) == 10:
            raise KeyboardInterrupt

    killed = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        chunk_corpus(documents, killed, max_tokens=64, overlap=10, progress=kill)
    recorded = json.loads((killed / "progress.json").read_bytes())["files"]
    written = {each["name"]: (killed / each["name"]).stat().st_mtime_ns for each in recorded}
    assert len(written) == 2
    again: list[int] = []
    assert chunk_corpus(documents, killed, max_tokens=64, overlap=10, progress=again.append) == whole
    assert again == [10, 5, 5, 4]
    assert {name: (killed / name).stat().st_mtime_ns for name in written} == written


def test_passages_of_one_document_fill_several_parts(tmp_path: Path) -> None:
    documents = folder_of(tmp_path / "documents", [document("".join(SENTENCES["en"]) * 400)])
    manifest = chunk_corpus(documents, tmp_path / "chunks", max_tokens=10, overlap=0)
    assert [file.rows for file in manifest.files[:-1]] == [512] * (len(manifest.files) - 1)
    assert [chunk.index for chunk in read_folder(tmp_path / "chunks", Chunk)] == list(range(manifest.rows))


def test_one_id_for_two_documents_is_refused(tmp_path: Path) -> None:
    documents = folder_of(tmp_path / "documents", [document("One."), document("Two.")])
    with pytest.raises(BadData, match="document id 'd' comes twice"):
        chunk_corpus(documents, tmp_path / "chunks")


def test_a_corpus_without_text_is_refused(tmp_path: Path) -> None:
    documents = folder_of(tmp_path / "documents", [document("")])
    with pytest.raises(BadData, match="none of 1 documents has text"):
        chunk_corpus(documents, tmp_path / "chunks")
