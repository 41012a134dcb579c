"""KServe's published schemas (tests/fixtures/kserve_crds), and whether an object fits one as a strict server asks."""

from __future__ import annotations

import gzip
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

FOLDER = Path(__file__).resolve().parent / "fixtures" / "kserve_crds"


@lru_cache(maxsize=1)
def crds() -> tuple[dict[str, Any], ...]:
    found = tuple(json.loads(gzip.decompress(path.read_bytes())) for path in sorted(FOLDER.glob("*.json.gz")))
    assert found, f"no CRDs in {FOLDER}"
    return found


def problems(body: dict[str, Any]) -> list[str]:
    """What a server with strict validation would refuse: wrong values, and fields that the schema does not have."""
    schema = _schema(body["apiVersion"], body["kind"])
    wrong = [f"{error.json_path}: {error.message}" for error in Draft202012Validator(schema).iter_errors(body)]
    return wrong + list(_unknown(body["spec"], schema["properties"]["spec"], "spec"))


@lru_cache(maxsize=16)
def _schema(version: str, kind: str) -> dict[str, Any]:
    group, _, name = version.partition("/")
    for crd in crds():
        if crd["spec"]["group"] == group and crd["spec"]["names"]["kind"] == kind:
            for one in crd["spec"]["versions"]:
                if one["name"] == name and one["served"]:
                    return _int_or_string(one["schema"]["openAPIV3Schema"])
    raise AssertionError(f"no schema of {version} {kind}")


def _int_or_string(schema: Any) -> Any:
    """JSON Schema does not know Kubernetes' int-or-string; here it is a type of two."""
    if isinstance(schema, list):
        return [_int_or_string(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    return {key: _int_or_string(part) for key, part in schema.items()}


def _unknown(value: Any, schema: dict[str, Any], path: str) -> list[str]:
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return []
    if isinstance(value, list):
        return [each for i, one in enumerate(value) for each in _unknown(one, schema["items"], f"{path}[{i}]")]
    if not isinstance(value, dict):
        return []
    known, rest = schema.get("properties", {}), schema.get("additionalProperties")
    found = []
    for name, one in value.items():
        if name in known:
            found += _unknown(one, known[name], f"{path}.{name}")
        elif isinstance(rest, dict):
            found += _unknown(one, rest, f"{path}.{name}")
        elif rest is not True:
            found.append(f"{path}.{name}: unknown field")
    return found
