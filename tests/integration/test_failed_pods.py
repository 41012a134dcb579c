"""Why a pod failed, read from a real Kubernetes API server; the test writes what a kubelet would have written."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from integration.control_plane import ControlPlane
from kfp_graphs import container, reported, workflow
from kfp_server import Pipelines, serving

from m4rag.deploy.cluster import Cluster
from m4rag.errors import Unavailable
from pipelines.failed_pods import explain

RULES = [
    {"group": "", "resources": ["pods", "events"], "verbs": ["list"]},
    {"group": "", "resources": ["pods/log"], "verbs": ["get"]},
]


def write_pod(
    plane: ControlPlane, namespace: str, name: str, run: str, node: str, status: dict[str, Any], machine: str = ""
) -> None:
    pods = f"/api/v1/namespaces/{namespace}/pods"
    pod = {
        "metadata": {
            "name": name,
            "labels": {"pipeline/runid": run},
            "annotations": {"workflows.argoproj.io/node-id": node},
        },
        "spec": {"nodeName": machine, "containers": [{"name": "main", "image": "example.org/m4rag"}]},
    }
    plane.request("POST", pods, pod)
    kind = "application/merge-patch+json"
    plane.request("PATCH", f"{pods}/{name}/status", {"status": status}, kind=kind)


def write_event(plane: ControlPlane, namespace: str, pod: str, kind: str, reason: str, message: str) -> None:
    event = {
        "metadata": {"generateName": pod},
        "involvedObject": {"kind": "Pod", "name": pod, "namespace": namespace},
        "type": kind,
        "reason": reason,
        "message": message,
        "count": 3,
        "lastTimestamp": "2026-11-22T10:00:00Z",
    }
    plane.request("POST", f"/api/v1/namespaces/{namespace}/events", event)


def ended(reason: str, code: int) -> dict[str, Any]:
    state = {"terminated": {"exitCode": code, "reason": reason}}
    one = {"name": "main", "image": "i", "imageID": "i", "ready": False, "restartCount": 0, "state": state}
    return {"phase": "Failed", "containerStatuses": [one]}


@pytest.fixture
def cluster(control_plane: ControlPlane, namespace: str) -> Cluster:
    control_plane.grant(namespace, "audit", RULES)
    return Cluster.connect(control_plane.kubeconfig("audit", namespace))


def test_the_pod_of_the_node_is_found_and_explained(
    control_plane: ControlPlane, namespace: str, cluster: Cluster
) -> None:
    write_pod(control_plane, namespace, "wf-impl-1", "run-1", "wf-1", ended("Error", 1))
    write_pod(control_plane, namespace, "wf-impl-2", "run-1", "wf-2", ended("OOMKilled", 137))
    write_event(control_plane, namespace, "wf-impl-2", "Normal", "Pulled", "image is there")
    write_event(control_plane, namespace, "wf-impl-2", "Warning", "FailedMount", "no volume\n\x1b[31mcorpus")
    assert explain(cluster, "run-1", "wf-2") == [
        "pod wf-impl-2",
        "container main ended with 137: OOMKilled",
        "event, 3 x: FailedMount: no volume \ufffd[31mcorpus",
    ]


@pytest.fixture
def kubelet(control_plane: ControlPlane, tmp_path: Path) -> Iterator[str]:
    """A node whose kubelet answers for logs: the API server asks it over TLS, as it asks a real one."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kubelet")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now - timedelta(days=1))
    certificate = builder.not_valid_after(now + timedelta(days=1)).sign(key, hashes.SHA256())
    formats = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = tmp_path / "kubelet.pem"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(*formats))

    class Logs(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            lines = [f"step {number}" for number in range(100)] + ["m4rag.errors.BadData: line 7: no text\x1b[2J"]
            tail = int(self.path.partition("tailLines=")[2].partition("&")[0])
            self.send_response(200)
            self.end_headers()
            self.wfile.write("\n".join(lines[-tail:]).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Logs)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    node = "machine"
    control_plane.request("POST", "/api/v1/nodes", {"metadata": {"name": node}})
    status = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": server.server_port}},
    }
    merge = "application/merge-patch+json"
    control_plane.request("PATCH", f"/api/v1/nodes/{node}/status", {"status": status}, kind=merge)
    yield node
    control_plane.request("DELETE", f"/api/v1/nodes/{node}")
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_last_log_lines_are_there_and_can_not_write_to_the_terminal(
    control_plane: ControlPlane, namespace: str, cluster: Cluster, kubelet: str
) -> None:
    write_pod(control_plane, namespace, "wf-impl-1", "run-1", "wf-1", ended("Error", 4), kubelet)
    lines = explain(cluster, "run-1", "wf-1")
    assert lines[1] == "container main ended with 4: Error"
    assert lines[2:] == [
        *(f"log: step {number}" for number in range(86, 100)),
        "log: m4rag.errors.BadData: line 7: no text\ufffd[2J",
    ]


def test_a_pod_that_waits_says_for_what(control_plane: ControlPlane, namespace: str, cluster: Cluster) -> None:
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}
    one = {"name": "main", "image": "i", "imageID": "", "ready": False, "restartCount": 0, "state": waiting}
    write_pod(control_plane, namespace, "wf-impl-1", "run-1", "wf-1", {"containerStatuses": [one]})
    assert "container main waits: ImagePullBackOff: Back-off pulling image" in explain(cluster, "run-1", "wf-1")


def test_a_pod_that_is_gone(cluster: Cluster, namespace: str) -> None:
    assert explain(cluster, "run-1", "wf-1") == [f"its pod is not in namespace {namespace} of {cluster.url}"]


def test_an_account_that_may_not_look_is_told_what_it_lacks(control_plane: ControlPlane, namespace: str) -> None:
    with pytest.raises(Unavailable, match="may not list pods"):
        explain(Cluster.connect(control_plane.kubeconfig("nobody", namespace)), "run-1", "wf-1")


def test_launch_prints_it(
    control_plane: ControlPlane,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    from m4rag.cli import main

    graph = workflow(container("ingest-corpus", "FAILED", 1), state="FAILED")
    write_pod(control_plane, namespace, "wf-impl-9", "run-1", "ingest-corpus-pod", ended("OOMKilled", 137))
    control_plane.grant(namespace, "audit", RULES)
    monkeypatch.setenv("KUBECONFIG", str(control_plane.kubeconfig("audit", namespace)))
    with serving(Pipelines(script=[{"state": "FAILED", "tasks": reported(graph)}])) as server:
        arguments = ["launch", "build_index", "--host", server.url, "--namespace", namespace]
        monkeypatch.setattr("sys.argv", ["m4rag", "pipeline", *arguments])
        with pytest.raises(SystemExit) as done:
            main()
    assert done.value.code == 1
    lines = capfd.readouterr().err.splitlines()
    assert "ingest-corpus: pod wf-impl-9" in lines
    assert "ingest-corpus: container main ended with 137: OOMKilled" in lines
    assert lines[-1].startswith("error: run run-1: ingest-corpus failed. See ")
