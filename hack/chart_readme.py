#!/usr/bin/env python3
"""Prints charts/m4rag/README.md: the head below and a table of every value, from the comments of values.yaml."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CHART = Path(__file__).resolve().parent.parent / "charts" / "m4rag"

HEAD = """\
<!-- Made by hack/chart_readme.py from values.yaml: make golden. -->
# m4rag

Models on vLLM behind KServe, the RAG endpoint that asks them, and what runs around both: rights, network policies,
scaling, budgets, alerts, a dashboard, the reaper.

    kubectl create namespace m4rag
    kubectl label namespace m4rag pod-security.kubernetes.io/enforce=restricted
    helm install m4rag charts/m4rag --namespace m4rag --values my-values.yaml

`values-dev.yaml` (a small model on CPU), `values-h100.yaml` and `values-pipelines.yaml` (only what pipelines need) are
places to start from. One release a namespace: names are fixed, because pipelines read the ConfigMap `m4rag`.

Kubernetes 1.31 to 1.34 and KServe 0.20 or newer in Standard mode, with Gateway API. What is switched on needs its
operator: `scaling.by: keda` KEDA, `monitoring` the Prometheus Operator, `externalSecret` External Secrets, `queue`
Kueue, `localCache` KServe's local model controller. Nothing is guessed from the cluster: what is not switched on is not
made.

Milvus and MLflow are installed by charts of their own; name them under `connections`. `charts/m4rag-stack` has all
three as one release, for which `helm dependency update` needs their repositories.

A mistyped value is refused by values.schema.json. An image or model without a digest is refused, too, unless
`images.allowTag` is set.

| value | default | what it is |
|---|---|---|
"""

KEY = re.compile(r"(?P<indent> *)(?P<key>[A-Za-z_./0-9-]+):(?: +(?P<value>.*))?$")


@dataclass(frozen=True)
class Value:
    """A value that a user can set: its path, its default as it is written, its comment."""

    path: str
    default: str
    comment: str


def values(text: str) -> Iterator[Value]:
    """The values of a values.yaml in its order: every key with a comment above it.

    A mapping without a comment of its own on each key below (labels) is a value as a whole.
    """
    parents: list[str] = []
    comment: list[str] = []
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            if not line.startswith("#  "):
                comment.append(line.lstrip().removeprefix("#").strip())
            continue
        match = KEY.match(line)
        if match is None:
            comment = []
            continue
        depth = len(match["indent"]) // 2
        parents = [*parents[:depth], match["key"]]
        if comment:
            yield Value(".".join(parents), match["value"] or "", " ".join(comment))
        comment = []


def readme(text: str) -> str:
    """The README of a values.yaml."""
    rows = []
    for value in values(text):
        default = f"`{value.default}`" if value.default else ""
        rows.append(f"| `{value.path}` | {default} | {value.comment.replace('|', chr(92) + '|')} |")
    return HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.stdout.write(readme((CHART / "values.yaml").read_text(encoding="utf-8")))
