"""Plays KServe, the kubelet and the garbage collector on a server that has none of them.

For each service of a namespace: a pod with the annotations that KServe would copy to it, which runs, then is ready;
pods of an older spec go; then the service says Ready and where it is. A service that is deleted (foreground) goes after
its pods.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from integration.control_plane import ControlPlane

from m4rag.deploy.cluster import SERVICES, Kind
from m4rag.deploy.names import SPEC
from m4rag.deploy.observation import pods_of

Object = dict[str, Any]

MERGE = "application/merge-patch+json"
EVERY_S = 0.1


@contextmanager
def playing(server: ControlPlane, namespace: str, url: str) -> Iterator[Player]:
    """Play for the time of the block; every service is reachable at `url` (without `/v1`)."""
    player = Player(server, namespace, url)
    thread = threading.Thread(target=player.run, daemon=True)
    thread.start()
    try:
        yield player
    finally:
        player.stop.set()
        thread.join(30)
    assert player.trouble is None, player.trouble


class Player:
    """The controller of a namespace. `pods` counts the pods it made; `hold` keeps new ones from getting ready."""

    def __init__(self, server: ControlPlane, namespace: str, url: str) -> None:
        self.pods = 0
        self.hold = threading.Event()
        self.stop = threading.Event()
        self.trouble: Exception | None = None
        self._server = server
        self._namespace = namespace
        self._url = url

    def run(self) -> None:
        """Until stopped."""
        while not self.stop.wait(EVERY_S):
            try:
                for kind in SERVICES:
                    for service in self._items(f"{kind.root}/namespaces/{self._namespace}/{kind.plural}"):
                        # A service may go between the list and here.
                        with contextlib.suppress(urllib.error.HTTPError):
                            self._reconcile(kind, service)
            except Exception as error:
                self.trouble = error
                return

    def _items(self, path: str) -> list[Object]:
        items: list[Object] = self._server.request("GET", path)["items"]
        return items

    def _reconcile(self, kind: Kind, service: Object) -> None:
        name = service["metadata"]["name"]
        path = f"{kind.root}/namespaces/{self._namespace}/{kind.plural}/{name}"
        pods = f"/api/v1/namespaces/{self._namespace}/pods"
        selector = pods_of(kind, name)
        found = self._items(f"{pods}?labelSelector={selector.replace('=', '%3D').replace(',', '%2C')}")
        if "deletionTimestamp" in service["metadata"]:
            for pod in found:
                self._server.request("DELETE", f"{pods}/{pod['metadata']['name']}", {"gracePeriodSeconds": 0})
            if not found:
                self._server.request("PATCH", path, {"metadata": {"finalizers": []}}, kind=MERGE)
            return
        spec = service["spec"]
        annotations = spec.get("predictor", spec).get("annotations") or {}
        suffix = "predictor" if kind is SERVICES[0] else "kserve"
        wanted = f"{name}-{suffix}-{hashlib.sha256(json.dumps(annotations).encode()).hexdigest()[:8]}"
        current = next((pod for pod in found if pod["metadata"]["name"] == wanted), None)
        if current is None:
            self._create(wanted, dict(part.split("=") for part in selector.split(",")), annotations)
            return
        if not self.hold.is_set() and not _ready(current):
            self._server.request("PATCH", f"{pods}/{wanted}/status", {"status": _status(ready=True)}, kind=MERGE)
        elif _ready(current):
            for pod in found:
                if pod is not current:
                    self._server.request("DELETE", f"{pods}/{pod['metadata']['name']}", {"gracePeriodSeconds": 0})
            if not _ready(service):
                status = {"conditions": [{"type": "Ready", "status": "True"}], "address": {"url": self._url}}
                if kind is not SERVICES[0]:
                    status = {"conditions": status["conditions"], "url": self._url}
                self._server.request("PATCH", f"{path}/status", {"status": status}, kind=MERGE)

    def _create(self, name: str, labels: dict[str, str], annotations: dict[str, str]) -> None:
        pods = f"/api/v1/namespaces/{self._namespace}/pods"
        containers = [{"name": "kserve-container", "image": "registry.example/vllm"}]
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": labels, "annotations": {SPEC: "none", **annotations}},
            "spec": {"containers": containers},
        }
        self._server.request("POST", pods, body)
        self._server.request("PATCH", f"{pods}/{name}/status", {"status": _status(ready=False)}, kind=MERGE)
        self.pods += 1


def _ready(thing: Object) -> bool:
    conditions = (thing.get("status") or {}).get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _status(*, ready: bool) -> Object:
    started = {"running": {"startedAt": "2026-11-22T00:00:00Z"}}
    container = {"name": "kserve-container", "image": "registry.example/vllm", "imageID": f"vllm@sha256:{'0' * 64}"}
    return {
        "phase": "Running",
        "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": str(ready)}],
        "containerStatuses": [{**container, "ready": ready, "started": ready, "restartCount": 0, "state": started}],
    }
