"""Names, labels and times that Kubernetes takes, whatever people call their models and runs."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m4rag.deploy import names
from m4rag.errors import BadData, UsageError

DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
LABEL = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")


@given(st.text(), st.text())
def test_any_base_and_run_give_a_name_that_kserve_takes(base: str, run: str) -> None:
    name = names.service_name(base, run)
    assert DNS_1035.fullmatch(name), name
    assert len(name) <= 45
    assert names.check_name(name) == name
    assert names.service_name(base, run) == name


@given(st.text(), st.text(), st.text())
def test_two_runs_and_two_models_never_share_a_name(base: str, run: str, other: str) -> None:
    if run != other:
        assert names.service_name(base, run) != names.service_name(base, other)
        assert names.service_name(run, base) != names.service_name(other, base)


def test_a_name_says_what_it_serves() -> None:
    assert re.fullmatch(r"qwen2-5-vl-7b-[0-9a-f]{8}", names.service_name("Qwen2.5-VL-7B", "museum-1"))
    assert names.service_name("3B of ours", "r").startswith("m4rag-3b-of-ours-")
    assert names.service_name("模型", "r").startswith("m4rag-")


@pytest.mark.parametrize("name", ["", "7b", "Qwen", "a_b", "a.b", "-a", "a-", "a" * 46, "a\n"])
def test_a_name_that_kserve_would_refuse_is_refused_here(name: str) -> None:
    with pytest.raises(UsageError, match="lower-case letters"):
        names.check_name(name)


@given(st.text())
def test_any_text_becomes_the_value_of_a_label(text: str) -> None:
    value = names.label_value(text)
    assert LABEL.fullmatch(value), value
    assert len(value) <= 63
    assert names.label_value(value) == value


def test_a_run_that_is_a_label_stays_readable_and_others_stay_apart() -> None:
    assert names.label_value("museum-ca684015c7a0") == "museum-ca684015c7a0"
    assert names.label_value("a b") != names.label_value("a/b")
    assert names.label_value("x" * 64) != names.label_value("x" * 65)


def test_what_the_labels_say_the_selector_finds() -> None:
    labels = names.labels("qwen2-5-vl-7b", "a run/1")
    assert labels[names.MANAGED_BY] == "m4rag"
    assert labels[names.MODEL] == "qwen2-5-vl-7b"
    assert names.selector("a run/1") == f"{names.MANAGED_BY}=m4rag,{names.RUN}={labels[names.RUN]}"
    assert names.RUN not in names.labels("qwen2-5-vl-7b", None)


@given(st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(9990, 1, 1)), st.integers(-720, 840))
def test_a_time_comes_back_to_the_second(time: datetime, minutes: int) -> None:
    zoned = time.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    text = names.timestamp(zoned)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", text)
    assert names.parse_timestamp(text, "here") == zoned.replace(microsecond=0)


@pytest.mark.parametrize("text", ["", "soon", "2026-11-22T12:00:00", "2026-13-01T00:00:00Z"])
def test_a_time_that_is_none_is_not_taken_for_the_past(text: str) -> None:
    with pytest.raises(BadData, match=r"InferenceService m4rag/x: m4rag\.io/expires-at is"):
        names.parse_timestamp(text, "InferenceService m4rag/x")


def test_a_time_without_a_zone_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        names.timestamp(datetime(2026, 11, 22))
    assert names.timestamp(datetime(2026, 11, 22, tzinfo=UTC)) == "2026-11-22T00:00:00Z"
