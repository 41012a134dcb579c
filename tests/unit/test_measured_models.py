"""The models of a benchmark are checked together, before the first one takes a GPU."""

from __future__ import annotations

from typing import Any

import pytest

from m4rag.deploy.catalog import hardware, model
from m4rag.deploy.measured import Placement, Wanted, _moved, placed, serve
from m4rag.errors import UsageError
from m4rag.settings import Settings

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "qwen2-5-vl-7b"
URI = f"{model(NAME).uri}:{COMMIT}"


def test_each_model_goes_where_its_hardware_profile_says() -> None:
    one, other = placed(
        [{"model": NAME, "uri": URI}, {"model": "qwen2-5-vl-3b", "uri": URI, "hardware": "cpu", "replicas": 2.0}]
    )
    assert one["node_selector"] == hardware(model(NAME).hardware).node_selector
    assert one["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert (other["node_selector"], other["tolerations"], other["wanted"]["replicas"]) == ({}, [], 2)


def test_no_model_is_the_one_that_is_there() -> None:
    assert placed([]) == [{"wanted": {}, "node_selector": {}, "tolerations": []}]
    settings = Settings(vlm_url="http://vlm/v1")
    assert serve({}, "run", settings, lambda _: None, placement=Placement()).url == "http://vlm/v1"
    with pytest.raises(UsageError, match="no model to measure"):
        serve({}, "run", Settings(vlm_url=None), lambda _: None, placement=Placement())


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ([{"model": "gpt"}], "parameter uri: Field required"),
        ([{"model": "gpt", "uri": URI}], "no model 'gpt'"),
        ([{"model": NAME, "uri": "hf://Qwen/Qwen2.5-VL-7B-Instruct:main"}], "names no commit"),
        ([{"model": NAME, "uri": URI, "hardware": "a100"}], "no hardware profile 'a100'"),
        ([{"model": NAME, "uri": URI, "gpus": 2}], "parameter gpus"),
        ([{"model": NAME, "uri": URI, "replicas": 1.5}], "parameter replicas"),
        ([{"model": "netra-embed", "uri": URI}], "makes vectors and answers no questions"),
        ([{"model": NAME, "uri": URI}, {"model": NAME, "uri": URI}], f"{NAME} is named twice"),
    ],
)
def test_a_model_that_can_not_be_deployed_is_refused(models: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        placed(models)


def test_without_an_image_by_digest_nothing_is_applied() -> None:
    with pytest.raises(UsageError, match=r"no image of vLLM.*M4RAG_VLLM_IMAGE"):
        serve({"model": NAME, "uri": URI}, "run", Settings(vllm_image=None), lambda _: None, placement=Placement())


def test_a_site_moves_the_pods_and_keeps_the_rest_of_the_profile() -> None:
    profile = hardware("h100x1")
    there = _moved(profile, Placement({"pool": "research"}, None))
    assert there == profile.model_copy(update={"node_selector": {"pool": "research"}})
    taints = [{"key": "gpu", "operator": "Equal", "value": "yes", "effect": "NoSchedule"}]
    assert [one.key for one in _moved(profile, Placement(None, taints)).tolerations] == ["gpu"]


def test_two_runs_of_a_model_have_two_names() -> None:
    wanted = Wanted(NAME, URI)
    assert wanted.name("run-1") != wanted.name("run-2")
