"""`m4rag pipeline launch|status|cancel` against a server that speaks the REST API of Kubeflow Pipelines."""

from __future__ import annotations

import base64
import json
import os
import pty
import re
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp_graphs import container, reported, workflow
from kfp_server import Pipelines, error, page, serving

from m4rag.cli import main
from m4rag.errors import CheckFailed, UsageError
from pipelines.compiled import compile_to
from pipelines.ir import read
from pipelines.launch import PATIENCE_S, follow
from pipelines.manifests import write_manifests
from pipelines.server import IN_CLUSTER_HOST, Access, Server, Unsure, access

REPOSITORY = Path(__file__).resolve().parents[2]
HEALTH = ("GET", "/apis/v2beta1/healthz")
RUNS = ("POST", "/apis/v2beta1/runs")
UPLOADS = ("POST", "/apis/v2beta1/pipelines/upload_version")
FIRST = ("GET", "/apis/v2beta1/runs/run-1")


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line that says what went wrong."""
        (line,) = [line for line in self.err.splitlines() if line.startswith("error: ")]
        return line

    @property
    def json(self) -> Any:
        return json.loads(self.out)


M4rag = Callable[..., Done]


@pytest.fixture
def server() -> Iterator[Pipelines]:
    with serving(Pipelines()) as pipelines:
        yield pipelines


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment that names no server, no token and no cluster."""
    for name in list(os.environ):
        if name.startswith(("KF_PIPELINES", "KUBE", "M4RAG_", "MLFLOW")) and name != "M4RAG_IMAGE":
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def m4rag(server: Pipelines, home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> M4rag:
    """The command line, in this process; KF_PIPELINES_ENDPOINT names the server."""
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", server.url)

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["m4rag", "pipeline", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        output = capfd.readouterr()
        code = ended.value.code
        return Done(code if isinstance(code, int) else 0, output.out, output.err)

    return run


def state(name: str, *parts: Any, **fields: Any) -> dict[str, Any]:
    """What a run reports at one moment."""
    return {"state": name, "tasks": reported(workflow(*parts, state=name)) if parts else [], **fields}


def token(expires: datetime) -> str:
    """A JSON web token; nobody checks the signature."""
    claims = base64.urlsafe_b64encode(json.dumps({"exp": expires.timestamp()}).encode()).decode().rstrip("=")
    return f"e30.{claims}.c2lnbmVk"


# A run that goes well


def test_a_run_is_submitted_and_followed_to_its_end(m4rag: M4rag, server: Pipelines) -> None:
    server.script = [
        state("PENDING"),
        state("RUNNING", container("ingest-corpus", "RUNNING", 1)),
        state(
            "RUNNING",
            container("ingest-corpus", "SUCCEEDED", 1, pod="SKIPPED"),
            container("build-index", "RUNNING", 2),
        ),
        state(
            "SUCCEEDED",
            container("ingest-corpus", "SUCCEEDED", 1, pod="SKIPPED"),
            container("build-index", "SUCCEEDED", 2, attempts=("FAILED", "SUCCEEDED")),
        ),
    ]
    done = m4rag("launch", "build_index", "-p", "corpus=foods", "--json")
    version = done.json["version"]
    assert done.code == 0
    assert re.fullmatch(r"m4rag-build-index-[0-9a-f]{12}", version)
    assert done.err.splitlines() == [
        f"version {version}: uploaded",
        f"run run-1: {server.url}/#/runs/details/run-1",
        "ingest-corpus: running",
        "ingest-corpus: succeeded, from the cache",
        "build-index: running",
        "build-index: succeeded, attempt 2",
    ]
    assert done.json["state"] == "SUCCEEDED"
    assert [task["task"] for task in done.json["tasks"]] == ["ingest-corpus", "build-index"]


def test_people_see_a_table_and_where_mlflow_has_the_record(m4rag: M4rag, server: Pipelines) -> None:
    entries = {"run_url": {"value": "http://mlflow/#/experiments/1/runs/2", "render_type": "URL"}}
    plugins = {"mlflow": {"entries": entries, "state": "PLUGIN_SUCCEEDED"}}
    server.script = [state("SUCCEEDED", container("build-index", "SUCCEEDED", 1), plugins_output=plugins)]
    done = m4rag("launch", "build_index", "--run-name", "nightly")
    assert done.code == 0
    assert done.out.splitlines()[1].split() == ["build-index", "succeeded"]
    assert done.out.splitlines()[2:] == ["nightly: succeeded", "MLflow: http://mlflow/#/experiments/1/runs/2"]


def test_a_record_that_mlflow_could_not_take_is_said(m4rag: M4rag, server: Pipelines) -> None:
    plugins = {"mlflow": {"entries": {}, "state": "PLUGIN_FAILED", "state_message": "endpoint not configured"}}
    server.script = [state("SUCCEEDED", plugins_output=plugins)]
    done = m4rag("launch", "build_index")
    assert (done.code, done.err.splitlines()[-1]) == (
        0,
        "MLflow has no record of this run: endpoint not configured",
    )


def test_the_run_has_typed_parameters_account_root_and_mlflow_experiment(m4rag: M4rag, server: Pipelines) -> None:
    done = m4rag(
        *("launch", "benchmark", "-p", "limit=40", "-p", 'settings=["no_rag"]', "-p", "items=7"),
        *("--experiment", "cvqa", "--service-account", "pipeline-runner", "--pipeline-root", "s3://b/p", "--no-wait"),
    )
    assert (done.code, done.out) == (0, "run-1\n")
    (run,) = [body for path, body in server.bodies if path == RUNS[1]]
    assert run["runtime_config"] == {
        "parameters": {"limit": 40, "settings": ["no_rag"], "items": "7"},
        "pipeline_root": "s3://b/p",
    }
    assert run["service_account"] == "pipeline-runner"
    assert run["plugins_input"] == {"mlflow": {"experiment_name": "cvqa"}}
    assert server.experiments[0]["display_name"] == "cvqa"
    assert server.asked(*FIRST) == 0


def test_an_experiment_that_is_there_is_used(m4rag: M4rag, server: Pipelines) -> None:
    m4rag("launch", "build_index")
    m4rag("launch", "build_index")
    assert [experiment["display_name"] for experiment in server.experiments] == ["m4rag"]
    assert {run["experiment_id"] for run in server.runs} == {"experiment-1"}


def test_the_same_content_is_uploaded_once_and_other_content_beside_it(m4rag: M4rag, server: Pipelines) -> None:
    assert "uploaded" in m4rag("launch", "build_index").err
    assert "already on the server" in m4rag("launch", "build_index", "-p", "corpus=other").err
    m4rag("launch", "benchmark")
    assert server.asked(*UPLOADS) == 2
    assert len({version["name"] for version in server.versions}) == 2
    assert len(server.pipelines) == 2


def test_what_gitops_applied_is_found_under_its_name(m4rag: M4rag, server: Pipelines, tmp_path: Path) -> None:
    written = write_manifests("build_index", tmp_path, "rag")
    pipeline, version = (yaml.safe_load(path.read_text(encoding="utf-8")) for path in written)
    ir = read(compile_to("build_index", tmp_path / "ir"))
    assert (pipeline["kind"], version["kind"]) == ("Pipeline", "PipelineVersion")
    assert pipeline["metadata"] == {"name": ir.name, "namespace": "rag"}
    assert version["metadata"] == {"name": ir.version, "namespace": "rag"}
    assert version["spec"]["pipelineName"] == ir.name
    assert (version["spec"]["pipelineSpec"], version["spec"]["platformSpec"]) == (ir.spec, ir.platform)
    # A server that keeps pipelines in Kubernetes reports these objects through the same API.
    server.pipelines.append({"pipeline_id": "uid-1", "name": ir.name, "display_name": pipeline["spec"]["displayName"]})
    server.versions.append(
        {
            "pipeline_id": "uid-1",
            "pipeline_version_id": "uid-2",
            "name": ir.version,
            "display_name": version["spec"]["displayName"],
            "pipeline_spec": {"pipeline_spec": ir.spec, "platform_spec": ir.platform},
        }
    )
    assert f"version {ir.version}: already on the server" in m4rag("launch", "build_index").err
    assert server.runs[0]["pipeline_version_reference"] == {"pipeline_id": "uid-1", "pipeline_version_id": "uid-2"}


def test_compile_writes_the_objects(m4rag: M4rag, home: Path) -> None:
    done = m4rag("compile", "--all", "--kubernetes-manifest", "gitops", "-n", "rag", "--json")
    assert done.code == 0
    kinds = [yaml.safe_load(Path(path).read_text(encoding="utf-8"))["kind"] for path in done.json["written"]]
    assert kinds == ["Pipeline", "PipelineVersion"] * (len(kinds) // 2)
    assert not (home / "compiled").exists()


# A run that does not


def test_a_failed_run_names_the_task_and_its_reason(m4rag: M4rag, server: Pipelines) -> None:
    message = "Error (exit code 4): corpus.jsonl, line 7: no text"
    server.script = [
        state("RUNNING", container("ingest-corpus", "RUNNING", 1)),
        state("FAILED", container("ingest-corpus", "FAILED", 1, message=message)),
    ]
    done = m4rag("launch", "build_index", "--json")
    assert done.code == 1
    assert f"ingest-corpus: {message}" in done.err.splitlines()
    assert done.error == (f"error: run run-1: ingest-corpus failed. See {server.url}/#/runs/details/run-1")
    assert done.json["state"] == "FAILED"


def test_a_run_that_the_server_fails_before_any_task_gives_the_servers_reason(m4rag: M4rag, server: Pipelines) -> None:
    server.script = [state("FAILED", error={"code": 13, "message": "Failed to create workflow: quota exceeded"})]
    done = m4rag("launch", "build_index")
    assert (done.code, "the run failed Failed to create workflow: quota exceeded" in done.error) == (1, True)


def test_a_cancelled_run_is_seen_and_is_no_success(m4rag: M4rag, server: Pipelines) -> None:
    server.script = [state("RUNNING"), state("CANCELING"), state("CANCELED")]
    done = m4rag("launch", "build_index")
    assert done.code == 1
    assert done.error.startswith("error: run run-1: the run was cancelled. See ")


def test_waiting_ends_after_the_time_given_and_the_run_goes_on(m4rag: M4rag, server: Pipelines) -> None:
    server.script = [state("RUNNING")]
    done = m4rag("launch", "build_index", "--timeout", "1")
    assert done.code == 1
    assert "run run-1: not over after" in done.error
    assert f"To look: m4rag pipeline status run-1 --wait --host {server.url}; to end it: " in done.error
    assert server.asked("POST", "/apis/v2beta1/runs/run-1:terminate") == 0


# Before anything is done


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("launch", "relase"), "error: no pipeline 'relase'. There are: "),
        (("launch", "build_index", "-p", "corups=x"), "error: m4rag-build-index has no parameter 'corups'. It has: "),
        (("launch", "benchmark", "-p", "limit=all"), "error: --param limit: 'all' is not a whole number"),
    ],
)
def test_what_is_wrong_with_the_command_is_said_before_the_server_is_asked(
    m4rag: M4rag, server: Pipelines, arguments: tuple[str, ...], message: str
) -> None:
    done = m4rag(*arguments)
    assert done.code == 2
    assert done.error.startswith(message)
    assert server.requests == []


