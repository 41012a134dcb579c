"""Parameters from the command line, held to what the pipeline declares."""

from __future__ import annotations

from typing import Any

import pytest

from m4rag.errors import UsageError
from pipelines.ir import IR
from pipelines.parameters import parse

PARAMETERS = {
    "corpus": {"parameterType": "STRING"},
    "limit": {"parameterType": "NUMBER_INTEGER", "defaultValue": 0.0, "isOptional": True},
    "rate": {"parameterType": "NUMBER_DOUBLE", "isOptional": True},
    "judge": {"parameterType": "BOOLEAN", "isOptional": True},
    "settings": {"parameterType": "LIST", "isOptional": True},
    "hardware": {"parameterType": "STRUCT", "isOptional": True},
    "mode": {"parameterType": "STRING", "isOptional": True, "literals": ["fast", "full"]},
    "status": {"parameterType": "TASK_FINAL_STATUS", "isOptional": True},
}
PIPELINE = IR(
    {"pipelineInfo": {"name": "p"}, "root": {"inputDefinitions": {"parameters": PARAMETERS}, "dag": {"tasks": {}}}}, {}
)


def test_values_have_the_declared_types() -> None:
    texts = ["corpus=5", "limit=40", "rate=1", "judge=true", 'settings=["no_rag", "oracle"]', 'hardware={"gpus": 4}']
    assert parse(PIPELINE, texts) == {
        "corpus": "5",
        "limit": 40,
        "rate": 1,
        "judge": True,
        "settings": ["no_rag", "oracle"],
        "hardware": {"gpus": 4},
    }


def test_text_is_taken_as_it_stands() -> None:
    text = 'a=b "c" [d]'
    assert parse(PIPELINE, [f"corpus={text}"]) == {"corpus": text}
    assert parse(PIPELINE, ["corpus="]) == {"corpus": ""}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["corpus"], "--param: 'corpus' is not name=value"),
        (["corpus=x", "limt=4"], "p has no parameter 'limt'. It has: corpus, hardware, judge, limit, mode, rate,"),
        (["limit=4"], "p needs corpus. Add -p corpus=VALUE."),
        (["corpus=x", "corpus=y"], "--param corpus: given twice"),
        (["corpus=x", "limit=4.5"], "--param limit: '4.5' is not a whole number"),
        (["corpus=x", "limit=true"], "--param limit: 'true' is not a whole number"),
        (["corpus=x", "limit=vier"], "--param limit: 'vier' is not a whole number"),
        (["corpus=x", "rate=NaN"], "--param rate: 'NaN' is not a number"),
        (["corpus=x", "judge=yes"], "--param judge: 'yes' is not true or false"),
        (["corpus=x", "judge=1"], "--param judge: '1' is not true or false"),
        (["corpus=x", "settings=no_rag"], "--param settings: 'no_rag' is not a JSON list"),
        (["corpus=x", "hardware=[]"], "--param hardware: '[]' is not a JSON object"),
        (["corpus=x", "mode=slow"], "--param mode: 'slow' is none of its values. It takes: fast, full."),
        (["corpus=x", "status={}"], "--param status: the server sets it (task_final_status). Leave it out."),
    ],
)
def test_what_does_not_fit_is_one_line(texts: list[str], message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse(PIPELINE, texts)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("kind", ["NUMBER_INTEGER", "NUMBER_DOUBLE", "BOOLEAN", "LIST", "STRUCT"])
def test_null_is_no_value(kind: str) -> None:
    inputs: dict[str, Any] = {"x": {"parameterType": kind}}
    spec = {"pipelineInfo": {"name": "p"}, "root": {"inputDefinitions": {"parameters": inputs}}}
    with pytest.raises(UsageError, match="'null' is not"):
        parse(IR(spec, {}), ["x=null"])
