"""A finished benchmark run on disk, as `m4rag bench run` leaves it, in fifteen languages and eleven scripts.

The answers are drawn from a seeded generator that behaves like the published models: retrieval mends more than it
breaks, low-resource languages lose, a few answers are unreadable.
"""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path

from m4rag.bench.judgements import JUDGEMENTS, Sampling, pairs
from m4rag.bench.relevance import Relevance, write_relevance
from m4rag.bench.runs import IndexIdentity, Judgement, ModelIdentity, Passage, RunPlan
from m4rag.bench.scoring import score
from m4rag.languages import lookup
from m4rag.manifests import Manifest, digest, rows_digest
from m4rag.schema import Answer, Question, Retrieved, Status
from m4rag.shards import read_folder, write_folder

CONCEPTS = ("tea", "drum", "rice", "lantern")
COLOURS = ("#b7791f", "#9b2c2c", "#4a5568", "#c53030")
PICTURES_PER_CONCEPT = 3
SETTINGS = ("text_only", "no_rag", "oracle", "caption_query")
MARKUP = "<script>alert('owned')</script><img src=x onerror=alert(1)>"

# Language: the question, the four options, a sentence for the passages.
TEXTS = {
    "en": (
        "What can be seen in this picture?",
        ("tea", "drum", "rice", "lantern"),
        "People have known it for centuries and use it at home and at festivals.",
    ),
    "ar": (
        "ماذا يظهر في هذه الصورة؟",
        ("شاي", "طبل", "أرز", "فانوس"),
        "يعرفه الناس منذ قرون ويستعملونه في البيوت وفي الأعياد.",
    ),
    "ur": (
        "اس تصویر میں کیا نظر آ رہا ہے؟",
        ("چائے", "ڈھول", "چاول", "فانوس"),
        "لوگ اسے صدیوں سے جانتے ہیں اور گھروں اور تہواروں میں استعمال کرتے ہیں۔",
    ),
    "hi": (
        "इस चित्र में क्या दिखाई दे रहा है?",
        ("चाय", "ढोल", "चावल", "लालटेन"),
        "लोग इसे सदियों से जानते हैं और घरों तथा त्योहारों में इसका उपयोग करते हैं।",
    ),
    "te": (
        "ఈ చిత్రంలో ఏమి కనిపిస్తోంది?",
        ("టీ", "డోలు", "బియ్యం", "లాంతరు"),
        "ప్రజలకు ఇది శతాబ్దాలుగా తెలుసు; ఇళ్లలోనూ పండుగలలోనూ వాడతారు.",
    ),
    "si_formal_spoken": (
        "මෙම පින්තූරයේ දක්නට ලැබෙන්නේ කුමක්ද?",
        ("තේ", "බෙරය", "බත්", "පහන් කූඩුව"),
        "මිනිසුන් සියවස් ගණනාවක් තිස්සේ එය දන්නා අතර නිවෙස්වල සහ උත්සවවල භාවිත කරති.",
    ),
    "th": (
        "ในภาพนี้เห็นอะไร",
        ("ชา", "กลอง", "ข้าว", "โคมไฟ"),
        "ผู้คนรู้จักสิ่งนี้มาหลายร้อยปีและใช้ทั้งในบ้านและในงานเทศกาล",
    ),
    "am": (
        "በዚህ ሥዕል ላይ ምን ይታያል?",
        ("ሻይ", "ከበሮ", "ሩዝ", "ፋኖስ"),
        "ሰዎች ለዘመናት ያውቁታል፤ በቤትና በበዓላት ይጠቀሙበታል።",
    ),
    "ja_formal": (
        "この写真には何が写っていますか。",
        ("お茶", "太鼓", "ご飯", "提灯"),
        "人々は何百年も前からこれを知っており、家庭や祭りで使っています。",
    ),
    "ko_formal": (
        "이 사진에는 무엇이 보입니까?",
        ("차", "북", "밥", "등불"),
        "사람들은 수백 년 전부터 이것을 알고 있으며 집과 축제에서 사용합니다.",
    ),
    "zh_cn": (
        "这张图片里有什么？",
        ("茶", "鼓", "米饭", "灯笼"),
        "人们认识它已有数百年，在家里和节日里都使用它。",
    ),
    "ru_formal": (
        "Что изображено на этой картинке?",
        ("чай", "барабан", "рис", "фонарь"),
        "Люди знают это уже много веков и пользуются этим дома и на праздниках.",
    ),
    "yo": (
        "Kí ni a rí nínú àwòrán yìí?",
        ("tíì", "ìlù", "ìrẹsì", "fìtílà"),
        "Àwọn ènìyàn ti mọ̀ ọ́n láti ọ̀pọ̀ ọdún, wọ́n sì ń lò ó nílé àti níbi ayẹyẹ.",
    ),
    "jv_ngoko": (
        "Apa sing katon ing gambar iki?",
        ("teh", "kendhang", "sega", "lampion"),
        "Wong-wong wis suwe ngerti lan nganggo iki ing omah lan ing pahargyan.",
    ),
    "es": (
        "¿Qué se ve en esta imagen?",
        ("té", "tambor", "arroz", "farol"),
        "La gente lo conoce desde hace siglos y lo usa en casa y en las fiestas.",
    ),
}