def test_a_local_run_takes_the_same_parameters(m4rag: M4rag) -> None:
    done = m4rag("run-local", "build_index", "-p", "corups=x")
    assert (done.code, "has no parameter 'corups'" in done.error) == (2, True)


def test_an_old_server_gets_nothing(m4rag: M4rag, server: Pipelines) -> None:
    server.tag = "2.5.0"
    done = m4rag("launch", "build_index")
    assert done.code == 3
    assert done.error.startswith("error: server 2.5.0 is too old for m4rag-build-index: it ignores ")
    assert "security contexts (2.16.0)" in done.error
    assert "Upgrade Kubeflow Pipelines to 2.1" in done.error
    assert server.requests == [HEALTH]


def test_a_server_without_a_release_is_not_checked_and_that_is_said(m4rag: M4rag, server: Pipelines) -> None:
    server.tag = "unknown"
    done = m4rag("launch", "build_index", "--no-wait")
    assert done.code == 0
    assert done.err.splitlines()[0] == (
        "the server calls itself 'unknown': whether it knows what m4rag-build-index uses is not checked"
    )


def test_a_multi_user_server_wants_a_namespace(m4rag: M4rag, server: Pipelines) -> None:
    server.multi_user = True
    done = m4rag("launch", "build_index")
    assert (done.code, done.error) == (
        2,
        "error: this server keeps everything in namespaces. Name yours with --namespace.",
    )
    assert m4rag("launch", "build_index", "-n", "ana").code == 0
    assert (server.pipelines[0]["namespace"], server.experiments[0]["namespace"]) == ("ana", "ana")


