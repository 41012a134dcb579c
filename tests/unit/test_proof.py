"""A deployed model serves only if it is listed under its name and answers about a picture, or embeds one."""

from __future__ import annotations

import pytest
from content_server import model_server

from m4rag.deploy.proof import PROMPT, prove
from m4rag.errors import BadData, CheckFailed, Unavailable


def test_it_is_asked_by_its_name_about_a_picture() -> None:
    asked: list[dict[str, object]] = []

    def say(body: dict[str, object]) -> str:
        asked.append(body)
        return "Red."

    with model_server(say, "publishers/ns/models/qwen", "qwen") as url:
        proof = prove(url, "qwen", "generate")
    assert (proof.model, proof.answer, proof.max_model_len) == ("qwen", "Red.", 4096)
    (body,) = asked
    assert body["model"] == "qwen"
    image, text = body["messages"][0]["content"]  # type: ignore[index]
    assert image["image_url"]["url"].startswith("data:image/png;base64,")
    assert text["text"] == PROMPT


def test_another_name_is_no_proof() -> None:
    with model_server(lambda body: "Red.", "other") as url:
        with pytest.raises(Unavailable, match="does not serve 'qwen', only other"):
            prove(url, "qwen", "generate")
        with pytest.raises(Unavailable, match="does not serve 'qwen', only other"):
            prove(url, "qwen", "embed")


def test_an_empty_answer_is_no_proof() -> None:
    with (
        model_server(lambda body: " ", "qwen") as url,
        pytest.raises(CheckFailed, match="says nothing about a picture"),
    ):
        prove(url, "qwen", "generate")


def test_a_refused_picture_is_no_proof() -> None:
    with model_server(lambda body: None, "qwen") as url, pytest.raises(BadData, match="I refuse this one"):
        prove(url, "qwen", "generate")


def test_the_length_of_vectors_is_checked() -> None:
    with model_server(lambda body: None, "netra") as url:
        proof = prove(url, "netra", "embed", dimension=4)
        assert (proof.dimension, proof.answer) == (4, None)
        with pytest.raises(CheckFailed, match="vectors of 4 numbers, not 1024"):
            prove(url, "netra", "embed", dimension=1024)
