"""The chart serves models exactly as `m4rag deploy vlm` does."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from chart_rendering import CHART, DIGEST, PINNED, REPOSITORY, merged, model, render

from m4rag.deploy import catalog, vlm_service
from m4rag.deploy.crd import CRDFields
from m4rag.deploy.names import MANAGED_BY, MODEL, SPEC

MODELS = sorted(catalog.catalog().models)
KINDS = ("InferenceService", "LLMInferenceService")
ACCOUNT = "m4rag-models"
SERVED = ("ServingRuntime", *KINDS)


def by_code(name: str, kind: vlm_service.Profile, version: str = "0.21", **fields: Any) -> list[dict[str, Any]]:
    """What the code renders."""
    entry = catalog.model(name)
    given: dict[str, Any] = {
        "name": "vlm",
        "namespace": "m4rag",
        "model": entry,
        "uri": f"oci://registry.example/vlm{DIGEST}",
        "hardware": catalog.hardware(entry.hardware),
        "image": f"registry.example/vllm{DIGEST}",
        "profile": kind,
        "service_account": ACCOUNT,
    }
    newer = version == "0.21"
    cluster = CRDFields(
        inference_service=True, llm_version="v1alpha2", llm_rollout_strategy=newer, llm_scaling_keda=newer
    )
    return list(vlm_service.render(vlm_service.VLMService(**given | fields), cluster))


def by_chart(name: str, kind: str, version: str = "0.21", **fields: Any) -> list[dict[str, Any]]:
    """What the chart renders."""
    values = PINNED | {
        "models": [model(model=name, kind=kind, **fields)],
        "connections": {"vlmUrl": "http://gateway/v1", "embeddingUrl": "http://gateway/v1"},
        "kserve": {"version": version},
    }
    return [one for one in render(values) if one["kind"] in SERVED]


def comparable(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without what differs by who deploys: Helm's labels, the namespace, how the hash is computed."""
    objects = copy.deepcopy(objects)
    hashes = set()
    for one in objects:
        metadata = one["metadata"]
        metadata.pop("namespace", None)
        metadata["labels"] = {MODEL: metadata["labels"][MODEL]}
        one["spec"].get("labels", {}).pop(MANAGED_BY, None)
        copied = one["spec"].get("predictor", one["spec"])
        for holder in [metadata["annotations"], *([] if one["kind"] == "ServingRuntime" else [copied["annotations"]])]:
            hashes.add(holder.pop(SPEC))
    assert len(hashes) == 1, "runtime, service and pods carry one hash"
    return sorted(objects, key=lambda one: one["kind"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MODELS)
def test_chart_and_code_render_the_same(name: str, kind: vlm_service.Profile) -> None:
    assert comparable(by_chart(name, kind)) == comparable(by_code(name, kind))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("values", "fields"),
    [
        ({"replicas": 3, "rollout": "replace"}, {"replicas": 3, "rollout": "replace"}),
        ({"timeoutSeconds": 120}, {"timeout_s": 120}),
        ({"scaling": {"by": "keda"}}, {"replicas": None}),
        ({"scaling": {"by": "hpa"}}, {"replicas": None}),
        ({"hardware": "cpu"}, {"hardware": catalog.hardware("cpu")}),
        ({"uri": f"hf://Qwen/x:{'a' * 40}"}, {"uri": f"hf://Qwen/x:{'a' * 40}"}),
    ],
)
def test_settings_mean_the_same(kind: vlm_service.Profile, values: dict[str, Any], fields: dict[str, Any]) -> None:
    name = "qwen2-5-vl-3b"
    assert comparable(by_chart(name, kind, **values)) == comparable(by_code(name, kind, **fields))


def test_an_older_kserve_is_not_asked_for_what_it_lacks() -> None:
    chart, code = (make("qwen2-5-vl-7b", KINDS[1], version="0.20") for make in (by_chart, by_code))
    assert comparable(chart) == comparable(code)
    assert "rolloutStrategy" not in chart[0]["spec"]


def test_an_argument_of_the_values_replaces_that_of_the_table() -> None:
    plain, changed = (
        by_chart("qwen2-5-vl-7b", KINDS[0], arguments=given)
        for given in ([], ["--max-num-seqs=7", "--seed=1", "--enforce-eager"])
    )
    before, after = (objects[0]["spec"]["containers"][0]["args"] for objects in (plain, changed))
    assert [one for one in before if "max-num-seqs" in one] == ["--max-num-seqs=128"]
    assert [one for one in after if "max-num-seqs" in one] == ["--max-num-seqs=7"]
    assert after[-2:] == ["--seed=1", "--enforce-eager"]
    assert len(after) == len(before) + 2
    hashes = [objects[0]["metadata"]["annotations"][SPEC] for objects in (plain, changed)]
    assert hashes[0] != hashes[1], "the pods of the two can be told apart"


def test_weights_of_another_address_are_another_cache() -> None:
    """KServe refuses to change a cache's address."""
    kept = {"enabled": True, "nodeGroups": ["h100"], "size": "40Gi"}
    names = []
    for uri in (f"oci://registry.example/vlm{DIGEST}", f"oci://registry.example/other{DIGEST}"):
        objects = render(PINNED | {"models": [model(uri=uri, localCache=kept)]})
        (cache,) = (one for one in objects if one["kind"] == "LocalModelNamespaceCache")
        assert cache["spec"] == {"sourceModelUri": uri, "modelSize": "40Gi", "nodeGroups": ["h100"]}
        names.append(cache["metadata"]["name"])
    assert names[0] != names[1]


def test_lists_of_an_argument_are_appended_to() -> None:
    objects = by_chart("qwen2-5-vl-7b", KINDS[0], arguments=["--hf-overrides.architectures+=Mine"])
    assert objects[0]["spec"]["containers"][0]["args"][-1] == "--hf-overrides.architectures+=Mine"


@pytest.mark.parametrize("name", ["models.yaml", "hardware.yaml", "permissions.yaml"])
def test_golden_tables(name: str) -> None:
    from golden_files import check

    check((REPOSITORY / "m4rag" / "deploy" / name).read_text(encoding="utf-8"), CHART / "files" / name)


def test_merged_is_what_helm_does() -> None:
    import helm_python

    given = {"rag": {"replicas": 5, "resources": {"limits": {"memory": "3Gi"}}}}
    with helm_python.Chart.load(str(CHART)) as chart:
        assert chart.merge_values(given)["rag"] == merged(chart.values, given)["rag"]
