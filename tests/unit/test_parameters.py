"""Values from outside become what a function takes, or one line that says which does not."""

from __future__ import annotations

import pytest

from m4rag.bench.benchmark import Request
from m4rag.errors import UsageError
from m4rag.index.steps import Shard
from m4rag.parameters import from_params


def test_numbers_that_a_local_run_made_floats_are_integers_again() -> None:
    shard = from_params(Shard, number=1.0, of=4.0)
    assert (shard, type(shard.number)) == (Shard(1, 4), int)


def test_lists_become_tuples_and_names_paths() -> None:
    request = from_params(Request, dataset="sample", settings=["no_rag"], k=5.0, items="q.parquet", documents=None)
    assert (request.settings, request.k, str(request.items), request.documents) == (("no_rag",), 5, "q.parquet", None)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"number": 0.5, "of": 2}, r"parameter number: .*fractional part \(got 0\.5\)"),
        ({"number": 0}, "parameter of: Field required"),
        ({"number": 0, "of": 2, "size": 3}, "parameter size: there is none of this name: number, of"),
        ({"number": 2.0, "of": 2.0}, "no shard 2 of 2"),
    ],
)
def test_what_does_not_fit_is_named(values: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        from_params(Shard, **values)
