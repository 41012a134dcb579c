"""The questions of `benchmarks/eval_client.py`: pictures of about 240 KB, prompts of about 4 KB, the same for all.

Folder:
    pictures/0.jpg ...   1024 x 768, each shown by several questions
    questions.jsonl      id, prompt, image, target: what a peer needs
    rows/, documents/    the same questions and their contexts as m4rag's rows
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np

from m4rag.bench.contexts import gold_documents, oracle_contexts
from m4rag.manifests import Manifest
from m4rag.schema import Document, Question
from m4rag.shards import write_folder
from m4rag.vlm.prompts import render_question

SENTENCE = "people of this region have known it for centuries and use it at home and at festivals when guests come"
OPTIONS = ("tea", "drum", "rice", "lantern")
MADE_BY = {"command": "eval_client"}


def write_load(folder: Path, questions: int, pictures: int, words: int) -> None:
    """Write a load; `words` is the length of the context of each question, about 5.5 bytes a word."""
    chance, words_known = random.Random(0), SENTENCE.split()
    documents = [
        Document(
            document_id=f"d{number}",
            title=f"Thing {number}",
            text="\n\n".join(" ".join(chance.choices(words_known, k=words // 5)) for _ in range(5)),
            language="en",
            source="load",
        )
        for number in range(pictures)
    ]
    for number in range(pictures):
        _draw(folder / "pictures" / f"{number}.jpg", number)
    rows = [
        Question(
            question_id=f"q{number}",
            dataset="load",
            language="en",
            question=f"What is shown in picture {number}?",
            options=OPTIONS,
            answer_index=number % len(OPTIONS),
            image=str(folder / "pictures" / f"{number % pictures}.jpg"),
            group=str(number % pictures),
            gold=(f"d{number % pictures}",),
        )
        for number in range(questions)
    ]
    write_folder(folder / "rows", Question, rows, Manifest(kind="questions", **MADE_BY))
    write_folder(folder / "documents", Document, documents, Manifest(kind="documents", **MADE_BY))
    contexts = oracle_contexts(rows, gold_documents(rows, documents))
    with (folder / "questions.jsonl").open("w") as stream:
        for row, context in zip(rows, contexts, strict=True):
            prompt = render_question(row.question, row.options, [passage.text for passage in context.passages])
            record = {"id": row.question_id, "prompt": prompt, "image": row.image, "target": str(row.answer_index + 1)}
            stream.write(json.dumps(record) + "\n")


def _draw(path: Path, seed: int) -> None:
    """Noise over blurred colours, so that the JPEG is as large as that of a photograph."""
    from PIL import Image

    chance = np.random.default_rng(seed)
    colours = Image.fromarray(chance.integers(0, 255, (96, 128, 3), dtype=np.uint8)).resize((1024, 768))
    noisy = np.asarray(colours).astype(int) + chance.integers(-8, 8, (768, 1024, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=86)