def test_no_address_is_explained(home: Path) -> None:
    with pytest.raises(UsageError, match="which Kubeflow Pipelines server"):
        access(None, None, None, None)


def test_in_a_pod_the_cluster_is_the_server_and_its_token_is_sent(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "token").write_text("projected\n")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(home / "token"))
    assert access(None, "ana", None, None) == Access(IN_CLUSTER_HOST, IN_CLUSTER_HOST, "ana", home / "token")


def test_the_web_interface_may_be_elsewhere(m4rag: M4rag, server: Pipelines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KF_PIPELINES_UI_ENDPOINT", "https://kubeflow.example/pipeline/")
    done = m4rag("launch", "build_index", "--no-wait", "--json")
    assert done.json["url"] == "https://kubeflow.example/pipeline/#/runs/details/run-1"


# Tokens


def test_without_a_token_it_says_how_to_give_one(m4rag: M4rag, server: Pipelines) -> None:
    server.tokens = {"good"}
    done = m4rag("launch", "build_index")
    assert done.code == 3
    assert done.error.startswith(f"error: {server.url}: HTTP 401: Unauthenticated: ")
    assert done.error.endswith("Give a token with --token-file.")


def test_an_expired_token_is_called_expired_and_never_shown(m4rag: M4rag, server: Pipelines, home: Path) -> None:
    old = token(datetime(2026, 1, 2, 3, 4, tzinfo=UTC))
    (home / "token").write_text(old)
    server.tokens = {"another"}
    done = m4rag("launch", "build_index", "--token-file", "token")
    assert done.error.endswith("The token in token expired at 2026-01-02 03:04 UTC: write a new one to it.")
    assert server.headers == [f"Bearer {old}"]
    assert old not in done.err + done.out


def test_a_refused_token_that_is_not_expired_is_called_wrong(m4rag: M4rag, server: Pipelines, home: Path) -> None:
    (home / "token").write_text(token(datetime.now(UTC) + timedelta(hours=1)))
    server.tokens = {"another"}
    done = m4rag("launch", "build_index", "--token-file", "token")
    assert done.error.endswith("Write a token to token that this server takes (audience pipelines.kubeflow.org).")


def test_a_token_that_is_replaced_during_the_run_is_read_again(m4rag: M4rag, server: Pipelines, home: Path) -> None:
    (home / "token").write_text("first\n")
    server.tokens = {"first"}
    server.script = [state("RUNNING"), state("SUCCEEDED")]

    def expire() -> Any:
        server.tokens = {"second"}
        (home / "token").write_text("second\n")
        return error(401, "Unauthenticated: token expired")()

    server.replies.append(("GET", "/runs/run-1", expire))
    done = m4rag("launch", "build_index", "--token-file", "token")
    assert done.code == 0
    assert server.headers[-1] == "Bearer second"
    assert "Waiting 5 minutes for it; the run goes on." in done.err
    assert "the server answers again" in done.err.splitlines()


def test_a_message_that_quotes_the_token_is_shown_without_it(m4rag: M4rag, server: Pipelines, home: Path) -> None:
    (home / "token").write_text("s3cr3t")
    server.replies.append(("GET", "/healthz", error(403, "denied: Authorization: Bearer s3cr3t")))
    done = m4rag("launch", "build_index", "--token-file", "token")
    assert "denied: Authorization: Bearer [token]" in done.error
    assert "s3cr3t" not in done.err + done.out


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "--token-file token: no such file"), ("", "holds no token"), ("Bearer abc", "holds no token")],
)
def test_a_token_file_without_a_token(
    m4rag: M4rag, server: Pipelines, home: Path, text: str | None, message: str
) -> None:
    if text is not None:
        (home / "token").write_text(text)
    done = m4rag("launch", "build_index", "--token-file", "token")
    assert (done.code, message in done.error) == (2, True)
    assert "abc" not in done.error
    assert server.requests == []


