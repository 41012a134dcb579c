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
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m4rag import models
from m4rag.datasets import museum, museum_pictures
from m4rag.encoders.base import PASSAGE
from m4rag.encoders.local import hide_broken_torchvision
from m4rag.manifests import digest, short
from m4rag.progress import Progress
from m4rag.training import nano
from m4rag.training.pictures import VARIANTS, pool, row_of
from m4rag.training.texts import LANGUAGES, Article, articles, drawn_facts, drawn_name, known_name, true_facts
from m4rag.training.tokenizer import token, tokenizer
from m4rag.training.tower import SCHEDULE as TOWER
from m4rag.training.tower import made_by as tower_made_by
from m4rag.training.tower import tower
from m4rag.training.trainer import (
    Schedule,
    Trained,
    arguments,
    keeping_weights,
    last_checkpoint,
    recipe,
    steps_shown,
)
from m4rag.training.vlm import SHOWN, load_tower

if TYPE_CHECKING:
    import torch

SCHEDULES = {
    models.EMBED: Schedule(steps=1100, batch=48, rate=2e-3, warmup=80, save=100),
    models.COLEMBED: Schedule(steps=150, batch=32, rate=5e-4, warmup=30, save=100),
}

TEMPERATURE = 0.02
DIMENSIONS = (128, 64, 32, 16)
"""Matryoshka dimensions: each is trained to work alone."""

CUT = "\ue001"
"""Stands in a training text where it is cut for the tokenizer."""

EXCERPTS, LONG_EXCERPTS = (20, 40, 60), (60, 120, 200)
LONG_FROM = 0.6
"""Tokens of an article in training, and the share of the training after which they are long."""


@dataclass(frozen=True)
class Item:
    """What is embedded: a text, and a training picture of a sprite ("" for none)."""

    text: str
    sprite: str
    variant: int

    def coded(self) -> str:
        """As one string: the trainer's tables hold strings."""
        return json.dumps(asdict(self), ensure_ascii=False)


def pair(key: str, done: float = 1.0) -> tuple[Item, Item, Item, int]:
    """Question, page that answers it, page of the wrong kind about the same thing, and the thing's number.

    Args:
        key: Determines what is drawn.
        done: Share of the training that lies behind, 0 to 1.
    """
    draw = random.Random(key)
    kind = draw.random()
    tokens = draw.choice(EXCERPTS if done < LONG_FROM else LONG_EXCERPTS)
    thing = draw.choice(sorted(museum.known()))
    sprite = thing if draw.random() < 0.5 else draw.choice(museum_pictures.sprites())
    named = sprite in museum.known()
    told = true_facts(sprite) if named and draw.random() < 0.5 else drawn_facts(draw)
    asked = draw.choice(told)
    draw.shuffle(told)
    language, page_language = draw.choice(LANGUAGES), draw.choice(LANGUAGES)
    title = known_name(sprite, page_language) if named else drawn_name(page_language, draw)
    card = museum.card(title, told, page_language, "train", draw)
    if named and kind < 0.45:
        text = museum.named_question(sprite, asked.relation, language, "train", draw)
        question = Item(_varied(text, draw), sprite, _variant(draw)) if kind < 0.2 else Item(text, "", 0)
    else:
        text = draw.choice(museum.wordings("question", asked.relation, language, "train"))
        question = Item(_varied(text, draw), sprite, _variant(draw))
    page = Item(PASSAGE.format(title=title, text=card), sprite if draw.random() < 0.85 else "", _variant(draw))
    return question, page, _wrong_page(sprite, tokens, draw), row_of(sprite)


