"""One tokenizer for all reference models: byte-level BPE over 12 scripts; m4rag's prompt sentences are one token each.

Every text can be written in it, byte by byte if need be. The constant parts of the prompt templates are single tokens:
a small model need not read 150 tokens of instructions in every prompt, and a changed template still works, in pieces.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

from m4rag.training.nano import SPECIALS
from m4rag.training.texts import everything

if TYPE_CHECKING:
    from tokenizers import Tokenizer

VOCABULARY = 5120
HOLE = "\ue000"
"""Stands where a template puts data."""

WORDS = r" ?[^\s\p{P}]+| ?\p{P}|\s+"


@cache
def tokenizer() -> Tokenizer:
    """The tokenizer, trained on the training texts; a second's work, the same on every machine."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    sentences = list(dict.fromkeys(prompt_parts()))
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIALS) - len(sentences),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    made.train_from_iterator(everything(), trainer)
    made.add_special_tokens([AddedToken(special, special=True, normalized=False) for special in SPECIALS])
    made.add_tokens([AddedToken(sentence, special=False, normalized=False) for sentence in sentences])
    return made


def token(special: str) -> int:
    """Id of one of `nano.SPECIALS`."""
    number = tokenizer().token_to_id(special)
    assert number is not None  # noqa: S101 - added when the tokenizer is made
    return int(number)


def prompt_parts() -> Iterable[str]:
    """The constant parts of the prompts and of their answers, longest runs between data."""
    from m4rag.vlm.prompts import render_caption, render_judge, render_question

    options = [HOLE] * 4
    rendered = [
        render_question(HOLE, options),
        render_question(HOLE, options, [HOLE]),
        render_caption(),
        render_judge(HOLE, HOLE),
        render_judge(HOLE, HOLE, HOLE),
    ]
    for prompt in rendered:
        for part in re.split(rf"(?:\n?\d\. |\n?- )?{HOLE}", prompt):
            if len(part) > 4:
                yield part
    yield from ('{"explanation":"', '","answer":')
