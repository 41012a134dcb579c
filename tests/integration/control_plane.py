"""A real Kubernetes API server for tests: etcd and kube-apiserver on loopback, KServe's CRDs installed, RBAC on.

There is no kubelet, scheduler, controller or garbage collector: a test plays them by writing pods, events and statuses.

The binaries come from the folder that KUBEBUILDER_ASSETS names (the layout of Kubernetes' envtest: `etcd` and
`kube-apiserver` in one folder), else from `.control-plane/bin` in the repository.
"""

from __future__ import annotations

import gzip
import json
import os
import ssl
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from milvus_fixtures import free_port

REPOSITORY = Path(__file__).resolve().parents[2]
CRDS = REPOSITORY / "tests" / "fixtures" / "kserve_crds"
START_TIMEOUT_S = 120.0

ACCOUNTS = ("pipeline-runner", "reaper", "rag-endpoint", "audit", "nobody")
"""Service accounts of the namespace `m4rag` that the server knows, without any rights until a test grants them."""

Object = dict[str, Any]


@dataclass(frozen=True)
class ControlPlane:
    """A running server.

    Attributes:
        url: Its address.
        folder: Certificates, kubeconfigs, logs.
    """

    url: str
    folder: Path

    @property
    def authority(self) -> Path:
        """The certificate that the server's own is checked against."""
        return self.folder / "certs" / "apiserver.crt"

    def kubeconfig(self, account: str, namespace: str) -> Path:
        """A kubeconfig file for `admin` or one of `ACCOUNTS`, in that namespace."""
        path = self.folder / f"{account}-{namespace}.kubeconfig"
        cluster = {"server": self.url, "certificate-authority": str(self.authority)}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": account, "user": {"token": _token(account)}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": account, "namespace": namespace}}],
            "current-context": "test",
        }
        path.write_text(json.dumps(config))
        return path

    def request(self, method: str, path: str, body: Object | None = None, *, kind: str = "application/json") -> Object:
        """One request as the administrator; an answer of 400 or more is an `urllib.error.HTTPError`."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {_token('admin')}", "Content-Type": kind}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        context = ssl.create_default_context(cafile=str(self.authority))
        try:
            with urllib.request.urlopen(request, context=context, timeout=30) as answer:
                found: Object = json.loads(answer.read())
        except urllib.error.HTTPError as error:
            error.add_note(error.read().decode(errors="replace"))
            raise
        return found

    def grant(self, namespace: str, account: str, rules: Sequence[Mapping[str, Any]], *, cluster: bool = False) -> None:
        """Give an account exactly these rules (`group`, `resources`, `verbs`) in a namespace or the whole cluster."""
        base = "/apis/rbac.authorization.k8s.io/v1"
        base = base if cluster else f"{base}/namespaces/{namespace}"
        role, binding = ("ClusterRole", "clusterrolebindings") if cluster else ("Role", "rolebindings")
        name = f"{account}-{namespace}"
        written = [
            {"apiGroups": [rule["group"]], "resources": list(rule["resources"]), "verbs": list(rule["verbs"])}
            for rule in rules
            if rule["verbs"]  # a rule must have one
        ]
        apply = "application/apply-patch+yaml"
        granted = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": role, "metadata": {"name": name}}
        url = f"{base}/{role.lower()}s/{name}?fieldManager=test&force=true"
        self.request("PATCH", url, granted | {"rules": written}, kind=apply)
        bound = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": f"{role}Binding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role, "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": "m4rag"}],
        }
        self.request("PATCH", f"{base}/{binding}/{name}?fieldManager=test&force=true", bound, kind=apply)


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A server for the whole session; tests take a `namespace` of their own."""
    named = os.environ.get("KUBEBUILDER_ASSETS")
    binaries = Path(named) if named else REPOSITORY / ".control-plane" / "bin"
    if absent := [name for name in ("etcd", "kube-apiserver") if not (binaries / name).exists()]:
        pytest.skip(f"no {' and no '.join(absent)} in {binaries}: set KUBEBUILDER_ASSETS to envtest's folder")
    with serve(binaries, tmp_path_factory.mktemp("control-plane")) as server:
        yield server