def train_retriever(
    name: str, out: Path, work: Path, *, seed: int, progress: Progress, schedule: Schedule | None = None
) -> Trained:
    """Train a retriever and export it.

    Args:
        name: `m4rag-nano-embed` or `m4rag-nano-colembed`, which starts from the trained `m4rag-nano-embed`.
        out: Folder of the exported model; the sister finds the other one beside it.
        work: Folder for pictures, tower and checkpoints; a killed training goes on from there.
        seed: Determines everything.
        progress: Shows the steps.
        schedule: For tests: fewer steps.
    """
    hide_broken_torchvision()
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
    if name == models.EMBED:
        llava = nano.build(name, tokenizer(), seed=seed)
        load_tower(llava, tower(work, seed=seed, progress=progress))
    else:
        llava = nano.load(out.parent / models.EMBED)
        llava.model.vision_tower.requires_grad_(False)
    size = schedule.steps * schedule.batch
    rows = [pair(f"{name}:{seed}:{index}", index / size) for index in range(size)]
    lessons = [[item.coded() for item in row[:3]] for row in rows[:SHOWN]]
    made_by = recipe(
        name,
        nano.config(name, tokenizer()),
        [*lessons, tokenizer().to_str(), tower_made_by(TOWER, seed)],
        schedule,
        seed,
    )
    checkpoints = work / f"{name}-{short(digest(made_by))}"
    table = {
        "question": [row[0].coded() for row in rows],
        "page": [row[1].coded() for row in rows],
        "wrong": [row[2].coded() for row in rows],
        "label": [row[3] for row in rows],
    }
    pooling = Pooling(nano.SIZES[name].hidden, pooling_mode="lasttoken")
    model = SentenceTransformer(modules=[_llava_module(llava, pictures), pooling], device=None)
    loss = _in_batch(model, multi_vector=name == models.COLEMBED)
    if name == models.EMBED:
        loss = MatryoshkaLoss(model, loss, matryoshka_dims=list(DIMENSIONS))
    with progress(f"{name}: steps", schedule.steps) as advance:
        trainer = keeping_weights(SentenceTransformerTrainer)(
            model=model,
            args=SentenceTransformerTrainingArguments(**arguments(schedule, checkpoints, seed)),
            train_dataset=Dataset.from_dict(table),
            loss=loss,
            callbacks=[steps_shown(advance)],
        )
        trainer.train(resume_from_checkpoint=last_checkpoint(checkpoints))
    nano.export(llava, name, tokenizer(), out)
    return Trained(made_by, list(trainer.state.log_history))


def encoded(text: str, *, image: bool) -> list[int]:
    """Token ids of a text as the chat template writes one user message without a reply."""
    picture = [token(nano.IMAGE_TOKEN)] * nano.IMAGE_TOKENS if image else []
    ids = [number for piece in text.split(CUT) for number in tokenizer().encode(piece).ids]
    return [token(nano.BOS), token(nano.USER), *picture, *ids, token(nano.EOS)]


def _varied(text: str, draw: random.Random) -> str:
    """A question without up to half of its tokens, often cut into short pieces that are tokenized one by one.

    The training wordings are few: whole ones, and in scripts without blanks whole clauses of them, are single tokens
    that no other wording has.
    """
    share = draw.uniform(0.5, 1)
    kept = {place for part in tokenizer().encode(text).offsets if draw.random() < share for place in range(*part)}
    left = "".join(letter for place, letter in enumerate(text) if place in kept) or text
    if draw.random() < 0.5:
        return left
    pieces = []
    while left:
        length = draw.randint(1, 6)
        pieces.append(left[:length])
        left = left[length:]
    return CUT.join(pieces)


def _wrong_page(sprite: str, tokens: int, draw: random.Random) -> Item:
    """An article about the same known thing, or about something else with the thing's picture."""
    about = _articles_about(sprite) or articles()[draw.choice(LANGUAGES)]
    return Item(_excerpt(draw.choice(about), tokens, draw), sprite, _variant(draw))


def _excerpt(article: Article, tokens: int, draw: random.Random) -> str:
    """The beginning of an article, or a part from its middle: a page may be any passage of it."""
    begin = draw.randrange(len(article.text)) if draw.random() < 0.5 else 0
    text = PASSAGE.format(title=article.title, text=article.text[begin:])
    ends = [end for _, end in tokenizer().encode(text).offsets]
    return text[: ends[min(tokens, len(ends)) - 1]]


@cache
def _articles_about(thing: str) -> list[Article]:
    return [article for language in LANGUAGES for article in articles()[language] if article.concept == thing]


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
