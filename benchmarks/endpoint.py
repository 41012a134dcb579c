"""What the endpoint costs: in front of a model that takes 20 ms, beside asking it directly and the barest of proxies.

    python benchmarks/endpoint.py [--seconds 4] [--repeats 3] [--json]

Every server is a process of its own; the load comes from this one. CPU is that of the server's process (user and
system, /proc). Rounds are interleaved, so that what else the machine does meets all alike; the table shows medians.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from endpoint_load import load

HERE = Path(__file__).resolve().parent
LATENCY_MS = 20
CONNECTIONS = (1, 32, 128)
ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+/v1")
START_S = 120.0
TICK = os.sysconf("SC_CLK_TCK")


@contextmanager
def server(*command: str, **environment: str) -> Iterator[tuple[str, int]]:
    """Base URL and process of a server that prints its address."""
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=said,
            env={**os.environ, **environment},
        )
        try:
            deadline = time.monotonic() + START_S
            while time.monotonic() < deadline and process.poll() is None:
                said.seek(0)
                if found := ADDRESS.search(said.read()):
                    yield found[0], process.pid
                    return
                time.sleep(0.05)
            said.seek(0)
            raise SystemExit(f"{command} did not start: {said.read()}")
        finally:
            process.terminate()
            process.wait(30)


def cpu_s(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / TICK


def measured(url: str, pid: int, body: bytes, connections: int, seconds: float) -> dict[str, float]:
    before = cpu_s(pid)
    made = load(url, body, connections, seconds)
    if made.failed:
        raise SystemExit(f"{made.failed} of {len(made.whole)} answers were no 200")
    return {
        "p50_ms": 1000 * statistics.median(made.whole),
        "first_byte_ms": 1000 * statistics.median(made.first),
        "requests_per_s": len(made.whole) / made.seconds,
        "cpu_ms": 1000 * (cpu_s(pid) - before) / len(made.whole),
    }


def main(
    seconds: Annotated[float, typer.Option(help="Seconds of each load.")] = 4.0,
    repeats: Annotated[int, typer.Option(help="Rounds; medians are shown.")] = 3,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    rounds: defaultdict[tuple[str, str, int], list[dict[str, float]]] = defaultdict(list)
    with ExitStack() as stack:
        url, pid = stack.enter_context(server(str(HERE / "mock_server.py"), "--latency-ms", str(LATENCY_MS)))
        serve = ("-m", "m4rag.cli", "serve", "--port", "0", "--retrieval", "off", "--vlm-url", url)
        servers = {
            "direct": (url, pid),
            "bare proxy": stack.enter_context(server(str(HERE / "endpoint_peer.py"), url)),
            "m4rag serve": stack.enter_context(server(*serve)),
        }
        for _ in range(repeats):
            for kind in ("json", "stream"):
                fields: dict[str, Any] = {"messages": [{"role": "user", "content": "Which dish is this? " * 10}]}
                fields |= {"stream": True} if kind == "stream" else {}
                body = json.dumps(fields, separators=(",", ":")).encode()
                for connections in CONNECTIONS:
                    for name, (address, process) in servers.items():
                        rounds[kind, name, connections].append(measured(address, process, body, connections, seconds))
    table = [
        {"kind": kind, "server": name, "connections": connections}
        | {measure: round(statistics.median(each[measure] for each in found), 3) for measure in found[0]}
        for (kind, name, connections), found in rounds.items()
    ]
    if as_json:
        print(json.dumps({"latency_ms": LATENCY_MS, "load": os.getloadavg()[0], "rows": table}, indent=2))
        return
    print(f"{'':7}{'':12}{'at once':>8}{'p50 ms':>9}{'first ms':>9}{'req/s':>9}{'CPU ms':>8}")
    for row in table:
        print(
            f"{row['kind']:7}{row['server']:12}{row['connections']:8}{row['p50_ms']:9.2f}{row['first_byte_ms']:9.2f}"
            f"{row['requests_per_s']:9.0f}{row['cpu_ms']:8.3f}"
        )


if __name__ == "__main__":
    typer.run(main)