def write_run(
    folder: Path,
    *,
    note: str | None = None,
    images: str = "all",
    model: str = "tiny-vlm-2b",
    seed: int = 7,
    markup: str = "",
    settings: tuple[str, ...] = SETTINGS,
) -> RunPlan:
    """Write a complete run folder.

    Args:
        folder: Target; made if absent.
        note: Warning about the model, as random weights have it.
        images: `all`, or `none` for the text-only baseline.
        model: Served model name.
        seed: Of the answers: another seed is another execution of the same plan.
        markup: Put into every text that a user, a model or a corpus wrote.
        settings: Settings of the run; passages are kept only if one of them shows any.
    """
    questions = _questions(folder / "pictures", markup)
    passages = _passages(markup)
    plan = _plan(questions, note, images, model + markup, settings)
    folder.mkdir(parents=True, exist_ok=True)
    plan.write(folder)
    answers = _answers(questions, passages, plan, random.Random(seed), markup)
    for name, row_model, rows in (
        ("questions", Question, questions),
        ("passages", Passage, passages),
        ("answers", Answer, answers),
    ):
        if name == "passages" and not any(answer.retrieved for answer in answers):
            continue
        made_by = Manifest(kind=name, command="bench run", config={"run": plan.digest})
        write_folder(folder / name, row_model, rows, made_by)
    (folder / "scores.json").write_text(score(questions, answers, images=images).model_dump_json(indent=2))
    return plan


def write_judgements(
    folder: Path,
    *,
    note: str | None = None,
    model: str = "judge-32b",
    seed: int = 7,
    failed: float = 0.02,
    with_answer: bool = True,
    blind: bool = False,
) -> Relevance:
    """Judge a run that `write_run` wrote: gold passages are scored high, others low, with noise that questions share.

    Args:
        folder: The run folder.
        note: Warning about the judge.
        model: Served name of the judge.
        seed: Of the scores.
        failed: Share of judgements that could not be read.
        with_answer: Whether the judge was told the right answers.
        blind: The judge scores gold passages like others.
    """
    plan, chance = RunPlan.read(folder), random.Random(seed)
    documents = {passage.chunk_id: passage.document_id for passage in read_folder(folder / "passages", Passage)}
    rows = []
    mood = {
        question.question_id: chance.choice((-1, 0, 0, 1, 2))
        for question in read_folder(folder / "questions", Question)
    }
    for pair in pairs(folder, plan):
        for chunk in pair.chunk_ids:
            gold = not blind and documents[chunk].rpartition(":")[0] in pair.question.gold
            score = min(5, max(1, (4 if gold else 2) + mood[pair.question.question_id] + chance.choice((-1, 0, 0, 1))))
            status = Status.UNPARSABLE if chance.random() < failed else Status.OK
            rows.append(
                Judgement(
                    question_id=pair.question.question_id,
                    chunk_id=chunk,
                    score=score if status is Status.OK else None,
                    status=status,
                    model=model,
                    with_answer=with_answer,
                    raw=f'{{"explanation": "", "answer": {score}}}',
                )
            )
    judge = ModelIdentity(name=model, engine="vllm 0.32.0", root=f"models/{model}", max_model_len=4096, note=note)
    config = {
        "run": plan.digest,
        "judge": judge.model_dump(),
        "prompts": digest("judge"),
        "with_answer": with_answer,
        "decoding": Sampling().decoding,
    }
    inputs = {"answers": Manifest.read(folder / "answers").digest}
    made_by = Manifest(kind=JUDGEMENTS, command="bench judge", config=config, inputs=inputs)
    write_folder(folder / JUDGEMENTS, Judgement, rows, made_by)
    relevance = write_relevance(folder)
    assert relevance is not None
    return relevance


def _questions(pictures: Path, markup: str) -> list[Question]:
    questions = []
    for position, concept in enumerate(CONCEPTS):
        for number in range(PICTURES_PER_CONCEPT):
            picture = _draw(pictures / f"{concept}-{number}.png", position, number)
            for language, (text, names, _) in TEXTS.items():
                options = tuple(name + markup for name in names)
                turned = options[number:] + options[:number]
                questions.append(
                    Question(
                        question_id=f"{concept}-{number}-{language}",
                        dataset="sample",
                        language=language,
                        question=text + markup,
                        options=turned,
                        answer_index=turned.index(options[position]),
                        category=("food", "music", "food", "festivals")[position] + markup,
                        prompt_type=("name", "use", "origin")[number],
                        image=str(picture),
                        group=f"{concept}-{number}",
                        gold=(f"sample:{concept}",),
                    )
                )
    return questions


