"""What the images install, by the Dockerfiles' own steps, run in a folder: it works there, alone and without torch."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from content_server import model_server
from dockerfiles import IMAGES, ROOT, StepFailed, build, stages
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The python of a base image: nothing installed but pip."""
    folder = tmp_path_factory.mktemp("base")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    return folder / "venv" / "bin" / "python"


@pytest.fixture(scope="module")
def component(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield from environment_of("component", base, tmp_path_factory.mktemp("component"))


def environment_of(target: str, base: Path, root: Path) -> Iterator[Path]:
    """What a target's image gets as /opt/m4rag; removed afterwards, because it is most of a gigabyte."""
    build(IMAGES / "Dockerfile", f"{target}-environment", root, base, SOURCE_DATE_EPOCH="1700000000")
    yield root / "opt" / "m4rag"
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def endpoint(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield from environment_of("endpoint", base, tmp_path_factory.mktemp("endpoint"))


def ask(environment: Path, code: str, folder: Path) -> str:
    """What a program prints in an environment, away from the working tree, as Kubeflow runs steps."""
    done = subprocess.run(
        [environment / "bin" / "python", "-c", code],
        cwd=folder,
        env={"PATH": f"{environment}/bin:/usr/bin:/bin", "HOME": str(folder), "_KFP_RUNTIME": "true"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def imports(component: Path) -> list[str]:
    """The imports inside a component's function: what Kubeflow runs in the image."""
    tree = ast.parse(component.read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return [
        ast.unparse(node)
        for function in functions
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]


def everything_imported(folder: Path) -> list[str]:
    """Every import of a package of ours, those inside functions too."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in folder.rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    return sorted({ast.unparse(node) for node in nodes if getattr(node, "module", "") != "__future__"})


def locked() -> dict[str, str]:
    """The lock's versions for this Python."""
    lines = (ROOT / "requirements" / "lock.txt").read_text().splitlines()
    pins = [Requirement(line.rstrip("\\ ")) for line in lines if re.match(r"[a-z]", line)]
    return {one.name: str(one.specifier)[2:] for one in pins if one.marker is None or one.marker.evaluate()}


def installed(environment: Path, folder: Path) -> dict[str, str]:
    code = "from importlib.metadata import distributions as all; print(*(f'{d.name}=={d.version}' for d in all()))"
    pairs = (one.split("==") for one in ask(environment, code, folder).split())
    return {canonicalize_name(name): version for name, version in pairs}


def test_what_every_component_imports_is_in_the_image(component: Path, tmp_path: Path) -> None:
    wanted = sorted({line for path in ROOT.glob("components/*/*/component.py") for line in imports(path)})
    assert len(wanted) > 5
    before = set(component.rglob("*"))
    ask(component, "\n".join(wanted), tmp_path)
    assert set(component.rglob("*")) == before  # nor would a read-only file system have minded


def test_kubeflow_can_start_a_step(component: Path, tmp_path: Path) -> None:
    """`kfp.dsl.executor_main` with nothing of kfp's own dependencies runs a component's function."""
    program = tmp_path / "program.py"
    program.write_text(
        "from kfp import dsl\n"
        "def count(text: str) -> int:\n"
        "    from m4rag.languages import lookup\n"
        "    return len(lookup(text).name)\n"
    )
    output = tmp_path / "outputs" / "result"
    given = {
        "inputs": {"parameterValues": {"text": "yo"}},
        "outputs": {
            "parameters": {"Output": {"outputFile": str(output)}},
            "outputFile": str(tmp_path / "outputs" / "executor_output.json"),
        },
    }
    code = (
        f"import sys; sys.argv = ['x', '--component_module_path', {str(program)!r}, '--executor_input', "
        f"{json.dumps(given)!r}, '--function_to_execute', 'count']; "
        "from kfp.dsl.executor_main import executor_main; executor_main()"
    )
    ask(component, code, tmp_path)
    assert json.loads((tmp_path / "outputs" / "executor_output.json").read_text())["parameterValues"]["Output"] == 6


def test_the_versions_are_the_locked_ones_and_nothing_is_for_a_gpu(component: Path, tmp_path: Path) -> None:
    there = installed(component, tmp_path)
    assert there.pop("m4rag")
    assert {name: locked().get(name) for name in there} == there
    assert {"kfp", "kubernetes", "pymilvus", "mlflow"} <= there.keys()
    assert not there.keys() & {"torch", "vllm", "transformers", "sentence-transformers", "milvus-lite", "pip", "uv"}


def test_the_list_of_what_is_inside_is_complete(component: Path, tmp_path: Path) -> None:
    listed = json.loads((component / "sbom.cdx.json").read_text())
    assert listed["bomFormat"] == "CycloneDX"
    assert listed["metadata"]["timestamp"].startswith("2023-11-14T22:13:20")
    names = {canonicalize_name(one["name"]) for one in listed["components"]}
    assert names | {"m4rag"} >= installed(component, tmp_path).keys()


def test_bytecode_is_compiled_and_never_checked_against_times(component: Path) -> None:
    compiled = next(component.glob("lib/python*/site-packages/m4rag/__pycache__/errors.*.pyc"))
    assert int.from_bytes(compiled.read_bytes()[4:8], "little") == 0b01  # by hash, unchecked (PEP 552)


def test_a_download_that_is_not_the_locked_one_stops_the_build(base: Path, tmp_path: Path) -> None:
    """The steps' own options, with another hash in the lock."""
    step = next(
        step.value for step in stages(IMAGES / "Dockerfile")["component-environment"].steps if "kfp==" in step.value
    )
    command = next(part for part in step.split("&&") if "kfp==" in part)
    lock = tmp_path / "source" / "requirements" / "lock.txt"
    lock.parent.mkdir(parents=True)
    lock.write_text(re.sub(r"sha256:[0-9a-f]{64}", f"sha256:{'0' * 64}", (ROOT / "requirements/lock.txt").read_text()))
    uv = Path(sys.executable).with_name("uv")
    told = command.replace("/opt/tools/bin/uv", str(uv)).replace("/opt/m4rag/bin/python", str(base))
    done = subprocess.run(["/bin/sh", "-c", told], cwd=lock.parent.parent, capture_output=True, text=True)
    assert done.returncode != 0
    assert "Hash mismatch for `kfp==" in done.stderr


@pytest.mark.parametrize(("told", "good"), [("0.32.0", True), ("0.31.0", False)])
def test_vllm_of_another_version_than_the_reviewed_one_is_refused(
    base: Path, tmp_path: Path, told: str, good: bool
) -> None:
    """The check in the Dockerfile, in an environment that says it has vLLM 0.32.0 for CUDA."""
    subprocess.run([base, "-m", "venv", "--without-pip", tmp_path / "vllm"], check=True)
    about = next(tmp_path.glob("vllm/lib/python*/site-packages")) / "vllm-0.32.0+cu130.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cu130\n")
    python = tmp_path / "vllm" / "bin" / "python"
    try:
        build(IMAGES / "vllm.Dockerfile", "packages", tmp_path, python, VLLM_VERSION=told)
    except StepFailed as error:
        assert not good
        assert "this is vLLM 0.32.0+cu130, not 0.31.0" in str(error)
    else:
        assert good
        assert "vllm==0.32.0+cu130" in (tmp_path / "packages" / "packages.txt").read_text().splitlines()


def test_what_the_endpoint_imports_is_in_its_image_and_little_else(endpoint: Path, tmp_path: Path) -> None:
    before = set(endpoint.rglob("*"))
    ask(endpoint, "\n".join(everything_imported(ROOT / "serving")), tmp_path)
    assert set(endpoint.rglob("*")) == before
    there = installed(endpoint, tmp_path)
    assert there.pop("m4rag")
    pins = locked()
    assert {name: pins.get(name) for name in there} == there
    assert {"uvloop", "httptools", "pymilvus"} <= there.keys()
    assert not there.keys() & {"torch", "vllm", "mlflow", "scikit-learn", "scipy", "kubernetes", "kfp", "pip", "uv"}


def test_the_endpoint_answers_from_its_image(endpoint: Path, tmp_path: Path) -> None:
    """The image's entry point as a process, in front of a scripted model."""
    (entry,) = (json.loads(value) for value in [stages(IMAGES / "Dockerfile")["endpoint"].last("ENTRYPOINT")] if value)
    with model_server(lambda body: "it is soup") as url:
        process = subprocess.Popen(
            [endpoint / "bin" / entry[0], *entry[1:], "--port", "0", "--retrieval", "off", "--vlm-url", url],
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stderr is not None
            said = process.stderr.readline()
            assert said.startswith("serving on http://"), said + process.stderr.read()
            address = said.split()[-1]
            model = httpx.get(f"{address}/models").json()["data"][0]["id"]
            body = {"model": model, "messages": [{"role": "user", "content": "What is it?"}]}
            reply = httpx.post(f"{address}/chat/completions", json=body)
        finally:
            process.terminate()
            assert process.wait(30) == 0
    assert reply.status_code == 200, reply.text
    assert reply.json()["choices"][0]["message"]["content"] == "it is soup"
