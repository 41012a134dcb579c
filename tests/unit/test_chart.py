"""The chart as a user meets it: what it refuses, what it says, what it documents."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import helm_python
import pytest
import yaml
from chart_rendering import CHART, PINNED, PROFILES, REPOSITORY, merged, model, named, of_kind, profile, render
from golden_files import check

Object = dict[str, Any]
DEFAULTS: Object = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
SCHEMA: Object = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", PROFILES)
def test_lint(name: str) -> None:
    report = helm_python.lint(str(CHART), PROFILES[name], strict=True, namespace="m4rag")
    warnings = [one for one in report["messages"] if one["severity"] > 1]
    assert (report["errors"], warnings) == ([], [])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rag": {"replcas": 3}}, "replcas"),
        ({"netwrokPolicies": {"enabled": False}}, "netwrokPolicies"),
        ({"models": [model(replica=2)]}, "replica"),
        ({"models": [{"name": "vlm"}]}, "missing properties"),
        ({"models": [model(kind="InferenceServices")]}, "kind"),
        ({"models": [model(name="Vlm_1")]}, "name"),
        ({"models": [model(name="v" * 46)]}, "name"),
        ({"models": [model(uri="Qwen/Qwen2.5-VL-7B-Instruct")]}, "uri"),
        ({"models": [model(arguments=['--limit-mm-per-prompt={"image":4}'])]}, "arguments"),
        ({"models": [model(scaling={"by": "vpa"})]}, "scaling"),
        ({"connections": {"vlmUrl": "http://vlm"}}, "vlmUrl"),
        ({"connections": {"milvusUri": "milvus:19530"}}, "milvusUri"),
        ({"rag": {"replicas": 0}}, "replicas"),
        ({"rag": {"resources": {"limits": {"cpu": "two"}}}}, "cpu"),
        ({"externalSecret": {"keys": {"MILVUS_TOKN": "x"}}}, "MILVUS_TOKN"),
        ({"reaper": {"schedule": "hourly"}}, "schedule"),
        ({"networkPolicies": {"modelStorageCidrs": ["example.org"]}}, "modelStorageCidrs"),
        ({"kserve": {"version": "0.19"}}, "version"),
    ],
)
def test_a_mistyped_value_is_refused_by_name(values: Object, message: str) -> None:
    with pytest.raises(helm_python.HelmError, match=message):
        render(merged(PINNED, values))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"images": {"endpoint": ""}}, "images.endpoint names no image"),
        ({"images": {"component": "ghcr.io/m4rag/m4rag-python:0.1.0"}}, "has no digest"),
        ({"models": [model(model="qwen2-vl-7b")]}, 'no model "qwen2-vl-7b"; choose of gemma-3-12b'),
        ({"models": [model(hardware="a100")]}, 'no hardware profile "a100"; choose of cpu'),
        ({"models": [model(hardware="h100x4")]}, "runs on 1 GPUs, and h100x4 has 4"),
        ({"models": [model(uri="hf://Qwen/Qwen2.5-VL-7B-Instruct:main")]}, "names no commit or digest"),
        ({"models": [model(uri="oci://registry.example/vlm:v1")]}, "names no commit or digest"),
        ({"models": [model(), model()]}, "vlm is there twice"),
        ({"models": [model(replicas=5, scaling={"by": "keda"})]}, "maxReplicas 4 is below replicas 5"),
        ({"models": [model(localCache={"enabled": True})]}, "names no nodeGroups"),
        (
            {"models": [model(kind="LLMInferenceService")], "connections": {"vlmUrl": ""}},
            "connections.vlmUrl is empty",
        ),
        ({"connections": {"vlmUrl": ""}}, "nothing that answers"),
        ({"rag": {"policy": "{}", "policyConfigMap": "mine"}}, "take one"),
        ({"rag": {"replicas": 9}}, "maxReplicas 8 is below rag.replicas 9"),
        ({"rag": {"readTimeoutSeconds": 900}}, "the gateway would cut answers"),
    ],
)
def test_values_that_contradict_each_other_are_refused(values: Object, message: str) -> None:
    with pytest.raises(helm_python.HelmError, match=message):
        render(merged(PINNED, values))


def test_without_a_digest_only_in_development() -> None:
    tagged = PINNED | {
        "images": {"endpoint": "x/endpoint:1", "component": "x/steps:1", "vllm": "x/vllm:v1", "allowTag": True}
    }
    assert of_kind(render(tagged), "Deployment")


def test_every_value_is_documented_and_every_schema_entry_is_a_value() -> None:
    documented = {value.path for value in _readme().values((CHART / "values.yaml").read_text(encoding="utf-8"))}
    undocumented = [
        path for path in _leaves(DEFAULTS) if not any(path == one or path.startswith(f"{one}.") for one in documented)
    ]
    assert not undocumented
    allowed = {path for path in _schema_leaves(SCHEMA) if path != "global"}
    assert {path for path in _leaves(DEFAULTS) if _typed(path, allowed)} == set(_leaves(DEFAULTS))
    assert not {path for path in allowed if not _present(path)}, "the schema knows a value that has no default"


def test_golden_readme() -> None:
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    check(_readme().readme(text), CHART / "README.md")


def test_accounts_get_the_rights_of_the_table_and_no_other() -> None:
    objects = profile("everything")
    table = yaml.safe_load((REPOSITORY / "m4rag" / "deploy" / "permissions.yaml").read_text(encoding="utf-8"))
    names = {
        "pipeline-runner": "pipeline-runner",
        "reaper": "m4rag-reaper",
        "rag-endpoint": "m4rag-rag-endpoint",
        "audit": "m4rag-audit",
    }
    assert table.keys() == names.keys()
    granted = {}
    for binding in of_kind(objects, "RoleBinding"):
        (subject,) = binding["subjects"]
        role = named(objects, "Role", binding["roleRef"]["name"])
        granted[subject["name"]] = role["rules"]
    asked = {
        names[account]: [
            {"apiGroups": [rule["group"]], "resources": rule["resources"], "verbs": rule["verbs"]} for rule in rules
        ]
        for account, rules in table.items()
        if rules
    }
    assert granted == asked
    assert not of_kind(objects, "ClusterRole", "ClusterRoleBinding")


def test_a_policy_is_mounted_and_a_missing_one_turns_retrieval_off() -> None:
    def variables(values: Object) -> dict[str, str]:
        (container,) = named(render(merged(PINNED, values)), "Deployment", "rag-endpoint")["spec"]["template"]["spec"][
            "containers"
        ]
        return {entry["name"]: entry.get("value", "") for entry in container["env"]}

    assert variables({})["M4RAG_SERVE_RETRIEVAL"] == "off"
    for given in ({"policy": '{"retrieve": "never"}'}, {"policyConfigMap": "mine"}):
        found = variables({"rag": given})
        assert (found["M4RAG_SERVE_RETRIEVAL"], found["M4RAG_SERVE_POLICY"]) == ("policy", "/etc/m4rag/policy.json")
    objects = render(merged(PINNED, {"rag": {"policy": '{"retrieve": "never"}'}}))
    assert named(objects, "ConfigMap", "m4rag-policy")["data"]["policy.json"] == '{"retrieve": "never"}'


def test_new_addresses_restart_the_endpoint_and_other_values_do_not() -> None:
    def template(values: Object) -> Object:
        found: Object = named(render(merged(PINNED, values)), "Deployment", "rag-endpoint")["spec"]["template"]
        return found

    assert template({}) != template({"connections": {"milvusUri": "http://elsewhere:19530"}})
    assert template({}) == template({"reaper": {"schedule": "0 * * * *"}})


def test_a_new_version_of_the_chart_restarts_no_pod(tmp_path: Path) -> None:
    """KServe copies an InferenceService's labels to its pods: a version among them would restart every GPU."""
    newer = tmp_path / "m4rag"
    shutil.copytree(CHART, newer)
    description = yaml.safe_load((newer / "Chart.yaml").read_text(encoding="utf-8"))
    (newer / "Chart.yaml").write_text(yaml.safe_dump(description | {"version": "0.2.0", "appVersion": "0.2.0"}))

    def what_pods_are_made_from(objects: Iterable[Object]) -> list[Any]:
        kserve = of_kind(list(objects), "ServingRuntime", "InferenceService", "LLMInferenceService")
        return [*kserve, [one["spec"]["template"] for one in of_kind(list(objects), "Deployment")]]

    old, new = profile("everything"), render(PROFILES["everything"], chart=newer)
    assert list(old) != new
    assert what_pods_are_made_from(old) == what_pods_are_made_from(new)


