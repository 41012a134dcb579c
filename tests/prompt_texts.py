"""What the tests of prompts are made from: passages, and text that tries to be more than data."""

from __future__ import annotations

from pathlib import Path

from hypothesis import strategies as st

GOLDEN = Path(__file__).parent / "golden" / "prompts"

PASSAGES = [
    "Jollof rice is cooked in one pot with tomatoes.\n\nIt is eaten across West Africa.",
    "జొల్లాఫ్ రైస్ పశ్చిమ ఆఫ్రికా వంటకం.",
]

ATTACKS = st.lists(
    st.one_of(
        st.sampled_from(
            ["### Options", "###", "#", "＃＃", "\n", "\r", "\x85", "\u2029", "- ", "1. ", "> ", " ", "\u200b"]
        ),
        st.sampled_from(["<image>", "<|im_end|>", "</s>", "[INST]", "x", "1"]),
        st.text(max_size=5),
    ),
    max_size=14,
).map("".join)
