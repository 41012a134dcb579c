"""Components: documented, thin, and free of names that would be missing in a pod."""

from __future__ import annotations

import ast
import builtins
import os
import sys
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "hack"))

import component_readmes  # noqa: E402

FOLDERS = component_readmes.folders()
BODY_LINES = 40
every = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


@every
def test_golden_readme(folder: Path) -> None:
    path, text = folder / "README.md", component_readmes.readme(folder)
    if os.environ.get("M4RAG_REGENERATE") == "1":
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), "make golden, then review the diff"


@every
def test_the_metadata_is_of_this_component(folder: Path) -> None:
    assert component_readmes.metadata(folder).name == folder.name


@every
def test_only_kfp_and_components_are_imported_outside_of_the_body(folder: Path) -> None:
    tree = ast.parse((folder / "component.py").read_text())
    imported = [name.name for node in tree.body if isinstance(node, ast.Import) for name in node.names]
    imported += [str(node.module) for node in tree.body if isinstance(node, ast.ImportFrom)]
    allowed = {"kfp", "components", *sys.stdlib_module_names}
    assert {name.partition(".")[0] for name in imported} <= allowed


def names_from_outside(code: CodeType) -> set[str]:
    """Names that a function looks up in its module or in the builtins, those of functions inside it included."""
    import dis

    found = {step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= names_from_outside(constant)
    return found


@every
def test_the_body_uses_no_name_of_its_module(folder: Path) -> None:
    """Kubeflow copies the function alone: a global would compile here and be missing in the pod."""
    made: Any = component_readmes.function(folder)
    assert names_from_outside(made.__code__) <= set(dir(builtins))


@every
def test_it_is_thin(folder: Path) -> None:
    tree = ast.parse((folder / "component.py").read_text())
    (made,) = (node for node in tree.body if isinstance(node, ast.FunctionDef))
    first, last = made.body[1], made.body[-1]  # body[0] is the docstring
    assert (last.end_lineno or 0) - first.lineno + 1 < BODY_LINES


def test_a_name_from_outside_is_found() -> None:
    def body() -> Any:
        return [FOLDERS for _ in range(1)]

    assert names_from_outside(body.__code__) - set(dir(builtins)) == {"FOLDERS"}


def test_every_component_is_in_a_pipeline() -> None:
    """One that no pipeline uses is tested by nothing."""
    from pipelines import NAMES, pipeline

    used: set[str] = set()
    for name in NAMES:
        used |= {key.removeprefix("exec-") for key in pipeline(name).pipeline_spec.deployment_spec["executors"]}
    assert {folder.name.replace("_", "-") for folder in FOLDERS} == used


def test_readmes_say_what_the_reader_needs() -> None:
    text = (REPOSITORY / "components/index/embed_shard/README.md").read_text()
    for heading in ("Inputs", "Outputs", "Effects", "RBAC", "Caching", "Cost", "Run locally"):
        assert f"## {heading}\n" in text
    assert "| `vectors` | Dataset |" in text.partition("## Outputs")[2]
    assert yaml.safe_load((REPOSITORY / "components/index/embed_shard/metadata.yaml").read_text())["effects"] in text
