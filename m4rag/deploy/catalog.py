"""The reviewed table of models and of hardware: `models.yaml` and `hardware.yaml`, one source for code and chart.

A server's arguments are those of its hardware, of every model (`common`), of its task and of its model, in this order.
Each has its reason. They are given to vLLM in the form `--flag=value` with nested fields behind dots, because
LLMInferenceService puts them through a shell that destroys JSON.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from m4rag.deploy.names import NAME
from m4rag.errors import BadData, UsageError

MODELS = Path(__file__).parent / "models.yaml"
HARDWARE = Path(__file__).parent / "hardware.yaml"

Task = Literal["generate", "embed"]
"""Chat completions with images; one vector a text or page."""

FLAG = re.compile(r"--[a-z][a-z0-9-]*((\.[a-z][a-z0-9_]*)+\+?)?")
RESERVED = frozenset(
    {"--model", "--port", "--host", "--served-model-name", "--max-model-len", "--tensor-parallel-size"}
    | {"--shutdown-timeout", "--api-key", "--hf-token"}
)
"""What the service says itself, or what would be a secret in plain sight."""
SHELL_SAFE = re.compile(r"[A-Za-z0-9_.,:/@%+=\[\]-]*")
SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|CREDENTIAL|API_KEY|ACCESS_KEY")
QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|[KMGT]i?)?")
HUB = re.compile(r"hf://[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)

Content = TypeVar("Content", bound=BaseModel)


def _flag(flag: str) -> str:
    if not FLAG.fullmatch(flag):
        raise ValueError(f"{flag!r} is not a flag of the form --name or --name.field")
    if flag in RESERVED:
        raise ValueError(f"{flag} has no place here: m4rag gives it itself, or it is a secret")
    return flag


def _variable(name: str) -> str:
    if not re.fullmatch(r"[A-Z][A-Z0-9_]*", name):
        raise ValueError(f"{name!r} does not name an environment variable")
    if SECRET.search(name):
        raise ValueError(f"{name} looks like a secret, which belongs into a Secret and not into this table")
    if name == "PYTHONPATH":
        raise ValueError("KServe refuses PYTHONPATH")
    return name


def _quantity(text: str) -> str:
    if not QUANTITY.fullmatch(text):
        raise ValueError(f"{text!r} is not a quantity such as 8, 500m or 64Gi")
    return text


def _label(text: str) -> str:
    if len(text) > 63 or not NAME.fullmatch(text):
        raise ValueError(f"{text!r} is not a name of lower-case letters, digits and hyphens")
    return text


def _uri(uri: str) -> str:
    if not HUB.fullmatch(uri):
        raise ValueError(f"{uri!r} is not of the form hf://owner/name; who deploys the model adds the commit")
    return uri


def _served_name(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", name):
        raise ValueError(f"{name!r} can't be part of an address: use lower-case letters, digits, dots and hyphens")
    return name


Quantity = Annotated[str, AfterValidator(_quantity)]
Reason = Annotated[str, Field(min_length=10)]


class Entry(BaseModel):
    """Part of the tables: frozen, and unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Argument(Entry):
    """An argument of vLLM and why it is there.

    Attributes:
        flag: `--name`, or `--name.field` for a field of what vLLM's help calls JSON; `--name.field+` appends a string.
        value: Its value; None for a switch.
        why: The reason.
    """

    flag: Annotated[str, AfterValidator(_flag)]
    value: int | float | str | None = None
    why: Reason

    @model_validator(mode="after")
    def _survives_a_shell(self) -> Argument:
        if not SHELL_SAFE.fullmatch(str(self.value)):
            raise ValueError(
                f"{self.flag}: {self.value!r} would not survive the shell that LLMInferenceService puts arguments "
                "through: give each field with a flag of its own, such as --limit-mm-per-prompt.image"
            )
        return self

    @property
    def text(self) -> str:
        """The argument as vLLM takes it, one word."""
        return self.flag if self.value is None else f"{self.flag}={self.value}"


class Variable(Entry):
    """An environment variable of the server and why it is there."""

    name: Annotated[str, AfterValidator(_variable)]
    value: str
    why: Reason


class Options(Entry):
    """Arguments and variables."""

    arguments: tuple[Argument, ...] = ()
    environment: tuple[Variable, ...] = ()

    @model_validator(mode="after")
    def _each_once(self) -> Options:
        for names in ([one.flag for one in self.arguments], [one.name for one in self.environment]):
            if twice := {name for name in names if names.count(name) > 1}:
                raise ValueError(f"{', '.join(sorted(twice))} is there twice")
        return self


class ServedModel(Options):
    """A model as it is served.

    Attributes:
        name: Its name here and in labels.
        uri: Where its weights are published, without the revision: who deploys it pins one.
        task: `generate` or `embed`.
        served_name: Name that requests use, the same for every revision.
        hardware: Profile that it is made for.
        weights_gib: Size of the weights in GiB.
        tensor_parallel: GPUs that share one replica.
        max_model_len: Context window in tokens.
        image_tokens: Tokens that one image takes at most, under the `max_pixels` among the arguments.
        arguments: All arguments, those of every model and of its task included.
        environment: All variables, likewise.
    """

    name: Annotated[str, AfterValidator(_label)]
    uri: Annotated[str, AfterValidator(_uri)]
    task: Task
    served_name: Annotated[str, AfterValidator(_served_name)]
    hardware: str
    weights_gib: float = Field(gt=0)
    tensor_parallel: int = Field(ge=1, le=8)
    max_model_len: int = Field(ge=256)
    image_tokens: int = Field(ge=1)


