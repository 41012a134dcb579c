"""Vectors are cut, then made unit length; encoders are found by name or refused with what there is."""

from __future__ import annotations

import numpy as np
import pytest

from m4rag.encoders import Query, load
from m4rag.encoders import loading as loading_module
from m4rag.encoders.base import text_only, unit_vectors
from m4rag.errors import BadData, Unavailable, UsageError
from m4rag.settings import Settings

RAW = np.array([[3.0, 4.0, 12.0], [0.6, -0.8, 0.0]])


def test_vectors_are_sliced_first_and_normalised_after() -> None:
    np.testing.assert_allclose(unit_vectors(RAW, 2, "e"), [[0.6, 0.8], [0.6, -0.8]], atol=1e-7)
    np.testing.assert_allclose(unit_vectors(RAW, None, "e")[0], np.array([3, 4, 12]) / 13, atol=1e-7)
    assert unit_vectors(RAW, 2, "e").dtype == np.float32


@pytest.mark.parametrize("dim", [4, 0, -1])
def test_more_dimensions_than_there_are_are_refused(dim: int) -> None:
    with pytest.raises(UsageError, match=f"{dim} dimensions of an encoder that has 3"):
        unit_vectors(RAW, dim, "e")


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ([np.nan, 1.0, 1.0], "not finite"),
        ([np.inf, 1.0, 1.0], "not finite"),
        ([0.0, 0.0, 0.0], "zero"),
        ([0.0, 0.0, 5.0], "zero"),
    ],
)
def test_a_vector_without_a_direction_is_refused(row: list[float], problem: str) -> None:
    with pytest.raises(BadData, match=f"vector 2 of 3 is {problem}"):
        unit_vectors(np.vstack([RAW, row]), 2, "e")


def test_an_unknown_encoder_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"unknown encoder 'bge'\. Known: minilm .*st:.*vllm:"):
        load("bge", Settings())


def test_an_endpoint_without_an_address_is_refused() -> None:
    with pytest.raises(UsageError, match="M4RAG_EMBEDDING_URL"):
        load("vllm", Settings(embedding_url=None))


def test_a_folder_that_is_no_model_is_refused(tmp_path: object) -> None:
    with pytest.raises(UsageError, match=r"no modules\.json"):
        load(f"st:{tmp_path}", Settings())


def test_a_missing_package_names_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading_module, "MINILM_PACKAGE", "a_package_that_is_not_installed")
    with pytest.raises(Unavailable, match=r"pip install 'm4rag\[local\]'"):
        load("minilm", Settings())


def test_an_image_is_never_left_out_silently() -> None:
    assert text_only([Query("a"), Query("")], "e") == ["a", ""]
    with pytest.raises(UsageError, match=r"picture\.png: encoder e reads text only"):
        text_only([Query("a", image="picture.png")], "e")
