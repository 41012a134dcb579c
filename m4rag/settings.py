"""One typed settings tree, read from the environment (and a `.env` file) in one place.

Addresses that other tools share keep their own names (`MILVUS_URI`, `MLFLOW_TRACKING_URI`); everything that
is only ours starts with `M4RAG_`. Secrets are `SecretStr`: they never reach a log, a manifest or a report.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from pydantic import AliasChoices, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from m4rag.errors import UsageError


class Settings(BaseSettings):
    """Where things are and how long to wait for them.

    Attributes:
        home: Folder of everything m4rag writes locally. Default `.m4rag` in the working directory.
        milvus_uri: Milvus address; a path ending in `.db` is an embedded Milvus Lite folder.
            Default `<home>/milvus.db`.
        milvus_token: `user:password` or an API key.
        milvus_timeout_s: Seconds before a Milvus call is given up.
        mlflow_tracking_uri: MLflow address. Default SQLite in `home`.
        mlflow_experiment: Experiment that benchmark runs are logged to.
        vlm_url: OpenAI-compatible base URL (ending in `/v1`) of the vision-language model; unset means
            that commands which need one start the embedded one.
        vlm_api_key: Bearer token for it.
        judge_url: The same of the model that judges passages; unset means the model under test.
        vlm_timeout_s: Seconds before one generation is given up.
        vlm_concurrency: Requests in flight at most; fewer while the server sheds load.
        embedding_url: OpenAI-compatible base URL of a vLLM pooling server.
        embedding_api_key: Bearer token for it.
        vllm_image: vLLM's image by digest, which `m4rag deploy vlm` and pipelines run.
    """

    model_config = SettingsConfigDict(
        env_prefix="M4RAG_", env_file=".env", extra="ignore", frozen=True, populate_by_name=True
    )

    home: Path = Path(".m4rag")
    milvus_uri: str | None = Field(None, validation_alias=AliasChoices("MILVUS_URI", "milvus_uri"))
    milvus_token: SecretStr | None = Field(None, validation_alias=AliasChoices("MILVUS_TOKEN", "milvus_token"))
    milvus_timeout_s: float = Field(30.0, gt=0)
    mlflow_tracking_uri: str | None = Field(
        None, validation_alias=AliasChoices("MLFLOW_TRACKING_URI", "mlflow_tracking_uri")
    )
    mlflow_experiment: str = "m4rag"
    vlm_url: str | None = None
    vlm_api_key: SecretStr | None = None
    judge_url: str | None = None
    vlm_timeout_s: float = Field(120.0, gt=0)
    vlm_concurrency: int = Field(32, ge=1, le=1024)
    embedding_url: str | None = None
    embedding_api_key: SecretStr | None = None
    vllm_image: str | None = None

    @property
    def milvus(self) -> str:
        """Address of the vector store, the embedded one by default."""
        return self.milvus_uri or str(self.home / "milvus.db")

    @property
    def mlflow(self) -> str:
        """Address of the tracking store, SQLite in `home` by default."""
        return self.mlflow_tracking_uri or f"sqlite:///{(self.home / 'mlflow.db').resolve()}"


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The process's settings, read once.

    Raises:
        UsageError: A variable has a value of the wrong kind; names the variable.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        name = name if name.isupper() else f"M4RAG_{name.upper()}"
        raise UsageError(first["msg"], where=name, remedy="Correct or unset the variable.") from None
