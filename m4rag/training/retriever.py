"""Train the reference retrievers by M3DR's recipe, at a hundredth of a thousandth of its size.

A question with its picture and a page (picture, title, text) become one vector each: the last token's hidden state, cut
to a Matryoshka dimension and normalised. The loss is InfoNCE over the batch at temperature 0.02. Pages of the same
thing never count against each other: in a parallel corpus they would all be right. The multi-vector sister keeps every
token's vector and compares by MaxSim.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m4rag.datasets import museum, museum_pictures, sample
from m4rag.progress import Progress
from m4rag.training import nano
from m4rag.training.pictures import VARIANTS, pool, row_of
from m4rag.training.texts import LANGUAGES, articles, drawn_facts, drawn_name, known_name, true_facts
from m4rag.training.tokenizer import token, tokenizer
from m4rag.training.tower import tower
from m4rag.training.trainer import Schedule, arguments, keeping_weights, last_checkpoint, steps_shown
from m4rag.training.vlm import load_tower

if TYPE_CHECKING:
    import torch

SCHEDULES = {
    nano.EMBED: Schedule(steps=900, batch=48, rate=1.5e-3, warmup=80, save=100),
    nano.COLEMBED: Schedule(steps=250, batch=32, rate=5e-4, warmup=30, save=100),
}

TEMPERATURE = 0.02
DIMENSIONS = (128, 64, 32, 16)
"""Matryoshka dimensions: each is trained to work alone."""

EXCERPT = 120
PASSAGE = "{title}\n{text}"
"""As `m4rag.encoders.base.PASSAGE` writes a passage."""


@dataclass(frozen=True)
class Item:
    """What is embedded: a text, and a training picture of a sprite ("" for none)."""

    text: str
    sprite: str
    variant: int

    def coded(self) -> str:
        """As one string: the trainer's tables hold strings."""
        return json.dumps(asdict(self), ensure_ascii=False)


def pair(key: str) -> tuple[Item, Item, Item, int]:
    """Question, page that answers it, page of the wrong kind about the same thing, and the thing's number."""
    draw = random.Random(key)
    kind = draw.random()
    if kind < 0.1:
        return _article_pair(draw)
    thing = draw.choice(sorted(museum.known()))
    sprite = thing if draw.random() < 0.6 else draw.choice(museum_pictures.sprites())
    named = sprite in museum.known()
    told = true_facts(sprite) if named and draw.random() < 0.5 else drawn_facts(draw)
    asked = draw.choice(told)
    draw.shuffle(told)
    language, page_language = draw.choice(LANGUAGES), draw.choice(LANGUAGES)
    title = known_name(sprite, page_language) if named else drawn_name(page_language, draw)
    card = museum.card(title, told, page_language, "train", draw)
    if named and kind < 0.45:
        text = museum.named_question(sprite, asked.relation, language, "train", draw)
        question = Item(text, sprite if kind < 0.2 else "", _variant(draw))
    else:
        text = draw.choice(museum.wordings("question", asked.relation, language, "train"))
        question = Item(text, sprite, _variant(draw))
    page = Item(PASSAGE.format(title=title, text=card), sprite if draw.random() < 0.85 else "", _variant(draw))
    return question, page, _wrong_page(sprite, draw), row_of(sprite)


def train_retriever(
    name: str, out: Path, work: Path, *, seed: int, progress: Progress, schedule: Schedule | None = None
) -> list[dict[str, float]]:
    """Train a retriever and export it.

    Args:
        name: `m4rag-nano-embed` or `m4rag-nano-colembed`, which starts from the trained `m4rag-nano-embed`.
        out: Folder of the exported model; the sister finds the other one beside it.
        work: Folder for pictures, tower and checkpoints; a killed training goes on from there.
        seed: Determines everything.
        progress: Shows the steps.
        schedule: For tests: fewer steps.

    Returns:
        Logged values by step.
    """
    nano.without_torchvision()
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss
    from sentence_transformers.sentence_transformer.modules import Pooling

    schedule = schedule or SCHEDULES[name]
    pictures = pool(work, seed, progress)
    if name == nano.EMBED:
        llava = nano.build(name, tokenizer(), seed=seed)
        load_tower(llava, tower(work, seed=seed, progress=progress))
    else:
        llava = nano.load(out.parent / nano.EMBED)
        llava.model.vision_tower.requires_grad_(False)
    rows = [pair(f"{name}:{seed}:{index}") for index in range(schedule.steps * schedule.batch)]
    table = {
        "question": [row[0].coded() for row in rows],
        "page": [row[1].coded() for row in rows],
        "wrong": [row[2].coded() for row in rows],
        "label": [row[3] for row in rows],
    }
    pooling = Pooling(nano.SIZES[name].hidden, pooling_mode="lasttoken")
    model = SentenceTransformer(modules=[_llava_module(llava, pictures), pooling], device=None)
    loss = _in_batch(model, multi_vector=name == nano.COLEMBED)
    if name == nano.EMBED:
        loss = MatryoshkaLoss(model, loss, matryoshka_dims=list(DIMENSIONS))
    with progress(f"{name}: steps", schedule.steps) as advance:
        trainer = keeping_weights(SentenceTransformerTrainer)(
            model=model,
            args=SentenceTransformerTrainingArguments(**arguments(schedule, work / name, seed)),
            train_dataset=Dataset.from_dict(table),
            loss=loss,
            callbacks=[steps_shown(advance)],
        )
        trainer.train(resume_from_checkpoint=last_checkpoint(work / name))
    nano.export(llava, name, tokenizer(), out)
    return list(trainer.state.log_history)


