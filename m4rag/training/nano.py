"""The reference models' architectures: LLaVA (a CLIP tower, a Llama text model), small, in the layout vLLM serves.

All models of `m4rag.models` share one picture tower and one tokenizer.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m4rag.encoders.local import hide_broken_torchvision
from m4rag.models import COLEMBED, EMBED, SMALL_VLM, VLM

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from tokenizers import Tokenizer
    from transformers import LlavaForConditionalGeneration

CONTEXT = 32768
"""Positions the text model takes. It was trained on prompts of up to about 600 tokens."""

IMAGE, PATCH = 112, 16
IMAGE_TOKENS = (IMAGE // PATCH) ** 2
IMAGE_MEAN, IMAGE_STD = 0.5, 0.25
HEAD = 32
INITIAL = 0.06
"""Spread of a fresh text model's weights: about 1 / sqrt(width). With the usual 0.02, models as narrow as these take
many times as long to learn to look anything up."""

PAD, BOS, EOS, IMAGE_TOKEN, USER, ASSISTANT = "<pad>", "<s>", "</s>", "<image>", "<|user|>", "<|assistant|>"
SPECIALS = (PAD, BOS, EOS, IMAGE_TOKEN, USER, ASSISTANT)

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "<|{{ message['role'] }}|>"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>"
    "{% elif messages[-1]['role'] == 'user' %}{{ eos_token }}{% endif %}"
)
"""Without a generation prompt it ends in the end token, whose hidden state is what the embedders pool."""


@dataclass(frozen=True)
class Size:
    """Widths and depths; heads are 32 wide."""

    hidden: int
    inner: int
    layers: int


@dataclass(frozen=True)
class Tower:
    """The CLIP tower, the same in all models."""

    hidden: int = 96
    inner: int = 384
    layers: int = 3
    heads: int = 3


SIZES = {
    VLM: Size(hidden=224, inner=576, layers=4),
    SMALL_VLM: Size(hidden=128, inner=256, layers=3),
    EMBED: Size(hidden=128, inner=320, layers=2),
    COLEMBED: Size(hidden=128, inner=320, layers=2),
}


def config(name: str, tokenizer: Tokenizer) -> dict[str, Any]:
    """The model's config.json."""
    size, tower = SIZES[name], Tower()
    text = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": size.hidden,
        "intermediate_size": size.inner,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.hidden // HEAD,
        "num_key_value_heads": size.hidden // HEAD,
        "head_dim": HEAD,
        "max_position_embeddings": CONTEXT,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "initializer_range": INITIAL,
        "tie_word_embeddings": True,
        "bos_token_id": tokenizer.token_to_id(BOS),
        "eos_token_id": tokenizer.token_to_id(EOS),
        "pad_token_id": tokenizer.token_to_id(PAD),
    }
    return {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "dtype": "bfloat16",
        "image_token_index": tokenizer.token_to_id(IMAGE_TOKEN),
        "image_seq_length": IMAGE_TOKENS,
        "projector_hidden_act": "gelu",
        "multimodal_projector_bias": True,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "default",
        "tie_word_embeddings": True,
        "vision_config": vision_config(tower),
        "text_config": text,
        **({"is_matryoshka": True} if name == EMBED else {}),
    }


def vision_config(tower: Tower) -> dict[str, Any]:
    """The tower's part of config.json."""
    return {
        "model_type": "clip_vision_model",
        "image_size": IMAGE,
        "patch_size": PATCH,
        "hidden_size": tower.hidden,
        "intermediate_size": tower.inner,
        "num_hidden_layers": tower.layers,
        "num_attention_heads": tower.heads,
        "projection_dim": tower.hidden,
    }


def build(name: str, tokenizer: Tokenizer, *, seed: int) -> LlavaForConditionalGeneration:
    """A fresh model in float32; the same seed gives the same weights."""
    hide_broken_torchvision()
    import torch
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    torch.manual_seed(seed)
    return LlavaForConditionalGeneration(LlavaConfig.from_dict(config(name, tokenizer)))


def load(folder: Path) -> LlavaForConditionalGeneration:
    """An exported model, in float32."""
    hide_broken_torchvision()
    import torch
    from transformers import LlavaForConditionalGeneration

    return LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)


def pixels(images: list[NDArray[np.uint8]]) -> torch.Tensor:
    """[n, 112, 112, 3] bytes as the model's input [n, 3, 112, 112]: what its image processor makes of them."""
    import numpy as np
    import torch

    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(torch.float32)
    return (stacked / 255 - IMAGE_MEAN) / IMAGE_STD


def export(model: LlavaForConditionalGeneration, name: str, tokenizer: Tokenizer, folder: Path) -> None:
    """Write a checkpoint in bfloat16 that vLLM serves and transformers loads.

    transformers 5 saves weight names that vLLM 0.32 does not map; here are those of the published LLaVA checkpoints.
    """
    import torch
    from safetensors.torch import save_file

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    weights = {
        _published_name(key): tensor.detach().to(torch.bfloat16).contiguous()
        for key, tensor in model.state_dict().items()
        if key != "lm_head.weight"  # tied to the embeddings
    }
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})
    tokenizer.save(str(folder / "tokenizer.json"))
    for file, content in {"config.json": config(name, tokenizer), **_processor_files(tokenizer)}.items():
        (folder / file).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _published_name(key: str) -> str:
    for new, published in (
        ("model.language_model.", "language_model.model."),
        ("model.vision_tower.vision_model.", "vision_tower.vision_model."),
        ("model.vision_tower.", "vision_tower.vision_model."),
        ("model.multi_modal_projector.", "multi_modal_projector."),
    ):
        if key.startswith(new):
            return published + key.removeprefix(new)
    raise ValueError(f"a weight without a published name: {key}")


def _processor_files(tokenizer: Tokenizer) -> dict[str, Any]:
    resize = {"height": IMAGE, "width": IMAGE}
    ids = {"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD}
    return {
        "generation_config.json": {key: tokenizer.token_to_id(token) for key, token in ids.items()},
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "processor_class": "LlavaProcessor",
            "bos_token": BOS,
            "eos_token": EOS,
            "pad_token": PAD,
            "image_token": IMAGE_TOKEN,
            "extra_special_tokens": {"image_token": IMAGE_TOKEN},
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
            "image_mean": [IMAGE_MEAN] * 3,
            "image_std": [IMAGE_STD] * 3,
            "do_convert_rgb": True,
            "resample": 3,
        },
        "processor_config.json": {
            "processor_class": "LlavaProcessor",
            "patch_size": PATCH,
            "vision_feature_select_strategy": "default",
            "image_token": IMAGE_TOKEN,
            "num_additional_image_tokens": 1,
        },
    }
