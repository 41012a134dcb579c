"""A failed start is explained from the log. The logs are vLLM 0.32's own words, each from a start that failed so."""

from __future__ import annotations

import pytest

from m4rag.vlm.failures import explain, last_error

TRACE = """(APIServer pid=27813) Traceback (most recent call last):
(APIServer pid=27813)   File "/x/vllm/engine/arg_utils.py", line 1955, in create_model_config
(APIServer pid=27813)     raise ValueError(f"it cannot be {reason}")
"""
ENGINE = """(EngineCore pid=2) ERROR 11-20 22:05:18 [core.py:1510] Traceback (most recent call last):
(EngineCore pid=2) ERROR 11-20 22:05:18 [core.py:1510]     raise ValueError(
"""
ECHO = """
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}
"""

HEALTHY = """(APIServer pid=1) WARNING 11-20 21:20 [system_utils.py:255] Found ulimit of 20000 and failed to \
automatically increase with error current limit exceeds maximum limit. This can cause fd limit errors like `OSError: \
[Errno 24] Too many open files`. Consider increasing with ulimit -n
(Worker pid=3) WARNING 11-20 21:20 [utils.py:333] Attempted to load weight norm.weight with dtype torch.float32
(EngineCore pid=2) INFO 11-20 21:20 [kv_cache_utils.py:2327] CPU KV cache size: 524,288 tokens
(EngineCore pid=2) WARNING 11-20 21:20 [cpu.py:224] Triton is not installed. triton-cpu is expected on x86 CPUs.
(APIServer pid=1) INFO 11-20 21:20 [hf.py:648] Detected the chat template content format to be 'openai'.
INFO:     Application startup complete.
"""


@pytest.mark.parametrize(
    ("line", "tells"),
    [
        ("OSError: [Errno 98] Address already in use", ["port is already in use", "--port"]),
        ("ModuleNotFoundError: No module named 'vllm'", ["package vllm is missing", "local"]),
        ("RuntimeError: operator torchvision::nms does not exist", ["torchvision"]),
        (
            "ImportError: libcudnn.so.9: cannot open shared object file: No such file or directory",
            ["libcudnn.so.9", "CPU build"],
        ),
        (
            "  Value error, Invalid repository ID or local directory specified: '/tmp/empty'.",
            ["does not exist or holds no config.json"],
        ),
        (
            "HFValidationError: Repo id must be in the form 'repo_name' or 'namespace/repo_name': '/tmp/gone'.",
            ["does not exist or holds no config.json"],
        ),
        (
            "OSError: It looks like the config file at '/m/config.json' is not a valid JSON file.",
            ["/m/config.json is not valid JSON"],
        ),
        (
            "huggingface_hub.errors.LocalEntryNotFoundError: Cannot find an appropriate cached snapshot folder for the "
            "specified revision on the local disk and outgoing traffic has been disabled.",
            ["no hub can be reached", "local model folder"],
        ),
        (
            "  Value error, The checkpoint you are trying to load has model type `nosuch` but Transformers does not "
            "recognize this architecture.",
            ["model type nosuch"],
        ),
        (
            "  Value error, Model architectures ['NoSuchModel'] are not supported for now. Supported architectures: ",
            ["does not support the architecture NoSuchModel"],
        ),
        ("RuntimeError: Cannot find any model weights with `/m`", ["no weights"]),
        (
            "safetensors._safetensors_rust.SafetensorError: Error while deserializing header: incomplete metadata",
            ["damaged or incomplete"],
        ),
        (
            "ValueError: There is no module or parameter named 'vision_tower.embeddings' in LlavaForConditional",
            ["other names of weights than vision_tower.embeddings"],
        ),
        ("ValueError: Couldn't instantiate the backend tokenizer from one of:", ["no usable tokenizer"]),
        ("OSError: Can't load image processor for '/m'.", ["preprocessor_config.json"]),
        (
            "  Value error, User-specified max_model_len (131072) is greater than the derived max_model_len "
            "(max_position_embeddings=65536.0 or model_max_length=None in model's config.json).",
            ["131072 tokens is longer", "--max-model-len"],
        ),
        (
            "ValueError: To serve at least one request with the model's max seq len (65536), (0.03 GiB KV cache is "
            "needed, which is larger than the available KV cache memory (0.0 GiB).",
            ["KV cache has no room", "--kv-cache-gib"],
        ),
        (
            "ValueError: Available memory on node 0 (12.31/13.96 GiB) on kv cache allocation is less than requested "
            "memory for kv (372.53 GiB).",
            ["not enough free memory"],
        ),
        (
            "ValueError: Available memory on node 0 (5.0/13.9 GiB) on startup is less than desired CPU memory "
            "utilization (0.92, 12.85 GiB).",
            ["not enough free memory"],
        ),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", ["not enough free memory"]),
        ("Killed", ["not enough free memory"]),
        ("RuntimeError: Failed to infer device type", ["CUDA build needs a GPU"]),
        ("api_server.py: error: unrecognized arguments: --foo 1", ["option --foo 1"]),
    ],
)
def test_known_causes_are_named_with_a_remedy(line: str, tells: list[str]) -> None:
    meaning = explain(HEALTHY + TRACE + line + "\n" + ECHO)
    assert meaning is not None
    assert all(part in meaning for part in tells), meaning


def test_a_log_without_trouble_explains_nothing() -> None:
    assert explain(HEALTHY) is None
    assert last_error(HEALTHY) is None
    assert explain("") is last_error("") is None


def test_an_unknown_cause_is_the_last_error_that_is_no_echo() -> None:
    log = (
        HEALTHY
        + ENGINE
        + "(EngineCore pid=2) ERROR 11-20 22:05:18 [core.py:1510] ValueError: the moon is full\n"
        + ECHO
    )
    assert explain(log) is None
    assert last_error(log) == "ValueError: the moon is full"


def test_an_echo_is_better_than_nothing() -> None:
    found = last_error(HEALTHY + ECHO)
    assert found is not None
    assert found.startswith("RuntimeError: Engine core initialization failed")
