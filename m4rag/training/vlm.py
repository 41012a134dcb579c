"""Train a reference VLM on `m4rag.training.tasks`."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from m4rag import models
from m4rag.manifests import digest, short
from m4rag.progress import Progress
from m4rag.training import nano, tasks
from m4rag.training.pictures import VARIANTS, pool, row_of
from m4rag.training.tokenizer import token, tokenizer
from m4rag.training.tower import SCHEDULE as TOWER
from m4rag.training.tower import made_by as tower_made_by
from m4rag.training.tower import tower
from m4rag.training.trainer import Schedule, Trained, fit, recipe

if TYPE_CHECKING:
    import torch
    from transformers import LlavaForConditionalGeneration

SCHEDULES = {
    models.VLM: Schedule(steps=1000, batch=24, rate=1.5e-3, warmup=100),
    models.SMALL_VLM: Schedule(steps=1000, batch=24, rate=2e-3, warmup=100),
}

WORDS = {
    models.VLM: Schedule(steps=400, batch=128, rate=1.5e-3, warmup=50),
    models.SMALL_VLM: Schedule(steps=350, batch=128, rate=2e-3, warmup=50),
}
"""The first lessons, `tasks.words`: many short prompts."""

SHOWN = 40
"""Examples of each part that go into the recipe's digest."""

IGNORED = -100
BINS = 4
"""A batch is padded in so many groups of like length: prompts are 50 to 650 tokens long."""


def train_vlm(
    name: str, out: Path, work: Path, *, seed: int, progress: Progress, schedule: Schedule | None = None
) -> Trained:
    """Train a VLM and export it.

    Args:
        name: `m4rag-nano-vlm-4m` or `m4rag-nano-vlm-1m`.
        out: Folder of the exported model.
        work: Folder for pictures, tower and checkpoints; a killed training goes on from there.
        seed: Determines everything.
        progress: Shows the steps.
        schedule: For tests: fewer steps, in both parts.
    """
    first, schedule = schedule or WORDS[name], schedule or SCHEDULES[name]
    lessons = [tasks.example(f"vlm:{seed}:{index}", index / SHOWN).turns for index in range(SHOWN)]
    lessons += [tasks.words(f"words:{seed}:{index}").turns for index in range(SHOWN)]
    made_by = recipe(
        name,
        nano.config(name, tokenizer()),
        [*lessons, asdict(first), tokenizer().to_str(), tower_made_by(TOWER, seed)],
        schedule,
        seed,
    )
    checkpoints = work / f"{name}-{short(digest(made_by))}"
    model = nano.build(name, tokenizer(), seed=seed)
    load_tower(model, tower(work, seed=seed, progress=progress))
    words = _Words(first.steps * first.batch, seed)
    with progress(f"{name}: steps with words", first.steps) as advance:
        fit(model, cast(Any, words), _collate, _loss, first, checkpoints / "words", seed=seed, advance=advance)
    data = _Examples(pool(work, seed, progress), schedule.steps * schedule.batch, seed)
    with progress(f"{name}: steps", schedule.steps) as advance:
        history = fit(model, cast(Any, data), _collate, _loss, schedule, checkpoints, seed=seed, advance=advance)
    nano.export(model, name, tokenizer(), out)
    return Trained(made_by, history)


def load_tower(model: LlavaForConditionalGeneration, weights: dict[str, torch.Tensor]) -> None:
    """Put the tower's weights into a model and keep them from being trained."""
    model.model.vision_tower.load_state_dict(weights)
    model.model.vision_tower.requires_grad_(False)


def encoded(turns: Sequence[tuple[str, str]], *, image: bool = True) -> tuple[list[int], list[int]]:
    """Token ids of a conversation as the chat template writes it, and labels: the replies' tokens, else `IGNORED`."""
    known = tokenizer()
    ids = [token(nano.BOS)]
    labels = [IGNORED]
    for number, (prompt, reply) in enumerate(turns):
        picture = [token(nano.IMAGE_TOKEN)] * nano.IMAGE_TOKENS if image and number == 0 else []
        asked = [token(nano.USER), *picture, *known.encode(prompt).ids, token(nano.ASSISTANT)]
        told = [*known.encode(reply).ids, token(nano.EOS)]
        ids += asked + told
        labels += [IGNORED] * len(asked) + told
    return ids, labels


class _Words:
    """Item `i` of the first lessons: token ids, labels, no picture."""

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed = size, seed

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[list[int], list[int], None]:
        return *encoded(tasks.words(f"words:{self.seed}:{index}").turns, image=False), None


class _Examples:
    """Item `i`: token ids, labels, picture; all drawn from `i`."""

    def __init__(self, pictures: Any, size: int, seed: int) -> None:
        self.pictures, self.size, self.seed = pictures, size, seed

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[list[int], list[int], Any]:
        made = tasks.example(f"vlm:{self.seed}:{index}", index / self.size)
        variant = random.Random(f"picture:{self.seed}:{index}").randrange(VARIANTS)
        return *encoded(made.turns), self.pictures[row_of(made.sprite), variant]


def _collate(items: Sequence[tuple[list[int], list[int], Any]]) -> dict[str, Any]:
    """Groups of like length, each padded on the right, where a causal model never looks: no mask is needed."""
    import torch

    ordered = sorted(items, key=lambda item: len(item[0]))
    pad = token(nano.PAD)
    groups = []
    for part in range(BINS):
        group = ordered[len(ordered) * part // BINS : len(ordered) * (part + 1) // BINS]
        if not group:
            continue
        longest = max(len(ids) for ids, _, _ in group)
        ids = torch.full((len(group), longest), pad)
        labels = torch.full((len(group), longest), IGNORED)
        for row, (tokens, taught, _) in enumerate(group):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            labels[row, : len(taught)] = torch.tensor(taught)
        images = [image for _, _, image in group if image is not None]
        pictures = {"pixel_values": nano.pixels(images)} if images else {}
        groups.append({"input_ids": ids, "labels": labels, **pictures})
    return {"groups": groups}


def _loss(model: Any, batch: Any) -> torch.Tensor:
    """Mean over the targets' tokens; logits are made for those only."""
    import torch

    losses, count = [], 0
    for group in batch["groups"]:
        labels = group["labels"][:, 1:]
        hidden = model.model(
            input_ids=group["input_ids"],
            pixel_values=group.get("pixel_values"),
            use_cache=False,
        ).last_hidden_state[:, :-1]
        taught = labels != IGNORED
        logits = model.lm_head(hidden[taught]).float()
        losses.append(torch.nn.functional.cross_entropy(logits, labels[taught], reduction="sum"))
        count += int(taught.sum())
    return torch.stack(losses).sum() / count
