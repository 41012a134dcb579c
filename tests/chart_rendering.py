"""The chart as Helm renders it: the real engine (helm-python-sdk), no text matching."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parent.parent
CHART = REPOSITORY / "charts" / "m4rag"
DIGEST = "@sha256:" + "1" * 64

Object = dict[str, Any]


def values_file(name: str) -> Object:
    """One of the values files beside the chart."""
    found: Object = yaml.safe_load((CHART / f"values-{name}.yaml").read_text(encoding="utf-8"))
    return found


def merged(*parts: Mapping[str, Any]) -> Object:
    """Values on top of values, as several `-f` are."""
    result: Object = {}
    for part in parts:
        for key, value in part.items():
            both = isinstance(value, Mapping) and isinstance(result.get(key), dict)
            result[key] = merged(result[key], value) if both else value
    return result


PINNED: Object = {
    "images": {
        "endpoint": f"registry.example/m4rag-endpoint{DIGEST}",
        "component": f"registry.example/m4rag-python{DIGEST}",
        "vllm": f"registry.example/vllm{DIGEST}",
    },
    "connections": {"vlmUrl": "http://vlm.example/v1"},
}
"""The least that the chart asks for."""


def model(**fields: Any) -> Object:
    """An entry of `models` for tests."""
    return {"name": "vlm", "model": "qwen2-5-vl-7b", "uri": f"oci://registry.example/vlm{DIGEST}"} | fields


EVERYTHING: Object = PINNED | {
    "connections": {"judgeUrl": "http://judge.example/v1"},
    "models": [
        model(scaling={"by": "keda"}, replicas=2, queue="gpus"),
        model(
            name="large",
            model="qwen2-5-vl-72b",
            kind="LLMInferenceService",
            replicas=2,
            scaling={"by": "hpa"},
            localCache={"enabled": True, "nodeGroups": ["h100"]},
        ),
        model(name="embedder", model="netra-embed", arguments=["--seed=1"], timeoutSeconds=60),
    ],
    "rag": {"policy": '{"retrieve": "always"}'},
    "route": {"hostnames": ["rag.example"]},
    "externalSecret": {"enabled": True},
    "serviceAccounts": {"pipelineRunner": {"create": True}},
    "networkPolicies": {
        "modelStorageCidrs": ["192.0.2.0/24"],
        "endpointPeers": [{"ipBlock": {"cidr": "198.51.100.7/32"}}],
    },
    "monitoring": {"monitors": True, "rules": True, "dashboard": True, "labels": {"release": "prometheus"}},
}
"""Every object that the chart can make."""

PROFILES: dict[str, Object] = {
    "default": PINNED,
    "dev": values_file("dev"),
    "h100": values_file("h100"),
    "everything": EVERYTHING,
}


def render(values: Mapping[str, Any], namespace: str = "m4rag", chart: Path = CHART) -> list[Object]:
    """All objects of a release called `m4rag`.

    Raises:
        helm_python.HelmError: The values break the schema, or a template refuses them.
    """
    import helm_python

    with helm_python.Chart.load(str(chart)) as loaded:
        files = loaded.render(dict(values), name="m4rag", namespace=namespace)
    objects = [
        one for path, text in sorted(files.items()) if path.endswith(".yaml") for one in yaml.safe_load_all(text)
    ]
    return [one for one in objects if one]


@cache
def profile(name: str) -> tuple[Object, ...]:
    """The objects of one of `PROFILES`."""
    return tuple(render(PROFILES[name]))


def of_kind(objects: tuple[Object, ...] | list[Object], *kinds: str) -> list[Object]:
    """Those of a kind."""
    return [one for one in objects if one["kind"] in kinds]


def named(objects: tuple[Object, ...] | list[Object], kind: str, name: str) -> Object:
    """The one of that kind and name."""
    return next(one for one in of_kind(objects, kind) if one["metadata"]["name"] == name)
