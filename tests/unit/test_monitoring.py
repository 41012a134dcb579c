"""Alerts and the dashboard: queries that parse, over metrics that exist, and a page of the runbook for each alert."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
from chart_rendering import CHART, EVERYTHING, PINNED, REPOSITORY, merged, named, of_kind, profile, render

VLLM = {
    "num_requests_running",
    "num_requests_waiting",
    "kv_cache_usage_perc",
    "time_to_first_token_seconds",
    "inter_token_latency_seconds",
    "request_queue_time_seconds",
    "prefix_cache_hits_total",
    "prefix_cache_queries_total",
    "mm_cache_hits_total",
    "mm_cache_queries_total",
    "num_preemptions_total",
    "admission_rejections_total",
    "request_success_total",
}
"""Metrics of vLLM that alerts, the dashboard and scaling may use."""

ENDPOINT = {
    "m4rag_requests_total",
    "m4rag_stage_seconds",
    "m4rag_first_byte_seconds",
    "m4rag_in_flight",
    "m4rag_decisions_total",
    "m4rag_policy_loads_total",
}
"""Metrics of the RAG endpoint."""

CLUSTER = {
    "kube_deployment_status_replicas_unavailable",
    "kube_deployment_status_replicas_available",
    "kube_horizontalpodautoscaler_status_current_replicas",
    "kube_horizontalpodautoscaler_spec_max_replicas",
    "kube_job_status_failed",
}
"""Metrics of kube-state-metrics."""

KNOWN = {f"vllm:{name}" for name in VLLM} | ENDPOINT | CLUSTER
HISTOGRAM_PARTS = re.compile(r"_(bucket|sum|count)$")

RUNBOOK = (REPOSITORY / "docs" / "runbook.md").read_text(encoding="utf-8")
DASHBOARD: dict[str, Any] = json.loads((CHART / "files" / "dashboard.json").read_text(encoding="utf-8"))


def rules() -> list[dict[str, Any]]:
    rule = named(profile("everything"), "PrometheusRule", "m4rag")
    return [one for group in rule["spec"]["groups"] for one in group["rules"]]


def queries() -> Iterator[tuple[str, str]]:
    """Where it stands, and the query."""
    for rule in rules():
        yield rule["alert"], rule["expr"]
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"].replace("$namespace", "m4rag")
    for scaler in of_kind(profile("everything"), "ScaledObject"):
        for trigger in scaler["spec"]["triggers"]:
            yield scaler["metadata"]["name"], trigger["metadata"]["query"]


def selectors(expression: Any) -> Iterator[Any]:
    """Every choice of series in a parsed query."""
    match expression:
        case promql_parser.VectorSelector():
            yield expression
        case promql_parser.MatrixSelector():
            yield expression.vector_selector
        case promql_parser.BinaryExpr():
            yield from selectors(expression.lhs)
            yield from selectors(expression.rhs)
        case promql_parser.Call():
            for argument in expression.args:
                yield from selectors(argument)
        case promql_parser.AggregateExpr() | promql_parser.ParenExpr() | promql_parser.UnaryExpr():
            yield from selectors(expression.expr)
        case promql_parser.NumberLiteral() | promql_parser.StringLiteral():
            return
        case _:
            raise AssertionError(f"no case for {type(expression)}")


@pytest.mark.parametrize(("where", "query"), list(queries()), ids=lambda text: text[:40])
def test_a_query_parses_and_asks_this_namespace_for_metrics_that_exist(where: str, query: str) -> None:
    found = list(selectors(promql_parser.parse(query)))
    assert found, where
    for selector in found:
        assert HISTOGRAM_PARTS.sub("", selector.name) in KNOWN, f"{where}: {selector.name}"
        matchers = {one.name: one.value for one in selector.matchers.matchers}
        assert matchers.get("namespace") == "m4rag", f"{where}: {selector.name}"


def test_the_metrics_are_those_of_the_installed_vllm() -> None:
    """Read, not imported: importing vLLM takes seconds. Counters get `_total` from the Prometheus client."""
    found = importlib.util.find_spec("vllm")
    assert found is not None
    assert found.submodule_search_locations is not None
    (folder,) = found.submodule_search_locations
    source = (Path(folder) / "v1" / "metrics" / "loggers.py").read_text(encoding="utf-8")
    assert [name for name in sorted(VLLM) if f'"vllm:{name.removesuffix("_total")}"' not in source] == []


def test_histograms_are_aggregated_over_their_buckets() -> None:
    for where, query in queries():
        if "histogram_quantile" in query:
            assert re.search(r"by \(le\b", query), where


def test_a_scaler_gets_one_value() -> None:
    """KEDA refuses a query that gives a series for each pod."""
    for scaler in of_kind(profile("everything"), "ScaledObject"):
        parsed = promql_parser.parse(scaler["spec"]["triggers"][0]["metadata"]["query"])
        assert {type(parsed.lhs), type(parsed.rhs)} == {promql_parser.AggregateExpr}


def test_every_alert_has_its_page_and_every_page_its_alert() -> None:
    titles = re.findall(r"^## (\w+)$", RUNBOOK, re.MULTILINE)
    assert sorted(titles) == sorted(rule["alert"] for rule in rules())
    for section in re.split(r"^## ", RUNBOOK, flags=re.MULTILINE)[1:]:
        assert re.findall(r"^\*\*([\w ]+):\*\*", section, re.MULTILINE) == ["Means", "Look at", "Do"], section[:30]
    for rule in rules():
        assert rule["annotations"]["runbook_url"].endswith(f"/runbook.md#{rule['alert'].lower()}")
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["annotations"]["summary"]
    for anchor in re.findall(r"\]\(#(\w+)\)", RUNBOOK):
        assert anchor in {title.lower() for title in titles}


def test_alerts_go_with_what_is_installed() -> None:
    values = merged(PINNED, {"rag": {"enabled": False}, "reaper": {"enabled": False}, "monitoring": {"rules": True}})
    assert not [rule for one in of_kind(render(values), "PrometheusRule") for rule in one["spec"]["groups"] or []]
    models_only = merged(EVERYTHING, {"rag": {"enabled": False}})
    groups = of_kind(render(models_only), "PrometheusRule")[0]["spec"]["groups"]
    assert [group["name"] for group in groups] == ["m4rag-models", "m4rag-workloads"]


def test_the_dashboard_is_whole() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    assert len(places) == len(set(places))
    for panel in DASHBOARD["panels"]:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
            assert panel["targets"], panel["title"]
    variables = {one["name"] for one in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD["panels"])))
    assert used == variables
    shown = named(profile("everything"), "ConfigMap", "m4rag-dashboard")
    assert json.loads(shown["data"]["m4rag.json"]) == DASHBOARD
    assert shown["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_every_metric_of_the_models_is_on_the_dashboard() -> None:
    shown = json.dumps(DASHBOARD["panels"])
    assert [name for name in sorted(VLLM | ENDPOINT) if name not in shown] == []