@pytest.fixture
def namespace(control_plane: ControlPlane) -> str:
    """An empty namespace that no other test uses."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    control_plane.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    return name


@contextmanager
def serve(binaries: Path, folder: Path) -> Iterator[ControlPlane]:
    """Start etcd and kube-apiserver, install the CRDs, and stop both in the end."""
    etcd_port, peer_port, port = free_port(), free_port(), free_port()
    etcd = f"http://127.0.0.1:{etcd_port}"
    _write_credentials(folder)
    commands = {
        "etcd": [
            *("--data-dir", str(folder / "etcd")),
            *("--listen-client-urls", etcd, "--advertise-client-urls", etcd),
            *("--listen-peer-urls", f"http://127.0.0.1:{peer_port}"),
        ],
        "kube-apiserver": [
            *("--etcd-servers", etcd, "--cert-dir", str(folder / "certs")),
            *("--bind-address", "127.0.0.1", "--advertise-address", "127.0.0.1", "--secure-port", str(port)),
            *("--endpoint-reconciler-type", "none", "--service-cluster-ip-range", "10.0.0.0/24"),
            *("--service-account-issuer", "https://kubernetes.default.svc"),
            *("--service-account-key-file", str(folder / "accounts.key")),
            *("--service-account-signing-key-file", str(folder / "accounts.key")),
            *("--token-auth-file", str(folder / "tokens.csv"), "--authorization-mode", "RBAC"),
            # Nobody makes the tokens that this plugin wants to mount into pods.
            *("--disable-admission-plugins", "ServiceAccount"),
        ],
    }
    running = []
    try:
        for name, arguments in commands.items():
            with (folder / f"{name}.log").open("wb") as log:
                command = [str(binaries / name), *arguments]
                running.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
        server = ControlPlane(f"https://127.0.0.1:{port}", folder)
        _wait_until_ready(server, running)
        _install_crds(server)
        server.request("POST", "/api/v1/namespaces", {"metadata": {"name": "m4rag"}})
        yield server
    finally:
        for process in reversed(running):
            process.terminate()
        for process in running:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _token(account: str) -> str:
    return f"{account}-token"


def _write_credentials(folder: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    (folder / "accounts.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )
    lines = [f'{_token("admin")},admin,admin,"system:masters"']
    for account in ACCOUNTS:
        name = f"system:serviceaccount:m4rag:{account}"
        lines.append(f'{_token(account)},{name},{account},"system:serviceaccounts,system:serviceaccounts:m4rag"')
    (folder / "tokens.csv").write_text("\n".join(lines) + "\n")


def _wait_until_ready(server: ControlPlane, running: Sequence[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and all(process.poll() is None for process in running):
        try:
            # Ready means that the roles of the system are there as well.
            server.request("GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:basic-user")
        except (OSError, ValueError):  # no certificate, no listener, not ready
            time.sleep(0.1)
        else:
            return
    log = (server.folder / "kube-apiserver.log").read_text(errors="replace")
    raise RuntimeError(f"the control plane did not start: see {server.folder}\n{log[-2000:]}")


def _install_crds(server: ControlPlane) -> None:
    crds = [json.loads(gzip.decompress(path.read_bytes())) for path in sorted(CRDS.glob("*.json.gz"), key=_turn)]
    assert crds, f"no CRDs in {CRDS}"
    for crd in crds:
        server.request("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd)
    deadline = time.monotonic() + START_TIMEOUT_S
    for crd in crds:
        spec = crd["spec"]
        version = next(version["name"] for version in spec["versions"] if version["served"])
        path = f"/apis/{spec['group']}/{version}/{spec['names']['plural']}"
        while True:
            try:
                server.request("GET", path)
                break
            except urllib.error.HTTPError:
                assert time.monotonic() < deadline, f"{path} is not served"
                time.sleep(0.1)


def _turn(path: Path) -> tuple[bool, str]:
    """Those that are deployed first: a server takes seconds to describe each (/openapi/v2), one after the other."""
    first = ("servingruntimes", "inferenceservices", "llminferenceservices")
    return not path.name.removeprefix("serving.kserve.io_").startswith(tuple(f"{one}.json" for one in first)), path.name