def test_a_namespace_that_is_forbidden_is_named(m4rag: M4rag, server: Pipelines) -> None:
    server.multi_user, server.forbidden = True, {"bob"}
    done = m4rag("launch", "build_index", "-n", "bob")
    assert done.code == 3
    assert "HTTP 403: PermissionDenied: User 'ana' is not authorized" in done.error
    assert done.error.endswith("Ask for the right in namespace 'bob', or name another with --namespace.")
    assert server.runs == []


# Servers that are away, or other ones


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (page(), "answered with text/html; charset=utf-8, not with JSON. Is --host the API (often .../pipeline)"),
        (page(302, Location="http://localhost:1/login"), "HTTP 302: redirects, as a login page does. Give a token"),
    ],
)
def test_a_login_page_is_no_server(m4rag: M4rag, server: Pipelines, reply: Any, message: str) -> None:
    server.replies.append(("GET", "/healthz", reply))
    done = m4rag("launch", "build_index")
    assert (done.code, message in done.error) == (3, True)


def test_a_server_that_is_not_there(m4rag: M4rag) -> None:
    done = m4rag("launch", "build_index", "--host", "http://127.0.0.1:1")
    assert done.code == 3
    assert done.error.startswith("error: http://127.0.0.1:1: no answer: ")
    assert done.err.count("\n") == 1


