"""transformers' Trainer for the reference models: seeded, resumable, bfloat16 on any device, recorded in MLflow."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m4rag.encoders.local import hide_broken_torchvision
from m4rag.manifests import digest

if TYPE_CHECKING:
    import torch
    from torch.utils.data import Dataset

log = logging.getLogger(__name__)

WEIGHTS = "weights.pt"


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a model is trained.

    Attributes:
        steps: Optimizer steps.
        batch: Examples a step.
        rate: Peak learning rate of AdamW; it warms up linearly and falls along a cosine.
        warmup: Steps until the peak.
        save: A checkpoint is kept every so many steps; training resumes from the last.
    """

    steps: int
    batch: int
    rate: float
    warmup: int = 100
    save: int = 200


@dataclass(frozen=True)
class Trained:
    """A finished training.

    Attributes:
        recipe: What determined the weights.
        history: Logged values: loss, gradient norm, learning rate, each with its `step`.
    """

    recipe: dict[str, Any]
    history: list[dict[str, float]]


def recipe(
    name: str, config: dict[str, Any], lessons: Sequence[object], schedule: Schedule, seed: int
) -> dict[str, Any]:
    """What determines a model's weights on one kind of machine; its digest names the checkpoints.

    Args:
        name: The model.
        config: Its architecture.
        lessons: The first of what it is taught, to tell two versions of the material apart.
        schedule: Steps, batch, rate.
        seed: Of data, first weights and order.
    """
    hide_broken_torchvision()  # transformers looks for it once, when it is imported
    import torch
    import transformers

    return {
        "model": name,
        "config": config,
        "lessons": digest(list(lessons)),
        **asdict(schedule),
        "seed": seed,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def arguments(schedule: Schedule, folder: Path, seed: int) -> dict[str, Any]:
    """What transformers' and sentence-transformers' training arguments have in common."""
    import torch

    return {
        "output_dir": str(folder),
        "max_steps": schedule.steps,
        "per_device_train_batch_size": schedule.batch,
        "learning_rate": schedule.rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": schedule.warmup,
        "weight_decay": 0.01,
        "adam_beta2": 0.98,
        "max_grad_norm": 1.0,
        "bf16": True,
        "use_cpu": not torch.cuda.is_available(),  # transformers wants to be told
        "seed": seed,
        "data_seed": seed,
        "save_steps": schedule.save,
        "save_total_limit": 1,
        "logging_steps": 50,
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
    }


def last_checkpoint(folder: Path) -> str | None:
    """Where an interrupted training goes on, None for a fresh start."""
    from transformers.trainer_utils import get_last_checkpoint

    found: str | None = get_last_checkpoint(str(folder)) if folder.is_dir() else None  # type: ignore[no-untyped-call]
    return found


def fit(
    model: torch.nn.Module,
    data: Dataset[Any],
    collate: Callable[[list[Any]], dict[str, Any]],
    loss: Callable[[Any, Mapping[str, Any]], torch.Tensor],
    schedule: Schedule,
    folder: Path,
    *,
    seed: int,
    advance: Callable[[int], None],
    workers: int = 0,
) -> list[dict[str, float]]:
    """Train a model.

    Args:
        model: Trained in place.
        data: Its item `i` depends on `i` alone, so that a resumed training sees what an undisturbed one would.
        collate: Items to a batch.
        loss: The model's loss on a batch.
        schedule: Steps, batch, rate.
        folder: Checkpoints; a training that was killed goes on from here.
        seed: Of the order of the data.
        advance: Told the number of steps just done.
        workers: Processes that make items; 0 makes them between the steps.

    Returns:
        Logged values: loss, gradient norm, learning rate by step.
    """
    hide_broken_torchvision()
    from transformers import Trainer, TrainingArguments

    class WithLoss(keeping_weights(Trainer)):  # type: ignore[misc]
        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            del num_items_in_batch
            value = loss(model, inputs)
            return (value, {}) if return_outputs else value

    trainer = WithLoss(
        model=model,
        args=TrainingArguments(**arguments(schedule, folder, seed), dataloader_num_workers=workers),
        train_dataset=data,
        data_collator=collate,
        callbacks=[steps_shown(advance)],
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(folder))
    return list(trainer.state.log_history)


def keeping_weights(trainer: Any) -> Any:
    """A trainer class that prints nothing and whose checkpoints hold the module's own weights, every one of them.

    What transformers saves of a LLaVA it does not find again when it resumes: the names differ, and it only warns.
    """
    import torch
    from transformers import PrinterCallback

    class Keeping(trainer):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.remove_callback(PrinterCallback)  # stdout belongs to the command

        def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
            folder = Path(output_dir or self.args.output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            torch.save(state_dict or self.model.state_dict(), folder / WEIGHTS)

        def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
            kept = torch.load(Path(resume_from_checkpoint) / WEIGHTS, weights_only=True)
            (model or self.model).load_state_dict(kept)

    return Keeping


def steps_shown(advance: Callable[[int], None]) -> Any:
    """A callback that tells a progress bar of every step, those of an earlier attempt included."""
    from transformers import TrainerCallback

    class Shown(TrainerCallback):
        seen = 0

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            del args, control, kwargs
            advance(state.global_step - self.seen)
            self.seen = state.global_step

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            del args, control, kwargs
            if logs and "loss" in logs:
                log.info("step %d: loss %.4f", state.global_step, float(logs["loss"]))

    return Shown()
