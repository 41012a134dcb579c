"""What the endpoint is told, all of it in one place: environment variables that start with `M4RAG_SERVE_`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from m4rag.errors import UsageError

PREFIX = "M4RAG_SERVE_"


class Configuration(BaseSettings):
    """The endpoint's configuration. Addresses of Milvus and of the embedder are those of `m4rag.settings`.

    Attributes:
        vlm_url: OpenAI-compatible base URL (ending in `/v1`) of the model.
        vlm_api_key: Bearer token for it.
        retrieval: `policy` retrieves where the policy says, `off` never does.
        policy: The policy file; a changed file is taken without a restart, a bad one is refused and the old one stays.
        index: Alias of the index, where it is not the one that the policy was fitted on.
        max_body_bytes: Largest request body.
        max_images: Images in one request at most.
        max_tokens: Largest number of tokens that a request may ask for.
        max_in_flight: Requests at the model at most.
        max_waiting: Requests that wait for their turn at most; the next one is refused with 429.
        max_wait_s: Seconds that a request waits for its turn before it is refused with 429.
        retrieve_timeout_s: Seconds for search and embedding; after that the model answers without context.
        connect_timeout_s: Seconds to connect to the model.
        read_timeout_s: Seconds without a byte from the model before it is given up.
        drain_s: Seconds that running requests have to end after SIGTERM.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_file=".env", extra="ignore", frozen=True)

    vlm_url: str
    vlm_api_key: SecretStr | None = None
    retrieval: Literal["policy", "off"] = "policy"
    policy: Path | None = None
    index: str | None = None
    max_body_bytes: int = Field(32 * 2**20, ge=1024)
    max_images: int = Field(4, ge=0, le=64)
    max_tokens: int = Field(4096, ge=1)
    max_in_flight: int = Field(256, ge=1)
    max_waiting: int = Field(256, ge=0)
    max_wait_s: float = Field(10.0, gt=0)
    retrieve_timeout_s: float = Field(3.0, gt=0)
    connect_timeout_s: float = Field(5.0, gt=0)
    read_timeout_s: float = Field(300.0, gt=0)
    drain_s: int = Field(300, ge=1)

    @model_validator(mode="after")
    def _policy_if_it_retrieves(self) -> Configuration:
        if self.retrieval == "policy" and self.policy is None:
            raise ValueError("names no policy file; fit one with `m4rag policy fit`, or say retrieval off")
        return self

    @property
    def model_api(self) -> str:
        """The model's base URL, without a slash at its end."""
        return self.vlm_url.rstrip("/")

    @property
    def model_headers(self) -> dict[str, str]:
        """What every request to the model carries."""
        return {"Authorization": f"Bearer {self.vlm_api_key.get_secret_value()}"} if self.vlm_api_key else {}


def configuration(**given: object) -> Configuration:
    """The configuration from the environment, with what the command line gives on top.

    Args:
        given: Fields; those that are None count as not given.

    Raises:
        UsageError: A value is missing or of the wrong kind; names its variable.
    """
    try:
        return Configuration(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = f"{PREFIX}{str(first['loc'][0]).upper()}" if first["loc"] else f"{PREFIX}POLICY"
        message = first["msg"].removeprefix("Value error, ")
        raise UsageError(message, where=name, remedy="Set the variable or the option of `m4rag serve`.") from None
