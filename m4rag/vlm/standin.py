"""A vision-language model with random weights, so that everything around the model runs without a model hub.

It is a real architecture (LLaVA: a CLIP tower and a Llama text model) in the layout of the published LLaVA
checkpoints, 2.4 million parameters, made in a second without torch. It reads any script byte by byte and any image
at 112 pixels; what it answers is noise. Reports must print `NOTE` beside every number it produces.

The weights are random but for one channel of the hidden state that is the same for every token: through it the output
layer leans to printable ASCII and to coming to an end, so that explanations are short and a benchmark is quick.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m4rag.manifests import digest, publish

if TYPE_CHECKING:
    import numpy as np
    from tokenizers import Tokenizer

NAME = "m4rag-standin-random"
NOTE = "The model is a stand-in with random weights: its accuracy is chance and says nothing about any real model."

CONTEXT = 65536
"""Positions the text model takes: five 256-word passages in a three-byte script are about 40,000 byte tokens."""

IMAGE, PATCH = 112, 14
VISION = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT = {
    "hidden_size": 256,
    "intermediate_size": 1024,
    "num_hidden_layers": 2,  # attention over long prompts is what costs: few layers, few heads
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 64,
}
SPECIALS = ("<pad>", "<s>", "</s>", "<image>", "<|user|>", "<|assistant|>")
BYTES = 256
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "<|{{ message['role'] }}|>\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
COMPLETE = "m4rag_standin.json"

HEAD = "language_model.lm_head.weight"
CONSTANT = ("language_model.model.embed_tokens.weight", "multi_modal_projector.linear_2.bias")
CONSTANT_SIZE = 2.0
ATTENTION = 3.0  # the text model's attention is this much sharper than a fresh one's: what it reads makes a difference
LEAN_TO_END, LEAN_FROM_NOISE = 2.0, -4.0
ENDS_TEXT, ENDS_ANSWER = '"', "</s>"


def write_standin(folder: Path, *, seed: int = 0) -> Path:
    """Write the checkpoint; a complete one made by the same recipe is left alone.

    Args:
        folder: Where the checkpoint goes.
        seed: Determines the weights, bit by bit.

    Returns:
        The folder, ready for `m4rag.vlm.launcher.start`.
    """
    recipe = digest({"config": _config(), "template": CHAT_TEMPLATE, "seed": seed, "weights": _weight_settings()})
    if _recipe_of(folder) == recipe:
        return folder
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    _write_weights(temporary / "model.safetensors", seed)
    _tokenizer().save(str(temporary / "tokenizer.json"))
    for name, content in _json_files().items():
        _write_json(temporary / name, content)
    _write_json(temporary / COMPLETE, {"recipe": recipe, "note": NOTE})
    shutil.rmtree(folder, ignore_errors=True)
    try:
        publish(temporary, folder)
    except OSError:
        if _recipe_of(folder) != recipe:
            raise
        shutil.rmtree(temporary)  # another process was faster; its checkpoint is the same
    return folder


def _weight_settings() -> list[float]:
    return [CONSTANT_SIZE, ATTENTION, LEAN_TO_END, LEAN_FROM_NOISE]


def _recipe_of(folder: Path) -> str | None:
    try:
        return str(json.loads((folder / COMPLETE).read_text())["recipe"])
    except (FileNotFoundError, NotADirectoryError):
        return None


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _token(special: str) -> int:
    return BYTES + SPECIALS.index(special)


def _vocabulary() -> int:
    return BYTES + len(SPECIALS)


def _config() -> dict[str, Any]:
    return {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "dtype": "bfloat16",
        "image_token_index": _token("<image>"),
        "image_seq_length": (IMAGE // PATCH) ** 2,
        "projector_hidden_act": "gelu",
        "multimodal_projector_bias": True,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "default",
        "tie_word_embeddings": False,
        "vision_config": {
            "model_type": "clip_vision_model",
            "image_size": IMAGE,
            "patch_size": PATCH,
            "projection_dim": VISION["hidden_size"],
            **VISION,
        },
        "text_config": {
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "vocab_size": _vocabulary(),
            "max_position_embeddings": CONTEXT,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": False,
            "bos_token_id": _token("<s>"),
            "eos_token_id": _token("</s>"),
            "pad_token_id": _token("<pad>"),
            **TEXT,
        },
    }


def _json_files() -> dict[str, Any]:
    resize = {"height": IMAGE, "width": IMAGE}
    return {
        "config.json": _config(),
        "generation_config.json": {
            "bos_token_id": _token("<s>"),
            "eos_token_id": _token("</s>"),
            "pad_token_id": _token("<pad>"),
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "processor_class": "LlavaProcessor",
            "bos_token": "<s>",
            "eos_token": "</s>",
            "pad_token": "<pad>",
            "image_token": "<image>",
            "extra_special_tokens": {"image_token": "<image>"},
            "chat_template": CHAT_TEMPLATE,
            "clean_up_tokenization_spaces": False,
            "padding_side": "left",
            "model_max_length": CONTEXT,
        },
        "preprocessor_config.json": {
            "image_processor_type": "CLIPImageProcessor",
            "do_resize": True,
            "size": resize,
            "do_center_crop": False,
            "crop_size": resize,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.25, 0.25, 0.25],
            "do_convert_rgb": True,
            "resample": 3,
        },
        "processor_config.json": {
            "processor_class": "LlavaProcessor",
            "patch_size": PATCH,
            "vision_feature_select_strategy": "default",
            "image_token": "<image>",
            "num_additional_image_tokens": 1,
        },
    }


def _tokenizer() -> Tokenizer:
    """One token per UTF-8 byte, no merges: every script fits, none is favoured."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE(vocab=_alphabet(), merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(special, special=True, normalized=False) for special in SPECIALS])
    return tokenizer