def test_questions_are_asked_again(m4rag: M4rag, server: Pipelines) -> None:
    for path in ("/healthz", "/experiments", "/pipelines", "/versions", "/runs/run-1"):
        server.replies.append(("GET", path, error(503, "no healthy upstream")))
    assert m4rag("launch", "build_index").code == 0
    assert server.asked(*HEALTH) == 2
    assert not server.replies


def test_a_run_whose_answer_got_lost_is_found_and_not_started_again(m4rag: M4rag, server: Pipelines) -> None:
    server.lost = 1
    assert m4rag("launch", "build_index", "--run-name", "nightly").code == 0
    assert len(server.runs) == 1


def test_a_run_of_the_same_name_is_not_taken_for_the_lost_one(m4rag: M4rag, server: Pipelines) -> None:
    m4rag("launch", "build_index", "--run-name", "nightly")
    server.replies.append((*RUNS, error(502, "bad gateway")))
    done = m4rag("launch", "build_index", "--run-name", "nightly", "--json")
    assert (done.json["run"], len(server.runs)) == ("run-2", 2)


def test_a_run_that_can_not_be_started_is_given_up(m4rag: M4rag, server: Pipelines) -> None:
    server.replies.extend([(*RUNS, error(500, "Failed to create a run: no database"))] * 3)
    done = m4rag("launch", "build_index")
    assert (done.code, "HTTP 500: Failed to create a run: no database" in done.error) == (3, True)
    assert server.asked(*RUNS) == 3