class Resources(Entry):
    """Processor cores and memory."""

    cpu: Quantity
    memory: Quantity


class Toleration(Entry):
    """A taint that pods may stand on."""

    key: str
    operator: Literal["Exists", "Equal"] = "Exists"
    value: str | None = None
    effect: Literal["NoSchedule", "NoExecute", "PreferNoSchedule"] | None = None


class Hardware(Options):
    """A kind of node, or a part of one.

    Attributes:
        name: Its name.
        gpus: GPUs of a replica, 0 for none.
        gpu_resource: What the device plugin calls them.
        requests: What a replica is promised.
        limits: What it may take at most; memory includes `shm`.
        shm: Size of `/dev/shm`.
        node_selector: Labels that the node must have.
        tolerations: Taints that it may have.
        arguments: Arguments of vLLM on such a node.
        environment: Variables likewise.
    """

    name: Annotated[str, AfterValidator(_label)]
    gpus: int = Field(ge=0, le=16)
    gpu_resource: str = "nvidia.com/gpu"
    requests: Resources
    limits: Resources
    shm: Quantity
    node_selector: dict[str, str] = {}
    tolerations: tuple[Toleration, ...] = ()


class Models(Entry):
    """Models by name; the form of a file with a model of one's own."""

    models: dict[str, ServedModel]

    @model_validator(mode="before")
    @classmethod
    def _names(cls, content: Any) -> Any:
        return _named(content, "models")


class Catalog(Models):
    """The table of models.

    Attributes:
        common: What every server gets.
        tasks: What every server of a task gets.
    """

    common: Options
    tasks: dict[Task, Options]


class Profiles(Entry):
    """The table of hardware."""

    profiles: dict[str, Hardware]

    @model_validator(mode="before")
    @classmethod
    def _names(cls, content: Any) -> Any:
        return _named(content, "profiles")


def model(name: str) -> ServedModel:
    """A model of the table, or the one of a YAML file that has the table's form.

    Args:
        name: Its name, or a path that ends in `.yaml` or `.yml`.

    Returns:
        The model, with the arguments and variables of every model and of its task before its own.

    Raises:
        UsageError: There is no such model or file.
        BadData: The file breaks the form.
    """
    table = catalog()
    if Path(name).suffix in {".yaml", ".yml"}:
        models = _read(Path(name), Models).models
        if len(models) != 1:
            raise BadData(f"{len(models)} models in it", where=name, remedy="Name one model in a file.")
        chosen = next(iter(models.values()))
        if chosen.name in table.models:
            raise BadData(
                f"{chosen.name} is in m4rag's own table", where=name, remedy="Give your model a name of its own."
            )
    elif name in table.models:
        chosen = table.models[name]
    else:
        raise UsageError(
            f"no model {name!r}", remedy=f"Choose of {', '.join(table.models)}, or name a YAML file with your own."
        )
    options = combined(table.common, table.tasks[chosen.task], chosen)
    return chosen.model_copy(update={"arguments": options.arguments, "environment": options.environment})


def combined(*parts: Options) -> Options:
    """Options of several parts in order; what a later part says of a flag or variable replaces what an earlier said."""
    arguments = {one.flag: one for part in parts for one in part.arguments}
    environment = {one.name: one for part in parts for one in part.environment}
    return Options(arguments=tuple(arguments.values()), environment=tuple(environment.values()))


def hardware(name: str) -> Hardware:
    """A profile of the table.

    Raises:
        UsageError: There is none of that name.
    """
    table = profiles()
    if name not in table:
        raise UsageError(f"no hardware profile {name!r}", remedy=f"Choose of {', '.join(table)}.")
    return table[name]


@lru_cache(maxsize=1)
def catalog() -> Catalog:
    """The table of models as it is written down."""
    return _read(MODELS, Catalog)


@lru_cache(maxsize=1)
def profiles() -> dict[str, Hardware]:
    """The table of hardware by name."""
    return _read(HARDWARE, Profiles).profiles


def explained(error: ValidationError) -> str:
    """What is wrong with the first wrong field, and where it stands, in a line."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    what = {"extra_forbidden": "unknown key", "missing": "missing"}.get(first["type"])
    if what is None:
        what = first["msg"].removeprefix("Value error, ")
    return f"{place}: {what}" if place else what


def _named(content: Any, field: str) -> Any:
    """Entries that know the key they stand under."""
    if not isinstance(content, dict) or not isinstance(content.get(field), dict):
        return content
    entries = {
        name: {"name": name, **entry} if isinstance(entry, dict) else entry for name, entry in content[field].items()
    }
    return content | {field: entries}


def _read(path: Path, kind: type[Content]) -> Content:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError("no such file", where=str(path)) from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise BadData(f"it can't be read as YAML ({error})", where=str(path)) from None
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise BadData(explained(error), where=str(path), remedy="Correct the file.") from None
