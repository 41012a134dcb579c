"""Say in a sentence why a vLLM server did not start, from its log."""

from __future__ import annotations

import re

# What a log says, and what that means and asks for; the first that is found is told. `{it}` is the pattern's group.
CAUSES = (
    (
        r"address already in use|\[Errno 98\]",
        "Its port is already in use. Name another with --port, or stop what listens there.",
    ),
    (
        r"No module named ['\"](?P<it>[\w.]+)['\"]",
        "The Python package {it} is missing. Install m4rag again with its `local` extra (or `gpu`).",
    ),
    (
        r"operator torchvision::nms does not exist",
        "torchvision does not fit this build of torch. Install the one built for it.",
    ),
    (
        r"(?P<it>lib[\w.+-]+\.so[\w.]*): cannot open shared object file",
        "The library {it} is missing. Without a GPU, install the CPU build of torch.",
    ),
    (
        r"Repo id must be in the form|Invalid repository ID or local directory specified",
        "The model folder does not exist or holds no config.json. Name a complete checkpoint folder.",
    ),
    (
        r"config file at '(?P<it>[^'{]*)' is not a valid JSON file",
        "{it} is not valid JSON. Copy the model folder again.",
    ),
    (
        r"outgoing traffic has been disabled|LocalEntryNotFoundError|OfflineModeIsEnabled"
        r"|We couldn't connect to 'https://huggingface\.co'",
        "The model is not on this machine and no hub can be reached. Name a local model folder.",
    ),
    (
        r"RepositoryNotFoundError|GatedRepoError",
        "The hub does not have that model, or wants a login for it. Name a local model folder.",
    ),
    (
        r"has model type `(?P<it>[^`]+)` but Transformers does not recognize",
        "The installed transformers does not know the model type {it}. Take another model.",
    ),
    (
        r"Model architectures \['(?P<it>\w+)'\] are not supported",
        "This vLLM does not support the architecture {it}. Take another model.",
    ),
    (
        r"Cannot find any model weights",
        "The model folder has no weights (*.safetensors). Copy it again.",
    ),
    (
        r"SafetensorError",
        "A weights file is damaged or incomplete. Copy the model folder again.",
    ),
    (
        r"There is no module or parameter named '(?P<it>[^']+)'",
        "vLLM expects other names of weights than {it}. Export the checkpoint for this vLLM.",
    ),
    (
        r"Couldn't instantiate the backend tokenizer|Can't load tokenizer",
        "The model folder has no usable tokenizer (tokenizer.json). Copy it again.",
    ),
    (
        r"Can't load (?:image processor|feature extractor|processor)",
        "The model folder has no image processor (preprocessor_config.json). Copy it again.",
    ),
    (
        r"max_model_len \((?P<it>\d+)\) is greater than the derived",
        "A context of {it} tokens is longer than the model's. Lower --max-model-len.",
    ),
    (
        r"larger than the available KV cache memory|Cannot auto-fit max_model_len|No available memory for the cache",
        "The KV cache has no room for the context. Lower --max-model-len or raise --kv-cache-gib.",
    ),
    (
        r"on kv cache allocation is less than requested memory|less than desired (?:GPU|CPU) memory utilization"
        r"|CUDA out of memory|OutOfMemoryError|DefaultCPUAllocator: (?:can't|not enough)|\bMemoryError\b|std::bad_alloc"
        r"|Cannot allocate memory|^Killed$|: -9\b",
        "There is not enough free memory. Close something, or take a smaller model or --kv-cache-gib.",
    ),
    (
        r"No CUDA GPUs are available|Found no NVIDIA driver|Failed to infer device type",
        "vLLM finds no device: its CUDA build needs a GPU. Install m4rag's `local` extra for the CPU.",
    ),
    (
        r"unrecognized arguments?: (?P<it>.+)",
        "This vLLM does not know the option {it}. Install the version that m4rag names.",
    ),
)

ERROR_LINE = re.compile(r"^[\w.]*(?:Error|Exception)\b: \S|: error: ")
ECHO = re.compile(r"Engine core initialization failed|EngineDeadError|WorkerProc initialization failed")
PREFIX = re.compile(r"^\([^)]*pid=\d+\)\s*(?:(?:ERROR|WARNING) [\d-]+ [\d:]+ \[[^]]*\]\s*)?")


def explain(log_text: str) -> str | None:
    """What stopped the server, and what to do about it; None for a cause that is not known.

    Args:
        log_text: The server's log, or its end.
    """
    for pattern, meaning in CAUSES:
        if found := re.search(pattern, log_text, re.IGNORECASE | re.MULTILINE):
            return meaning.format(it=found.groupdict().get("it"))
    return None


def last_error(log_text: str) -> str | None:
    """The last line that names an error, without its process, and not the mere echo of another process's."""
    lines = [PREFIX.sub("", line).strip() for line in log_text.splitlines()]
    errors = [line for line in lines if ERROR_LINE.search(line)]
    causes = [line for line in errors if not ECHO.search(line)] or errors
    return causes[-1] if causes else None