def test_a_refusal_is_not_asked_again(m4rag: M4rag, server: Pipelines) -> None:
    server.replies.append((*RUNS, error(400, "Invalid input error: The input parameter length exceed maximum size")))
    done = m4rag("launch", "build_index")
    assert (done.code, "length exceed maximum size" in done.error) == (4, True)
    assert server.asked(*RUNS) == 1


def test_a_version_that_another_launch_uploaded_first_is_used(m4rag: M4rag, server: Pipelines) -> None:
    m4rag("launch", "build_index")
    (version,) = server.versions
    server.versions.clear()

    def lose_the_race() -> Any:
        server.versions.append(version)
        return error(409, "Already exist error")()

    server.replies.append((*UPLOADS, lose_the_race))
    assert m4rag("launch", "build_index").code == 0
    assert server.runs[1]["pipeline_version_reference"]["pipeline_version_id"] == version["pipeline_version_id"]


def test_a_server_that_restarts_is_waited_for_and_one_that_stays_away_is_given_up(
    server: Pipelines, home: Path
) -> None:
    server.script = [state("RUNNING")]
    server.runs.append({"run_id": "run-1", "display_name": "nightly"})
    clock, lines = [0.0], list[str]()

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    def watch() -> None:
        follow(
            Server(Access(server.url, server.url)), "run-1", lines.append,
            timeout_s=3000, sleep=sleep, clock=lambda: clock[0],
        )  # fmt: skip

    server.replies.extend([("GET", "/runs/run-1", error(500, "database is restarting"))] * 5)
    with pytest.raises(CheckFailed, match="not over after 3000 s"):
        watch()
    assert [line.partition(":")[0] for line in lines] == ["http", "the server answers again"]
    begun = clock[0]
    server.replies.extend([("GET", "/runs/run-1", error(500, "gone"))] * 1000)
    with pytest.raises(Unsure, match="gone"):
        watch()
    assert PATIENCE_S <= clock[0] - begun <= PATIENCE_S + 11