def _readme() -> ModuleType:
    spec = importlib.util.spec_from_file_location("chart_readme", REPOSITORY / "hack" / "chart_readme.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _leaves(values: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}"


def _schema_leaves(schema: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for key, part in schema["properties"].items():
        if "properties" in part:
            yield from _schema_leaves(part, f"{path}{key}.")
        else:
            yield f"{path}{key}"


def _typed(path: str, allowed: set[str]) -> bool:
    """Whether the schema has the value, or a map that holds it."""
    return any(path == one or path.startswith(f"{one}.") for one in allowed)


def _present(path: str) -> bool:
    value: Any = DEFAULTS
    for part in path.split("."):
        if not isinstance(value, dict) or part not in value:
            return False
        value = value[part]
    return True


def test_the_stack_is_the_chart_with_milvus_and_mlflow_beside_it(tmp_path: Path) -> None:
    """Their charts cannot be had without a network: what is tested is ours, and that theirs are off until asked for."""
    stack = tmp_path / "m4rag-stack"
    shutil.copytree(CHART.parent / "m4rag-stack", stack)
    shutil.copytree(CHART, stack / "charts" / "m4rag")
    needed = {one["name"]: one["status"] for one in helm_python.dependency_list(str(stack))}
    assert needed == {"m4rag": "unpacked", "milvus": "missing", "mlflow": "missing"}
    assert render({"m4rag": PINNED}, chart=stack) == render(PINNED)
    with pytest.raises(helm_python.HelmError, match="replcas"):
        render({"m4rag": merged(PINNED, {"rag": {"replcas": 3}})}, chart=stack)


def test_the_notes_say_what_was_installed_and_what_is_missing() -> None:
    with helm_python.Chart.load(str(CHART)) as chart:
        notes = {
            name: chart.render(PROFILES[name], name="m4rag", namespace="m4rag")["m4rag/templates/NOTES.txt"]
            for name in ("h100", "everything")
        }
    assert "vlm: qwen2-5-vl-7b as InferenceService, 2 to 8 replica(s) of 1 GPU(s)" in notes["h100"]
    assert "vlm-large: qwen2-5-vl-72b as InferenceService, 1 replica(s) of 4 GPU(s)" in notes["h100"]
    assert "never retrieves" in notes["h100"]
    assert "never retrieves" not in notes["everything"]
