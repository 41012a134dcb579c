"""Values as they arrive from outside a program: numbers inside lists and mappings may all be floats."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from m4rag.errors import UsageError

T = TypeVar("T")


def from_params(kind: type[T], **values: Any) -> T:
    """A dataclass from the parameters of a pipeline step.

    Kubeflow types a list or mapping, but not what is in it, and a local run hands every number in it on as a float:
    whole floats become integers where an integer is wanted.

    Args:
        kind: What to make; its own checks run, too.
        values: Field to value.

    Raises:
        UsageError: A value does not fit, or its name is unknown; names it.
    """
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    if unknown := [name for name in values if name not in known]:
        raise UsageError(f"there is none of this name: {', '.join(known)}", where=f"parameter {unknown[0]}")
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"])) or kind.__name__
        raise UsageError(f"{first['msg']} (got {first['input']!r})", where=f"parameter {name}") from None
