"""The installed vLLM understands what is rendered: arguments are parsed to what was meant, variables are known."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import pytest
from deploy_services import service
from kserve_schemas import crds

from m4rag.deploy import catalog, crd
from m4rag.deploy.vlm_service import render
from m4rag.vlm.engine import CPU_SITE

MODELS = sorted(catalog.catalog().models)
NEW = crd.of_crds(crds())

PARSE = """
import json, sys
from vllm import envs
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.utils.argparse_utils import FlexibleArgumentParser

parser = make_arg_parser(FlexibleArgumentParser())
parsed = {}
for name, line in json.load(sys.stdin).items():
    found = parser.parse_args(line)
    validate_parsed_serve_args(found)
    parsed[name] = {key: value if isinstance(value, (dict, list, int, float, str, type(None))) else str(value)
                    for key, value in vars(found).items()}
print("PARSED" + json.dumps({"arguments": parsed, "variables": sorted(envs.environment_variables)}, default=str))
"""


@pytest.fixture(scope="module")
def understood() -> dict[str, Any]:
    """What vLLM's own parser makes of the arguments of every model, after the shell of KServe's preset."""
    if find_spec("vllm") is None:
        pytest.skip("vLLM is not installed: pip install 'm4rag[local]'")
    lines = {model: through_the_shell(runtime(model)["args"]) for model in MODELS}
    lines["cpu"] = through_the_shell(runtime("gemma-3-4b", hardware=catalog.hardware("cpu"))["args"])
    variables = os.environ | {"PYTHONPATH": str(CPU_SITE)}
    done = subprocess.run(
        [sys.executable, "-c", PARSE],
        input=json.dumps(lines),
        env=variables,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.partition("PARSED")[2])
    return found


def runtime(model: str, **changes: Any) -> dict[str, Any]:
    container: dict[str, Any] = render(service(model, **changes), NEW)[0]["spec"]["containers"][0]
    return container


def through_the_shell(arguments: list[str]) -> list[str]:
    script = r"""eval "exec printf '%s\0' $@" """
    done = subprocess.run(["bash", "-c", script, "bash", *arguments], capture_output=True, text=True, check=True)
    return done.stdout.rstrip("\0").split("\0")


@pytest.mark.parametrize("model", MODELS)
def test_vllm_takes_the_arguments_as_they_were_meant(model: str, understood: dict[str, Any]) -> None:
    entry, parsed = catalog.model(model), understood["arguments"][model]
    assert parsed["model"] == "/mnt/models"
    assert parsed["served_model_name"] == [entry.served_name]
    assert parsed["tensor_parallel_size"] == entry.tensor_parallel
    assert parsed["max_model_len"] == entry.max_model_len
    assert parsed["shutdown_timeout"] == 600
    assert parsed["max_num_queued_reqs"] == 256
    assert parsed["allowed_media_domains"] == ["media.invalid"]
    assert parsed["limit_mm_per_prompt"] == {"video": 0, "image": 4 if entry.task == "generate" else 1}
    assert parsed["runner"] == ("generate" if entry.task == "generate" else "pooling")


def test_nested_fields_arrive_with_their_types(understood: dict[str, Any]) -> None:
    parsed = understood["arguments"]
    assert parsed["qwen3-vl-8b"]["mm_processor_kwargs"] == {"max_pixels": 1310720}
    assert parsed["gemma-3-27b"]["mm_processor_kwargs"] == {"do_pan_and_scan": False}
    assert "disable_any_whitespace=True" in parsed["gemma-3-27b"]["structured_outputs_config"]
    assert parsed["netra-embed"]["hf_overrides"] == {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "matryoshka_dimensions": [768, 1536, 2560],
    }
    assert "seq_pooling_type='LAST'" in parsed["netra-embed"]["pooler_config"]
    assert parsed["cpu"]["kv_cache_memory_bytes"] == 2 * 2**30


def test_vllm_knows_every_variable_of_its_own(understood: dict[str, Any]) -> None:
    named = {one["name"] for model in MODELS for one in runtime(model)["env"]}
    ours = {name for name in named if name.startswith("VLLM_")}
    assert ours
    assert ours <= set(understood["variables"])
