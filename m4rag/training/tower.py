"""The picture tower: a small CLIP vision transformer that learns to tell the museum's sprites apart.

Texts play no part, so pictures of new things may. All reference models start from this tower and leave it as it is.
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from m4rag.datasets.museum_pictures import SPRITES, sprites, variant
from m4rag.encoders.local import hide_broken_torchvision
from m4rag.manifests import digest, file_digest, short
from m4rag.progress import Progress
from m4rag.training import nano
from m4rag.training.trainer import Schedule, fit

if TYPE_CHECKING:
    import torch

SCHEDULE = Schedule(steps=2000, batch=64, rate=1e-3)


def tower(work: Path, *, seed: int, progress: Progress, schedule: Schedule = SCHEDULE) -> dict[str, torch.Tensor]:
    """The trained tower's weights, from `work` or trained now.

    Args:
        work: Folder for pictures, checkpoints and the result.
        seed: Determines pictures, initial weights and order.
        progress: Shows the training.
        schedule: For tests: fewer steps.
    """
    hide_broken_torchvision()
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import CLIPVisionConfig, CLIPVisionModel

    done = work / f"tower-{short(digest(made_by(schedule, seed)))}.safetensors"
    if not done.exists():
        torch.manual_seed(seed)
        config = dict(nano.vision_config(nano.Tower()))
        config.pop("model_type")
        model = _Classifier(CLIPVisionModel(CLIPVisionConfig(**config)), len(sprites()))
        data = _Pictures(schedule.steps * schedule.batch, seed)
        with progress("tower: steps", schedule.steps) as advance:
            log = fit(
                model,
                cast(Any, data),
                _collate,
                _loss,
                schedule,
                done.with_suffix(""),
                seed=seed,
                advance=advance,
                workers=1,
            )
        temporary = done.with_suffix(".tmp")
        save_file({key: tensor.contiguous() for key, tensor in model.vision.state_dict().items()}, str(temporary))
        done.with_suffix(".json").write_text(json.dumps(log))
        temporary.replace(done)
    return dict(load_file(str(done)))


def made_by(schedule: Schedule, seed: int) -> dict[str, Any]:
    """What determines the tower's weights, for the recipes of the models that start from it."""
    return {
        "tower": nano.vision_config(nano.Tower()),
        **asdict(schedule),
        "seed": seed,
        "sprites": {name: file_digest(SPRITES / f"{name}.webp") for name in sprites()},
    }


def _collate(items: Any) -> dict[str, Any]:
    import torch

    return {
        "pixel_values": nano.pixels([image for image, _ in items]),
        "labels": torch.tensor([row for _, row in items]),
    }


class _Pictures:
    """Item `i`: a picture drawn for it alone, and its sprite's number. A pool of pictures would be learned by heart."""

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed = size, seed

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[Any, int]:
        import numpy as np

        row = random.Random(f"tower:{self.seed}:{index}").randrange(len(sprites()))
        return np.asarray(variant(sprites()[row], f"tower:{self.seed}:{index}")), row


def _Classifier(vision: Any, classes: int) -> Any:  # noqa: N802 - makes a torch module without importing torch above
    import torch

    class Classifier(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vision = vision
            self.head = torch.nn.Linear(vision.config.hidden_size, classes)

        def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
            hidden = self.vision(pixel_values=pixel_values).last_hidden_state[:, 1:].mean(1)
            logits: torch.Tensor = self.head(hidden)
            return logits

    return Classifier()


def _loss(model: Any, batch: Any) -> torch.Tensor:
    import torch

    return torch.nn.functional.cross_entropy(model(batch["pixel_values"]), batch["labels"])
