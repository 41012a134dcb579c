"""One tokenizer for all reference models: byte-level BPE over 12 scripts, with whole tokens where it matters most.

Every text can be written in it, byte by byte if need be. The constant parts of the prompt templates are single tokens:
a small model need not read 150 tokens of instructions in every prompt, and a changed template still works, in pieces.
The museum's values (colours, animals, days, materials) are single tokens in every language: saying in English what a
card says in another language is then a step from token to token, which a model of this size learns. Explanations say
the values in capitals, tokens that no prompt holds: that two of them are equal is easy to see.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING

from m4rag.training.nano import SPECIALS
from m4rag.training.texts import LANGUAGES, STATED, capitals, everything, values

if TYPE_CHECKING:
    from tokenizers import Tokenizer

VOCABULARY = 5120
"""Tokens but for the values in capitals."""

OFTEN = 200
"""A word that stands so often in the training text becomes a token."""

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
    sentences = list(dict.fromkeys([*prompt_parts(), *(f"\n{number}. " for number in range(1, 5)), "\n- "]))
    words = {word for language in LANGUAGES for word in values(language)}
    # An added token like "león" holds nothing but symbols that stand for bytes: it would be read back as those bytes.
    alphabet = set(pre_tokenizers.ByteLevel.alphabet())
    merged = sorted(word for word in words if set(word) <= alphabet and not word.isascii())
    words -= set(merged)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIALS) - len(sentences) - len(words),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    made.train_from_iterator(chain(everything(), (f"{word} {word}" for word in merged for _ in range(OFTEN))), trainer)
    made.add_special_tokens([AddedToken(special, special=True, normalized=False) for special in SPECIALS])
    made.add_tokens([AddedToken(sentence, special=False, normalized=False) for sentence in sentences])
    made.add_tokens(
        [AddedToken(word, special=False, normalized=False, single_word=_stands_alone(word)) for word in sorted(words)]
    )
    made.add_tokens([AddedToken(capitals(word), special=False, normalized=False) for word in sorted(values("en"))])
    return made


def _stands_alone(word: str) -> bool:
    """Whether a word is written between blanks, without endings: so in the museum's languages in Latin script.

    Elsewhere particles may follow at once. "cat" shall not be found in "category".
    """
    return unicodedata.name(word[0]).startswith("LATIN")


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
    yield from (
        '{"explanation":"',
        '","answer":',
        '.","answer":',
        *STATED.values(),
        ": 1 ",
        *(f", {number} " for number in range(2, 5)),
    )