def _draw(path: Path, concept: int, number: int) -> Path:
    from PIL import Image, ImageDraw

    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("RGB", (640, 480), "#f6ead2")
    draw = ImageDraw.Draw(picture)
    left, right = 180 - 20 * number, 460 + 20 * number
    if concept == 0:
        draw.pieslice((left, 140, right, 440), 0, 180, fill=COLOURS[0], outline="#744210", width=6)
        draw.arc((right - 40, 280, right + 60, 380), -90, 90, fill="#744210", width=14)
    elif concept == 1:
        draw.rectangle((left, 170, right, 380), fill=COLOURS[1])
        draw.ellipse((left, 120, right, 220), fill="#fbd38d", outline="#742a2a", width=6)
    elif concept == 2:
        draw.ellipse((left, 150, right, 330), fill="#ffffff", outline="#cbd5e0", width=6)
        draw.pieslice((left, 140, right, 440), 0, 180, fill=COLOURS[2])
    else:
        draw.ellipse((left + 40, 90, right - 40, 400), fill=COLOURS[3], outline="#f6ad55", width=10)
        draw.line((320, 400, 320, 460), fill="#f6ad55", width=10)
    picture.save(path)
    return path


def _passages(markup: str) -> list[Passage]:
    return [
        Passage(
            chunk_id=digest([concept, language])[:32],
            document_id=f"sample:{concept}:{language}",
            title=names[position] + markup,
            text=f"{names[position]}. {sentence}{markup}",
            language=language,
            source="sample",
        )
        for position, concept in enumerate(CONCEPTS)
        for language, (_, names, sentence) in TEXTS.items()
    ]


def _plan(questions: list[Question], note: str | None, images: str, model: str, settings: tuple[str, ...]) -> RunPlan:
    return RunPlan(
        dataset="sample",
        questions_digest=rows_digest(questions),
        n_questions=len(questions),
        settings=settings,
        images=images,
        model=ModelIdentity(
            name=model,
            engine="vllm 0.32.0",
            root="models/tiny-vlm-2b",
            weights_digest=digest("weights"),
            max_model_len=4096,
            note=note,
        ),
        prompts_digest=digest("prompts"),
        decoding={"temperature": 0.0, "max_tokens": 128, "seed": 0, "constrained": True},
        k=3,
        indexes={
            setting: IndexIdentity(
                collection="m4rag_sample__0123456789ab", digest=digest("index"), encoder="bm25", channel="bm25"
            )
            for setting in settings
            if setting == "caption_query"
        },
        command="m4rag bench run --dataset sample --setting no_rag --setting oracle --setting caption_query",
        inputs={"sample/concepts.toml": digest("concepts")},
    )


def _answers(
    questions: list[Question], passages: list[Passage], plan: RunPlan, chance: random.Random, markup: str
) -> list[Answer]:
    by_language: dict[str, list[Passage]] = defaultdict(list)
    for passage in passages:
        by_language[passage.language].append(passage)
    skill = {"text_only": 0.3, "no_rag": 0.5, "oracle": 0.9, "oracle_query": 0.8, "caption_query": 0.7}
    answers = []
    for setting in plan.settings:
        for question in questions:
            strength = skill[setting] - 0.25 * (lookup(question.language).language.joshi < 3)
            wrong = [n for n in range(len(question.options)) if n != question.answer_index]
            choice = question.answer_index if chance.random() < strength else chance.choice(wrong)
            shown: tuple[Retrieved, ...] = ()
            if setting == "oracle":
                gold = next(p for p in passages if p.document_id == f"{question.gold[0]}:en")
                shown = (Retrieved(chunk_id=gold.chunk_id, score=1.0),)
            elif setting == "caption_query":
                ranked = chance.sample(by_language[question.language], plan.k)
                shown = tuple(Retrieved(chunk_id=p.chunk_id, score=0.9 - 0.1 * n) for n, p in enumerate(ranked))
            raw = f'{{"explanation": "{question.options[choice]}", "answer": {choice + 1}}}'
            status = Status.OK
            if chance.random() < 0.03:
                raw, status = f"I am not sure which one it is{markup}", Status.UNPARSABLE
            answers.append(
                Answer(
                    question_id=question.question_id,
                    setting=setting,
                    model=plan.model.name,
                    context_language={"oracle": "en", "caption_query": "mixed"}.get(setting, ""),
                    choice=choice if status is Status.OK else None,
                    status=status,
                    raw=raw,
                    retrieved=shown,
                    prompt_tokens=320 + 200 * len(shown),
                    completion_tokens=24,
                    latency_ms=chance.uniform(80, 400),
                )
            )
    return answers


__all__ = ["MARKUP", "SETTINGS", "TEXTS", "write_judgements", "write_run"]