# Certificates


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for `localhost` that no public authority signed, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("authority")
    (folder / "ca.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder


def test_an_authority_of_ones_own_is_trusted_when_it_is_named(m4rag: M4rag, authority: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "ca.pem", authority / "key.pem")
    with serving(Pipelines(), context) as server:
        done = m4rag("launch", "build_index", "--host", server.url)
        assert done.code == 3
        assert "no trusted connection" in done.error
        assert done.error.endswith("Give the authority's certificates with --ca-file.")
        assert m4rag("launch", "build_index", "--host", server.url, "--ca-file", str(authority / "ca.pem")).code == 0


# Looking and cancelling


def test_status_shows_tasks_and_fails_with_the_run(m4rag: M4rag, server: Pipelines) -> None:
    m4rag("launch", "build_index", "--no-wait", "--run-name", "nightly")
    server.script = [
        state("RUNNING", container("ingest-corpus", "RUNNING", 1)),
        state("FAILED", container("ingest-corpus", "FAILED", 1)),
    ]
    done = m4rag("status", "run-1")
    assert (done.code, done.out.splitlines()[-1]) == (0, "nightly: running")
    done = m4rag("status", "run-1", "--json")
    assert (done.code, done.json["tasks"]) == (1, [{"task": "ingest-corpus", "state": "FAILED", "note": ""}])


def test_status_can_follow_a_run_that_was_left(m4rag: M4rag, server: Pipelines) -> None:
    m4rag("launch", "build_index", "--no-wait")
    server.script = [state("RUNNING", container("a", "RUNNING", 1)), state("SUCCEEDED", container("a", "SUCCEEDED", 1))]
    done = m4rag("status", "run-1", "--wait")
    assert (done.code, done.err.splitlines()) == (0, ["a: running", "a: succeeded"])


def test_a_run_that_does_not_exist(m4rag: M4rag) -> None:
    for command in ("status", "cancel"):
        done = m4rag(command, "run-9")
        assert (done.code, "HTTP 404: Resource not found: run run-9 not found" in done.error) == (2, True)


def test_cancelling_ends_a_run_that_goes_on_and_leaves_one_that_is_over(m4rag: M4rag, server: Pipelines) -> None:
    server.script = [state("RUNNING")]
    m4rag("launch", "build_index", "--no-wait", "--run-name", "nightly")
    assert m4rag("cancel", "run-1").err == "run run-1 (nightly) is being cancelled\n"
    assert m4rag("status", "run-1").code == 1
    assert m4rag("cancel", "run-1").err == "run run-1 is over: canceled\n"
    assert server.asked("POST", "/apis/v2beta1/runs/run-1:terminate") == 1


# As a process


def start(server: Pipelines, home: Path, *arguments: str, **streams: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONWARNINGS": "default::FutureWarning"}
    return subprocess.Popen(
        [sys.executable, "-m", "m4rag.cli", "pipeline", *arguments, "--host", server.url],
        env=environment,
        cwd=home,
        stdout=subprocess.PIPE,
        text=True,
        **streams,
    )


def test_ctrl_c_leaves_the_run_going_and_says_how_to_come_back(server: Pipelines, home: Path) -> None:
    server.script = [state("RUNNING", container("ingest-corpus", "RUNNING", 1))]
    process = start(server, home, "launch", "build_index", stderr=subprocess.PIPE)
    try:
        while server.asked(*FIRST) < 2:
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    options = f"--host {server.url}"
    assert errors.splitlines()[-1] == (
        f"run run-1 goes on. To look: m4rag pipeline status run-1 --wait {options}; "
        f"to end it: m4rag pipeline cancel run-1 {options}"
    )
    assert "Warning" not in errors
    assert server.asked("POST", "/apis/v2beta1/runs/run-1:terminate") == 0
    assert list(home.iterdir()) == []


def test_on_a_terminal_one_line_shows_the_whole(server: Pipelines, home: Path) -> None:
    server.script = [
        state("RUNNING", container("ingest-corpus", "SUCCEEDED", 1), container("build-index", "RUNNING", 2)),
        state("RUNNING", container("ingest-corpus", "SUCCEEDED", 1), container("build-index", "RUNNING", 2)),
        state("SUCCEEDED", container("ingest-corpus", "SUCCEEDED", 1), container("build-index", "SUCCEEDED", 2)),
    ]
    ours, theirs = pty.openpty()
    process = start(server, home, "launch", "build_index", stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 65536):
            shown += part
    except OSError:  # the terminal is gone with the process
        pass
    finally:
        os.close(ours)
        assert process.wait(60) == 0
    text = shown.decode()
    assert "running: 1 of 2 tasks done, now build-index" in text
    assert "build-index: succeeded" in text


# The server that all this stands on


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"display_name": "x", "plugin_input": {}}, 'unknown field "plugin_input"'),
        ({"display_name": 7}, "invalid value for V2beta1Run.display_name: expected str"),
        ({"runtime_config": {"parameters": []}}, "runtime_config.parameters: expected an object"),
        ({"state": "DONE"}, "V2beta1Run.state: expected one of"),
    ],
)
def test_the_server_takes_what_the_openapi_allows_and_no_more(
    server: Pipelines, body: dict[str, Any], message: str
) -> None:
    import urllib.error
    import urllib.request

    request = urllib.request.Request(
        f"{server.url}{RUNS[1]}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)
    assert refused.value.code == 400
    assert message in json.loads(refused.value.read())["message"]
