"""The tables of models and hardware are complete and consistent, and say what is wrong with somebody's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from m4rag.deploy.catalog import HARDWARE, MODELS, catalog, combined, hardware, model, profiles
from m4rag.errors import BadData, UsageError

NAMES = sorted(catalog().models)
H100_GIB = 79.6
OWN: dict[str, Any] = {
    "uri": "hf://me/mine",
    "task": "generate",
    "served_name": "mine",
    "hardware": "h100x1",
    "weights_gib": 5.0,
    "tensor_parallel": 1,
    "max_model_len": 8192,
    "image_tokens": 256,
    "arguments": [{"flag": "--max-num-seqs", "value": 16, "why": "a reason that can be read"}],
    "environment": [],
}


def written(folder: Path, **changes: Any) -> str:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({"models": {"mine": OWN | changes}}))
    return str(path)


def value(name: str, flag: str) -> Any:
    return next(
        (one.value for one in combined(hardware(model(name).hardware), model(name)).arguments if one.flag == flag), None
    )


def test_the_models_of_the_study_are_there() -> None:
    families = {
        "qwen2-5-vl": ("3b", "7b", "32b", "72b"),
        "qwen3-vl": ("4b", "8b", "32b"),
        "gemma-3": ("4b", "12b", "27b"),
        "pangea": ("7b",),
        "netra": ("embed",),
    }
    assert {f"{family}-{size}" for family, sizes in families.items() for size in sizes} <= set(NAMES)
    assert {"h100x1", "h100x4", "cpu"} <= set(profiles())


@pytest.mark.parametrize("name", NAMES)
def test_a_model_fits_its_hardware(name: str) -> None:
    entry, place = model(name), hardware(model(name).hardware)
    assert entry.tensor_parallel == place.gpus
    room = place.gpus * H100_GIB * float(value(name, "--gpu-memory-utilization"))
    assert entry.weights_gib <= 0.8 * room, "a fifth is the least for cache and activations"


@pytest.mark.parametrize("name", NAMES)
def test_the_images_of_a_prompt_fit_its_context_and_its_batch(name: str) -> None:
    entry = model(name)
    images = value(name, "--limit-mm-per-prompt.image")
    assert images * entry.image_tokens + 2048 <= entry.max_model_len
    assert entry.image_tokens <= (value(name, "--max-num-batched-tokens") or 2048)


@pytest.mark.parametrize("name", NAMES)
def test_the_pixels_of_an_image_are_the_tokens_that_the_table_says(name: str) -> None:
    entry = model(name)
    for family, pixels_per_token in (("qwen2-5-vl", 28 * 28), ("qwen3-vl", 32 * 32)):
        if name.startswith(family):
            assert value(name, "--mm-processor-kwargs.max_pixels") == entry.image_tokens * pixels_per_token
    if "max_pixels" not in str(entry.arguments):
        assert not name.startswith("qwen")


@pytest.mark.parametrize("name", NAMES)
def test_no_server_fetches_from_the_network_and_every_queue_ends(name: str) -> None:
    assert value(name, "--allowed-media-domains") == "media.invalid"
    assert value(name, "--limit-mm-per-prompt.video") == 0
    assert value(name, "--max-num-queued-reqs")
    variables = {one.name: one.value for one in model(name).environment}
    assert variables["VLLM_MEDIA_URL_ALLOW_REDIRECTS"] == "0"


def test_a_served_name_stands_for_one_model() -> None:
    served = [model(name).served_name for name in NAMES]
    assert len(set(served)) == len(served)


def test_nothing_is_said_in_two_parts_of_the_tables() -> None:
    """The chart puts the parts one after the other, so what two of them say would be given twice."""
    table = catalog()
    for entry in table.models.values():
        for place in profiles().values():
            parts = (place, table.common, table.tasks[entry.task], entry)
            flags = [one.flag for part in parts for one in part.arguments]
            assert len(set(flags)) == len(flags)
            variables = [one.name for part in parts for one in part.environment]
            assert len(set(variables)) == len(variables)


def test_unknown_names_are_told_what_there_is() -> None:
    with pytest.raises(UsageError, match=r"no model 'qwen'. Choose of qwen2-5-vl-3b, .*, or name a YAML file"):
        model("qwen")
    with pytest.raises(UsageError, match=r"no hardware profile 'a100'. Choose of h100x1, "):
        hardware("a100")


def test_an_own_model_gets_what_every_model_gets(tmp_path: Path) -> None:
    mine = model(written(tmp_path))
    flags = [one.text for one in mine.arguments]
    assert mine.name == "mine"
    assert flags[-1] == "--max-num-seqs=16"
    assert {"--allowed-media-domains=media.invalid", "--runner=generate"} <= set(flags)


def test_an_own_model_may_say_otherwise(tmp_path: Path) -> None:
    argument = {"flag": "--limit-mm-per-prompt.image", "value": 9, "why": "albums of nine pictures"}
    flags = [one.text for one in model(written(tmp_path, arguments=[argument])).arguments]
    assert "--limit-mm-per-prompt.image=9" in flags
    assert "--limit-mm-per-prompt.image=4" not in flags


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_modle_len": 1}, r"models.mine.max_modle_len: unknown key"),
        ({"uri": "hf://me/mine:main"}, r"models.mine.uri: 'hf://me/mine:main' is not of the form hf://owner/name"),
        ({"task": "chat"}, r"models.mine.task: .*'generate' or 'embed'"),
        ({"served_name": "My Model"}, r"'My Model' can't be part of an address"),
        (
            {"arguments": [{"flag": "--limit-mm-per-prompt", "value": '{"image": 4}', "why": "a reason to read"}]},
            r"would not survive the shell .* each field with a flag of its own",
        ),
        ({"arguments": [{"flag": "-tp", "value": 4, "why": "a reason to read"}]}, r"'-tp' is not a flag"),
        ({"arguments": [{"flag": "--port", "value": 1, "why": "a reason to read"}]}, r"--port has no place here"),
        ({"arguments": [{"flag": "--api-key", "value": "s", "why": "a reason to read"}]}, r"or it is a secret"),
        ({"arguments": [{"flag": "--seed", "value": 1, "why": "x"}]}, r"arguments.0.why"),
        ({"arguments": [{"flag": "--seed", "value": 1}]}, r"arguments.0.why: missing"),
        ({"arguments": [{"flag": "--a", "why": "a reason to read"}] * 2}, r"--a is there twice"),
        ({"environment": [{"name": "HF_TOKEN", "value": "x", "why": "a reason to read"}]}, r"looks like a secret"),
        ({"environment": [{"name": "PYTHONPATH", "value": "x", "why": "a reason to read"}]}, r"KServe refuses"),
        ({"weights_gib": 0}, r"models.mine.weights_gib"),
    ],
)
def test_what_is_wrong_with_an_own_model_is_said(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadData, match=message) as refused:
        model(written(tmp_path, **changes))
    assert "\n" not in str(refused.value)
    assert str(tmp_path) in str(refused.value)


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    with pytest.raises(UsageError, match="no such file"):
        model(str(path))
    for content, message in [
        ("models: {", "can't be read as YAML"),
        ("[]", "dictionary"),
        ("models: {}", "0 models"),
        ("models: {a: 1, a: 2}", "a is there twice"),
    ]:
        path.write_text(content)
        with pytest.raises(BadData, match=message):
            model(str(path))


def test_an_own_model_does_not_pass_for_one_of_the_table(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"models": {"gemma-3-4b": OWN}}))
    with pytest.raises(BadData, match="gemma-3-4b is in m4rag's own table"):
        model(str(path))


@pytest.mark.parametrize("path", [MODELS, HARDWARE], ids=lambda path: path.name)
def test_every_argument_and_variable_has_its_reason_in_a_line(path: Path) -> None:
    def reasons(value: Any) -> list[str]:
        if isinstance(value, dict):
            own = [value["why"]] if "why" in value else []
            return own + [one for part in value.values() for one in reasons(part)]
        return [one for part in value for one in reasons(part)] if isinstance(value, list) else []

    found = reasons(yaml.safe_load(path.read_text()))
    assert found
    assert all(20 < len(one) < 130 and "\n" not in one for one in found), found