def _alphabet() -> dict[str, int]:
    """Byte symbol (printable ASCII stands for itself, a space is `Ġ`) to token."""
    from tokenizers import pre_tokenizers

    return {symbol: index for index, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}


def _shapes() -> dict[str, tuple[int, ...]]:
    """Weight names of the published LLaVA checkpoints, the ones that vLLM maps; transformers 5 saves others."""
    hidden, inner = TEXT["hidden_size"], TEXT["intermediate_size"]
    queries, keys = (TEXT[heads] * TEXT["head_dim"] for heads in ("num_attention_heads", "num_key_value_heads"))
    shapes: dict[str, tuple[int, ...]] = {
        "language_model.model.embed_tokens.weight": (_vocabulary(), hidden),
        "language_model.model.norm.weight": (hidden,),
        "language_model.lm_head.weight": (_vocabulary(), hidden),
    }
    for layer in range(TEXT["num_hidden_layers"]):
        prefix = f"language_model.model.layers.{layer}"
        shapes |= {
            f"{prefix}.self_attn.q_proj.weight": (queries, hidden),
            f"{prefix}.self_attn.k_proj.weight": (keys, hidden),
            f"{prefix}.self_attn.v_proj.weight": (keys, hidden),
            f"{prefix}.self_attn.o_proj.weight": (hidden, queries),
            f"{prefix}.mlp.gate_proj.weight": (inner, hidden),
            f"{prefix}.mlp.up_proj.weight": (inner, hidden),
            f"{prefix}.mlp.down_proj.weight": (hidden, inner),
            f"{prefix}.input_layernorm.weight": (hidden,),
            f"{prefix}.post_attention_layernorm.weight": (hidden,),
        }
    return shapes | _vision_shapes() | _projector_shapes()


def _vision_shapes() -> dict[str, tuple[int, ...]]:
    hidden, inner = VISION["hidden_size"], VISION["intermediate_size"]
    prefix = "vision_tower.vision_model"
    shapes: dict[str, tuple[int, ...]] = {
        f"{prefix}.embeddings.class_embedding": (hidden,),
        f"{prefix}.embeddings.patch_embedding.weight": (hidden, 3, PATCH, PATCH),
        f"{prefix}.embeddings.position_embedding.weight": ((IMAGE // PATCH) ** 2 + 1, hidden),
    }
    linear = {f"self_attn.{projection}_proj": (hidden, hidden) for projection in "qkv"}
    linear |= {"self_attn.out_proj": (hidden, hidden), "mlp.fc1": (inner, hidden), "mlp.fc2": (hidden, inner)}
    norms = [f"{prefix}.pre_layrnorm", f"{prefix}.post_layernorm"]
    for layer in range(VISION["num_hidden_layers"]):
        norms += [f"{prefix}.encoder.layers.{layer}.layer_norm{norm}" for norm in (1, 2)]
        for name, shape in linear.items():
            shapes[f"{prefix}.encoder.layers.{layer}.{name}.weight"] = shape
            shapes[f"{prefix}.encoder.layers.{layer}.{name}.bias"] = shape[:1]
    return shapes | {f"{norm}.{part}": (hidden,) for norm in norms for part in ("weight", "bias")}


def _projector_shapes() -> dict[str, tuple[int, ...]]:
    hidden = TEXT["hidden_size"]
    return {
        "multi_modal_projector.linear_1.weight": (hidden, VISION["hidden_size"]),
        "multi_modal_projector.linear_1.bias": (hidden,),
        "multi_modal_projector.linear_2.weight": (hidden, hidden),
        "multi_modal_projector.linear_2.bias": (hidden,),
    }


def _write_weights(path: Path, seed: int) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    generator = np.random.default_rng(seed)
    weights = {name: _weight(name, shape, generator) for name, shape in sorted(_shapes().items())}
    save_file(weights, str(path), metadata={"format": "pt"})


def _weight(name: str, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """Norms start as identity; the rest is drawn so that activations keep unit size and images make a difference."""
    import numpy as np

    if name.endswith("bias"):
        weight = np.zeros(shape, np.float32)
    elif "norm" in name:
        weight = np.ones(shape, np.float32)
    else:
        embedding = "embed" in name and "patch" not in name
        scale = 1.0 if embedding else 1 / math.sqrt(math.prod(shape[1:]))
        if "language_model" in name and name.endswith(("q_proj.weight", "k_proj.weight", "o_proj.weight")):
            scale *= ATTENTION
        weight = (scale * generator.standard_normal(shape)).astype(np.float32)
    if name in CONSTANT:
        weight[..., 0] = CONSTANT_SIZE
    elif name.endswith(("self_attn.o_proj.weight", "mlp.down_proj.weight", "linear_2.weight")):
        weight[0] = 0  # nothing is ever added to the constant channel
    elif name == HEAD:
        weight[:, 0] = _leaning()
    return weight


def _leaning() -> np.ndarray:
    """What the constant channel adds to each token's logit, in units of their spread."""
    import numpy as np

    alphabet = _alphabet()
    leaning = np.full(_vocabulary(), LEAN_FROM_NOISE, np.float32)
    leaning[[alphabet[symbol] for symbol in alphabet if symbol == "Ġ" or "!" <= symbol <= "~"]] = 0
    leaning[alphabet["\\"]] = LEAN_FROM_NOISE  # an escape would have to be completed
    leaning[[alphabet[ENDS_TEXT], _token(ENDS_ANSWER)]] = LEAN_TO_END
    return leaning