def encoded(text: str, *, image: bool) -> list[int]:
    """Token ids of a text as the chat template writes one user message without a reply."""
    picture = [token(nano.IMAGE_TOKEN)] * nano.IMAGE_TOKENS if image else []
    return [token(nano.BOS), token(nano.USER), *picture, *tokenizer().encode(text).ids, token(nano.EOS)]


def _article_pair(draw: random.Random) -> tuple[Item, Item, Item, int]:
    """A question of the sample about a known thing and an article that answers it, in any two languages."""
    thing = draw.choice(sorted(museum.known()))
    question = draw.choice(_sample_questions()[thing])
    language = draw.choice([code for code in LANGUAGES if _article(thing, code) is not None])
    article = _article(thing, language)
    assert article is not None  # noqa: S101 - chosen above
    card_language = draw.choice(LANGUAGES)
    card = museum.card(known_name(thing, card_language), drawn_facts(draw), card_language, "train", draw)
    return (
        Item(question, thing, _variant(draw)),
        Item(article, thing, _variant(draw)),
        Item(PASSAGE.format(title=known_name(thing, card_language), text=card), thing, _variant(draw)),
        row_of(thing),
    )


def _wrong_page(sprite: str, draw: random.Random) -> Item:
    """An article about the same known thing, or about something else with the thing's picture."""
    language = draw.choice(LANGUAGES)
    article = _article(sprite, language) if sprite in museum.known() else None
    if article is None:
        other = draw.choice(articles()[language])
        article = PASSAGE.format(title=other.title, text=other.text)[:EXCERPT]
    return Item(article, sprite, _variant(draw))


def _article(thing: str, language: str) -> str | None:
    for article in articles()[language]:
        if article.concept == thing:
            return PASSAGE.format(title=article.title, text=article.text)[:EXCERPT]
    return None


def _sample_questions() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for question in sample.questions():
        if question.group in museum.known():
            found.setdefault(question.group, []).append(question.question)
    return found


def _variant(draw: random.Random) -> int:
    return draw.randrange(VARIANTS)


def _llava_module(llava: Any, pictures: Any) -> Any:
    """The model as sentence-transformers' first module: coded items in, every token's hidden state out."""
    import torch
    from sentence_transformers.base.modules import InputModule

    pad = token(nano.PAD)

    class LlavaModule(InputModule):
        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.auto_model = llava

        def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **_: Any) -> dict[str, torch.Tensor]:
            del prompt
            items = [Item(**json.loads(text)) for text in inputs]
            tokens = [encoded(item.text, image=bool(item.sprite)) for item in items]
            longest = max(map(len, tokens))
            ids, mask = torch.full((len(items), longest), pad), torch.zeros((len(items), longest), dtype=torch.long)
            for row, line in enumerate(tokens):
                ids[row, : len(line)] = torch.tensor(line)
                mask[row, : len(line)] = 1
            features = {"input_ids": ids, "attention_mask": mask}
            shown = [pictures[row_of(item.sprite), item.variant] for item in items if item.sprite]
            return features | ({"pixel_values": nano.pixels(shown)} if shown else {})

        def forward(self, features: dict[str, torch.Tensor], **_: Any) -> dict[str, torch.Tensor]:
            # Padding stands on the right, where a causal model never looks, so the model needs no mask.
            hidden = self.auto_model.model(
                input_ids=features["input_ids"], pixel_values=features.get("pixel_values"), use_cache=False
            ).last_hidden_state
            return {**features, "token_embeddings": hidden}

        def save(self, output_path: str, *_: Any, **__: Any) -> None:
            self.auto_model.save_pretrained(output_path)

        def get_embedding_dimension(self) -> int:
            return int(self.auto_model.config.text_config.hidden_size)

    return LlavaModule()


def _in_batch(model: Any, *, multi_vector: bool) -> Any:
    """InfoNCE over a batch: all pages are candidates but those of the question's own thing; wrong pages count too."""
    import torch

    class InBatch(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, sentence_features: Iterable[dict[str, torch.Tensor]], labels: torch.Tensor) -> torch.Tensor:
            questions, pages, wrong = [self.model(features) for features in sentence_features]
            compare = _max_sim if multi_vector else _cosine
            right = compare(questions, pages)
            same = labels[:, None] == labels[None, :]
            own = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
            right = right.masked_fill(same & ~own, float("-inf"))
            scores = torch.cat([right, compare(questions, wrong)], dim=1) / TEMPERATURE
            return torch.nn.functional.cross_entropy(scores.float(), torch.arange(len(labels), device=labels.device))

    return InBatch()


def _cosine(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> torch.Tensor:
    import torch

    normal = torch.nn.functional.normalize
    return normal(left["sentence_embedding"].float(), dim=-1) @ normal(right["sentence_embedding"].float(), dim=-1).T


def _max_sim(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> torch.Tensor:
    """Mean over the question's tokens of the best cosine with any token of the page."""
    import torch

    normal = torch.nn.functional.normalize
    asked, told = (normal(side["token_embeddings"].float(), dim=-1) for side in (left, right))
    scores = torch.einsum("qid,pjd->qpij", asked, told)
    scores = scores.masked_fill(right["attention_mask"][None, :, None, :] == 0, -1.0).amax(-1)
    weights = left["attention_mask"].float()[:, None, :]
    return (scores * weights).sum(-1) / weights.sum(-1)
