"""Write each component's README from its signature, its docstring and its metadata.yaml."""

from __future__ import annotations

import inspect
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict

REPOSITORY = Path(__file__).resolve().parent.parent
COMPONENTS = REPOSITORY / "components"
HEADING = re.compile(r"^(Args|Returns|Raises):$", re.MULTILINE)
ARGUMENT = re.compile(r"^    (\w+): (.*(?:\n {8,}.*)*)", re.MULTILINE)


class Metadata(BaseModel):
    """What neither signature nor docstring says.

    Attributes:
        name: The component.
        stability: `alpha`, `beta` or `stable`.
        kubeflow: Kubeflow Pipelines that it needs.
        services: What it reaches over the network.
        rbac: Service account of `m4rag/deploy/permissions.yaml` whose rights it uses; empty for none.
        effects: What is different in the world afterwards.
        cached: Whether the pipelines let Kubeflow cache it.
        caching: Why.
        cost: Time and money.
        run_locally: A command that runs it on this machine.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    stability: str
    kubeflow: str
    services: tuple[str, ...]
    rbac: str
    effects: str
    cached: bool
    caching: str
    cost: str
    run_locally: str


def folders() -> list[Path]:
    """One for each component."""
    return sorted(path.parent for path in COMPONENTS.glob("*/*/component.py"))


def metadata(folder: Path) -> Metadata:
    return Metadata.model_validate(yaml.safe_load((folder / "metadata.yaml").read_text(encoding="utf-8")))


def function(folder: Path) -> Any:
    """The plain function of a component."""
    module = import_module(".".join(folder.relative_to(REPOSITORY).parts))
    return getattr(module, folder.name).python_func


def readme(folder: Path) -> str:
    """The README of a component."""
    told, made = metadata(folder), function(folder)
    about, sections = _docstring(made)
    described = {match[1]: _line(match[2]) for match in ARGUMENT.finditer(sections.get("Args", ""))}
    inputs, outputs = [], []
    for name, parameter in inspect.signature(made).parameters.items():
        kind, out = _kind(parameter.annotation)
        (outputs if out else inputs).append((f"`{name}`", kind, described[name]))
    if "Returns" in sections:
        outputs.append(("returned", _kind(inspect.signature(made).return_annotation)[0], _line(sections["Returns"])))
    cached = f"{'Cached' if told.cached else 'Never cached'}. {told.caching}"
    services = ", ".join(told.services) or "nothing"
    return "\n".join(
        [
            f"# {folder.name}\n",
            f"{about}\n",
            f"Stability: {told.stability}. Kubeflow Pipelines {told.kubeflow}. Reaches over the network: {services}.\n",
            f"## Inputs\n\n{_table(inputs)}\n",
            f"## Outputs\n\n{_table(outputs)}\n",
            f"## Effects\n\n{told.effects}\n",
            f"## RBAC\n\n{_rbac(told.rbac)}\n",
            f"## Caching\n\n{cached}\n",
            f"## Cost\n\n{told.cost}\n",
            f"## Run locally\n\n    {told.run_locally}\n",
            "Written by `hack/component_readmes.py` from component.py and metadata.yaml.\n",
        ]
    )


def _docstring(made: Any) -> tuple[str, dict[str, str]]:
    """What stands before the first section, and the sections by name."""
    about, *rest = HEADING.split(inspect.getdoc(made) or "")
    return about.strip(), {name: text.strip("\n") for name, text in zip(rest[::2], rest[1::2], strict=True)}


def _line(text: str) -> str:
    return " ".join(text.split())


def _kind(annotation: Any) -> tuple[str, bool]:
    """A parameter's type in words, and whether it is an output."""
    if get_origin(annotation) is not Annotated:
        return getattr(annotation, "__name__", str(annotation)), False
    what, direction = get_args(annotation)
    out = "output" in str(direction).lower()
    if get_origin(what) is list:
        return f"list of {get_args(what)[0].__name__}", out
    return what.__name__, out


def _table(rows: list[tuple[str, str, str]]) -> str:
    if not rows:
        return "None."
    lines = ["| name | type | what it is |", "|---|---|---|"]
    return "\n".join(lines + [f"| {name} | {kind} | {text.replace('|', chr(92) + '|')} |" for name, kind, text in rows])


def _rbac(account: str) -> str:
    from m4rag.deploy.permissions import rules

    if not account:
        return "None: it calls no Kubernetes API."
    lines = [f"What the service account `{account}` has:\n", "| group | resources | verbs |", "|---|---|---|"]
    for rule in rules(account):
        lines.append(f"| {rule.group or 'core'} | {', '.join(rule.resources)} | {', '.join(rule.verbs)} |")
    return "\n".join(lines)


def main() -> int:
    for folder in folders():
        (folder / "README.md").write_text(readme(folder), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(REPOSITORY))
    sys.exit(main())
