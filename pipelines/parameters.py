"""Pipeline parameters from the command line, held to the types that the pipeline declares."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from m4rag.errors import UsageError
from pipelines.ir import IR

KINDS = {
    "NUMBER_INTEGER": "a whole number",
    "NUMBER_DOUBLE": "a number",
    "BOOLEAN": "true or false",
    "LIST": "a JSON list",
    "STRUCT": "a JSON object",
}


def parse(ir: IR, texts: Sequence[str]) -> dict[str, Any]:
    """The arguments of a run.

    Args:
        ir: The pipeline.
        texts: `name=value` each. Text is taken as it stands; numbers, booleans, lists and objects are JSON.

    Raises:
        UsageError: A parameter that the pipeline does not have, that is missing, given twice, or of the wrong type.
    """
    arguments: dict[str, Any] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator:
            raise UsageError(f"{text!r} is not name=value", where="--param")
        if name not in ir.inputs:
            raise UsageError(
                f"{ir.name} has no parameter {name!r}", remedy=f"It has: {', '.join(sorted(ir.inputs)) or 'none'}."
            )
        if name in arguments:
            raise UsageError("given twice", where=f"--param {name}")
        arguments[name] = _value(name, value, ir.inputs[name])
    missing = [
        name
        for name, definition in sorted(ir.inputs.items())
        if name not in arguments and "defaultValue" not in definition and not definition.get("isOptional")
    ]
    if missing:
        raise UsageError(f"{ir.name} needs {', '.join(missing)}", remedy=f"Add -p {missing[0]}=VALUE.")
    return arguments


def _value(name: str, text: str, definition: dict[str, Any]) -> Any:
    kind = definition["parameterType"]
    value: Any = text
    if kind != "STRING":
        try:
            value = json.loads(text, parse_constant=_no_constant)
        except ValueError:
            value = None
        if kind not in KINDS:
            raise UsageError(f"the server sets it ({kind.lower()})", where=f"--param {name}", remedy="Leave it out.")
        if not _fits(value, kind):
            raise UsageError(f"{text!r} is not {KINDS[kind]}", where=f"--param {name}")
    allowed = definition.get("literals", [])
    if allowed and value not in allowed:
        raise UsageError(
            f"{text!r} is none of its values",
            where=f"--param {name}",
            remedy=f"It takes: {', '.join(map(str, allowed))}.",
        )
    return value


def _fits(value: Any, kind: str) -> bool:
    if isinstance(value, bool) or kind == "BOOLEAN":
        return isinstance(value, bool) and kind == "BOOLEAN"
    types: dict[str, Any] = {"NUMBER_INTEGER": int, "NUMBER_DOUBLE": int | float, "LIST": list, "STRUCT": dict}
    return isinstance(value, types[kind])


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")
