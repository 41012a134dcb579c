"""See a service and its pods as they are, and wait until that changes: two watches that begin where a list ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from m4rag.deploy.cluster import EVENT, INFERENCE_SERVICE, POD, Cluster, Expired, Kind, Watching
from m4rag.deploy.diagnosis import current_pods, workload
from m4rag.deploy.pods import is_ready, name_of, wanted_logs
from m4rag.deploy.refusals import Denied
from m4rag.errors import M4ragError, Unavailable

Object = dict[str, Any]

OUTAGE_S = 300.0
PAUSE_S = 1.0


@dataclass(frozen=True)
class Sight:
    """What there is to see of a service at one moment.

    Attributes:
        service: The service, None if there is none.
        pods: Its pods, those of older specs included.
        events: Events about its pods, and about replica sets that get none.
        logs: Last log lines by pod and container, of those that are not well.
    """

    service: Object | None
    pods: tuple[Object, ...]
    events: tuple[Object, ...] = ()
    logs: Mapping[tuple[str, str], str] = field(default_factory=dict)


def pods_of(kind: Kind, name: str) -> str:
    """Label selector of the pods that serve a service's model."""
    if kind.name == INFERENCE_SERVICE.name:
        return f"serving.kserve.io/inferenceservice={name}"
    return f"app.kubernetes.io/name={name},app.kubernetes.io/part-of=llminferenceservice,kserve.io/component=workload"


def explained(cluster: Cluster, service: Object | None, pods: Sequence[Object]) -> Sight:
    """The sight with the events and logs that explain what is not well; nothing is asked about what is."""
    if service is None:
        return Sight(None, tuple(pods))
    current = current_pods(service, pods)
    troubled = [pod for pod in current if not is_ready(pod)]
    events = [
        event
        for pod in troubled
        for event in cluster.list(EVENT, fields=f"involvedObject.kind=Pod,involvedObject.name={name_of(pod)}").items
    ]
    if not current:
        refused = cluster.list(EVENT, fields="involvedObject.kind=ReplicaSet,reason=FailedCreate").items
        events += [one for one in refused if one["involvedObject"]["name"].startswith(workload(service))]
    logs = {
        (pod, container): cluster.log(pod, container, previous=previous)
        for pod, container, previous in wanted_logs(troubled)
    }
    return Sight(service, tuple(pods), tuple(events), logs)


@contextmanager
def observed(cluster: Cluster, kind: Kind, name: str) -> Iterator[Observer]:
    """Watch a service and its pods for the time of the block.

    Raises:
        Unavailable: The account may not, or the server is gone.
    """
    changed = threading.Condition()
    mirrors = (
        _Mirror(cluster, kind, changed, fields=f"metadata.name={name}"),
        _Mirror(cluster, POD, changed, labels=pods_of(kind, name)),
    )
    try:
        for mirror in mirrors:
            mirror.start()
        yield Observer(cluster, changed, *mirrors)
    finally:
        for mirror in mirrors:
            mirror.stop()


class Observer:
    """A service under watch, see `observed`."""

    def __init__(self, cluster: Cluster, changed: threading.Condition, service: _Mirror, pods: _Mirror) -> None:
        self._cluster = cluster
        self._changed = changed
        self._service = service
        self._pods = pods
        self._seen = -1

    def look(self) -> Sight:
        """The service and its pods now, with what explains those that are not well.

        Raises:
            Unavailable: A watch was refused, or the server has been gone for five minutes.
        """
        with self._changed:
            self._seen = self._version()
            service, pods = self._service.objects(), self._pods.objects()
        return explained(self._cluster, service[0] if service else None, pods)

    def wait(self, seconds: float) -> None:
        """Return when something has changed since the last look, at the latest after so many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._version() != self._seen, timeout=seconds)

    def _version(self) -> int:
        return self._service.changes + self._pods.changes


class _Mirror:
    """A selection of objects, kept current by a thread that watches. `changes` counts up with every change."""

    def __init__(
        self, cluster: Cluster, kind: Kind, changed: threading.Condition, *, labels: str = "", fields: str = ""
    ) -> None:
        self.changes = 0
        self._cluster = cluster
        self._kind = kind
        self._changed = changed
        self._labels = labels
        self._fields = fields
        self._objects: dict[str, Object] = {}
        self._version = ""
        self._trouble: M4ragError | None = None
        self._watching: Watching | None = None
        self._stopped = threading.Event()

    def start(self) -> None:
        """List, in this thread so that a refusal is raised here, then watch in another."""
        self._list()
        self._open()
        threading.Thread(target=self._follow, daemon=True).start()

    def stop(self) -> None:
        """End the watch."""
        self._stopped.set()
        if self._watching is not None:
            self._watching.close()

    def objects(self) -> list[Object]:
        """The objects now; hold the condition.

        Raises:
            M4ragError: What stopped the watch for good.
        """
        if self._trouble is not None:
            raise self._trouble
        return list(self._objects.values())

    def _list(self) -> None:
        listed = self._cluster.list(self._kind, labels=self._labels, fields=self._fields)
        with self._changed:
            self._objects = {name_of(thing): thing for thing in listed.items}
            self._version = listed.resource_version
            self._notify()

    def _open(self) -> Watching:
        self._watching = self._cluster.watch(self._kind, self._version, labels=self._labels, fields=self._fields)
        return self._watching

    def _follow(self) -> None:
        """Watch until stopped. A version that is too old means to list again; an outage is survived for a while."""
        well = time.monotonic()
        watching = self._watching
        while not self._stopped.is_set():
            try:
                for change in watching or self._open():
                    self._take(change.what, change.object)
                well = time.monotonic()
            except Expired:
                self._relist(well)
            except Unavailable as trouble:
                if isinstance(trouble, Denied) or time.monotonic() - well > OUTAGE_S:
                    self._give_up(trouble)
                    return
                self._relist(well)
            watching = None
            self._stopped.wait(PAUSE_S)

    def _relist(self, well: float) -> None:
        try:
            self._list()
        except Unavailable as trouble:
            if isinstance(trouble, Denied) or time.monotonic() - well > OUTAGE_S:
                self._give_up(trouble)
                self._stopped.set()

    def _take(self, what: str, thing: Object) -> None:
        with self._changed:
            self._version = str(thing["metadata"]["resourceVersion"])
            if what == "BOOKMARK":
                return
            if what == "DELETED":
                self._objects.pop(name_of(thing), None)
            else:
                self._objects[name_of(thing)] = thing
            self._notify()

    def _give_up(self, trouble: M4ragError) -> None:
        with self._changed:
            self._trouble = trouble
            self._notify()

    def _notify(self) -> None:
        self.changes += 1
        self._changed.notify_all()
