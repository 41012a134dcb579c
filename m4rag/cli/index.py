"""`m4rag index`: build, search, check and switch what production reads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from m4rag.cli.output import Json, emit, progress, say
from m4rag.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console

    from m4rag.index.aliases import Moved
    from m4rag.index.store import Store

app = typer.Typer(help="Build, search and switch the indexes that passages come from.", no_args_is_help=True)

Corpus = Annotated[str | None, typer.Argument(help="Ingested corpus. Default: the only one there is.")]
Base = Annotated[str | None, typer.Argument(help="Name of the index. Default: the only one there is.")]
Encoder = Annotated[
    str | None, typer.Option(help="The index's encoder at another address. Default: as it was built.", metavar="SPEC")
]


@app.command("build")
def build_command(
    corpus: Corpus = None,
    base: Annotated[str | None, typer.Option(help="Name that production reads. Default: the corpus's.")] = None,
    encoder: Annotated[
        str, typer.Option(help="minilm (English), st:FOLDER or vllm:BASE_URL.", metavar="SPEC")
    ] = "minilm",
    dim: Annotated[int | None, typer.Option(help="Numbers to keep of each vector (Matryoshka). Default: all.")] = None,
    channels: Annotated[str, typer.Option(help="dense, bm25 or dense,bm25.")] = "dense,bm25",
    max_tokens: Annotated[int, typer.Option(help="Most tokens of a passage, title included.")] = 256,
    overlap: Annotated[int, typer.Option(help="Most tokens that a passage repeats of the one before it.")] = 50,
    json: Json = False,
) -> None:
    """Cut a corpus into passages, embed them, and write them as an immutable collection.

    Interrupted, it continues where it stopped; with nothing changed it writes nothing. The first collection of a name
    is served at once, later ones wait for `m4rag index promote`.
    """
    from m4rag.index.build import build_index
    from m4rag.settings import settings

    name = _corpus(corpus)
    built = build_index(
        settings().home / "corpus" / name / "documents",
        base or name,
        settings(),
        encoder=encoder,
        channels=_channels(channels),  # type: ignore[arg-type]
        dim=dim,
        max_tokens=max_tokens,
        overlap=overlap,
        progress=progress,
    )

    def render(console: Console) -> None:
        made = built.description
        console.print(f"{made.name}: {made.rows} passages of {built.documents} documents", highlight=False)
        if built.empty:
            console.print(f"{built.empty} documents have no text", highlight=False)
        console.print(f"{built.embedded} embedded, {built.written} written", highlight=False)
        if built.served == made.name:
            console.print(f"served as {made.base}", highlight=False)
        else:
            console.print(f"{made.base} is still {built.served}", highlight=False)

    emit(built.payload(), json, render)
    if built.served != built.description.name:
        say(f"to serve it: m4rag index promote {built.description.base}")


@app.command("search")
def search_command(
    query: Annotated[str, typer.Argument(help="What to look for.")],
    index: Annotated[str | None, typer.Option(help="Index or collection. Default: the only one served.")] = None,
    image: Annotated[Path | None, typer.Option(help="Picture that belongs to the query.", exists=True)] = None,
    k: Annotated[int, typer.Option("-k", help="Passages.")] = 5,
    channel: Annotated[str, typer.Option(help="dense, bm25 or hybrid. Default: all that the index has.")] = "",
    language: Annotated[list[str] | None, typer.Option(help="Only passages in this language; repeat it.")] = None,
    source: Annotated[list[str] | None, typer.Option(help="Only passages of this corpus; repeat it.")] = None,
    encoder: Encoder = None,
    json: Json = False,
) -> None:
    """Find passages."""
    from dataclasses import asdict

    from m4rag.encoders import Query
    from m4rag.index.evaluation import known_channel
    from m4rag.index.search import encoder_of, search
    from m4rag.index.store import connect
    from m4rag.settings import settings

    with connect(settings()) as store:
        name = _index(store, index)
        description = store.describe(name)
        wanted = known_channel(channel or ("hybrid" if len(description.channels) > 1 else description.channels[0]))
        found = search(
            store,
            name,
            [Query(text=query, image=str(image) if image else None)],
            None if wanted == "bm25" else encoder_of(description, settings(), encoder),
            k,
            wanted,
            languages=language or (),
            sources=source or (),
        )[0]

    def render(console: Console) -> None:
        from rich.table import Table

        table = Table("score", "title", "language", "text", box=None, pad_edge=False)
        for hit in found:
            table.add_row(f"{hit.score:.4f}", hit.title, hit.language, hit.text[:160])
        console.print(table if found else "nothing found")

    emit(
        {"collection": description.name, "channel": wanted, "hits": [asdict(hit) for hit in found]},
        json,
        render,
    )


@app.command("promote")
def promote_command(
    base: Base = None,
    collection: Annotated[str | None, typer.Argument(help="Collection to serve. Default: the newest.")] = None,
    json: Json = False,
) -> None:
    """Check a collection, then let production read it."""
    from m4rag.index.aliases import promote
    from m4rag.index.store import connect
    from m4rag.settings import settings

    with connect(settings()) as store:
        moved = promote(store, _base(store, base), collection)
    _report_move(moved, json)


@app.command("rollback")
def rollback_command(base: Base = None, json: Json = False) -> None:
    """Let production read what it read before the last promotion."""
    from m4rag.index.aliases import rollback
    from m4rag.index.store import connect
    from m4rag.settings import settings

    with connect(settings()) as store:
        moved = rollback(store, _base(store, base))
    _report_move(moved, json)


@app.command("list")
def list_command(base: Base = None, json: Json = False) -> None:
    """Show the collections, what they were made of, and which are served."""
    from m4rag.index.aliases import versions
    from m4rag.index.collection import base_name
    from m4rag.index.store import connect
    from m4rag.settings import settings

    with connect(settings()) as store:
        found = versions(store, base_name(base) if base else None)

    def render(console: Console) -> None:
        from rich.table import Table

        table = Table("collection", "role", "passages", "channels", "encoder", "dim", box=None, pad_edge=False)
        for version in found:
            made = version.description
            role = version.role if version.finished else "unfinished"
            table.add_row(made.name, role, str(made.rows), " ".join(made.channels), made.encoder, str(made.dim or ""))
        console.print(table if found else "no index: m4rag index build makes one")

    emit([version.payload() for version in found], json, render)


@app.command("verify")
def verify_command(
    index: Annotated[str | None, typer.Argument(help="Index or collection. Default: the only one served.")] = None,
    json: Json = False,
) -> None:
    """Check that a collection is whole and finds what it holds; exit 1 if it is not."""
    from m4rag.index.store import connect
    from m4rag.index.verify import verify
    from m4rag.settings import settings

    with connect(settings()) as store:
        result = verify(store, _index(store, index))

    def render(console: Console) -> None:
        console.print(result.collection, highlight=False)
        for check in result.checks:
            state = "[green]ok[/]" if check.ok else "[red]failed[/]"
            console.print(f"  {state} {check.name}: {check.detail}", highlight=False)

    emit(result.payload(), json, render)
    if not result.ok:
        raise typer.Exit(1)


@app.command("eval")
def eval_command(
    corpus: Corpus = None,
    dataset: Annotated[
        str | None, typer.Option(help="Dataset whose questions are searched. Default: names, see above.")
    ] = None,
    items: Annotated[Path | None, typer.Option(help="File of questions, for datasets that are not shipped.")] = None,
    index: Annotated[str | None, typer.Option(help="Index or collection. Default: the corpus's.")] = None,
    channel: Annotated[list[str] | None, typer.Option(help="dense, bm25 or hybrid; repeat it. Default: all.")] = None,
    encoder: Encoder = None,
    json: Json = False,
) -> None:
    """Measure retrieval: every name that a document has in another language must find that document.

    Names (`extra.aliases` of the documents) are queries only; title and text are what is indexed. Reported for all
    names, for those that differ from the title, and for those without a Latin letter.

    With --dataset every question, with its image where the encoder takes one, must find its gold documents: in the
    whole index, in the question's own language, and in the other languages.
    """
    from m4rag.index.evaluation import evaluate_index, sets
    from m4rag.settings import settings

    name = _corpus(corpus)
    report = evaluate_index(
        index or name,
        settings().home / "corpus" / name / "documents",
        settings(),
        progress,
        dataset=dataset,
        items=items,
        channels=channel or (),
        encoder=encoder,
    )
    emit(report, json, lambda console: _render_eval(console, report, sets(dataset)))


def _render_eval(console: Console, report: dict[str, Any], sets: Iterable[str]) -> None:
    from rich.table import Table

    from m4rag.index.evaluate import MACRO_QUERIES, MEASURES

    console.print(
        f"{report['collection']}: {report['queries']} queries, {report['passages']} passages", highlight=False
    )
    if report.get("encoder_languages"):
        languages = ", ".join(report["encoder_languages"])
        console.print(f"encoder {report['encoder']} was trained on {languages} only", highlight=False)
    for subset in sets:
        table = Table("language", "queries", "channel", *MEASURES, title=subset, box=None, pad_edge=False)
        for label, queries, channel, means in _eval_rows(report, subset, MACRO_QUERIES):
            table.add_row(label, str(queries), channel, *(f"{means[name]:.3f}" for name in MEASURES))
        console.print(table)


def _eval_rows(report: dict[str, Any], subset: str, least: int) -> Iterable[tuple[str, int, str, dict[str, float]]]:
    summaries = {channel: summary[subset] for channel, summary in report["channels"].items()}
    for channel, summary in summaries.items():
        if summary["mean"]:
            yield "mean over queries", summary["queries"], channel, summary["mean"]
    for channel, summary in summaries.items():
        if summary["macro"]:
            label = f"macro over {summary['macro_languages']} languages with {least} queries or more"
            yield label, summary["queries"], channel, summary["macro"]
    first = next(iter(summaries.values()))["languages"]
    for language in sorted(first, key=lambda code: (-first[code]["queries"], code)):
        if first[language]["queries"] >= least:
            for channel, summary in summaries.items():
                yield language, first[language]["queries"], channel, summary["languages"][language]


def _report_move(moved: Moved, json: bool) -> None:
    def render(console: Console) -> None:
        was = f" (was {moved.before})" if moved.before not in (None, moved.served) else ""
        console.print(f"{moved.base} is {moved.served}{was}", highlight=False)

    emit({"base": moved.base, "served": moved.served, "before": moved.before}, json, render)


def _corpus(name: str | None) -> str:
    from m4rag.manifests import MANIFEST
    from m4rag.settings import settings

    folder = settings().home / "corpus"
    there = sorted(path.parent.parent.name for path in folder.glob(f"*/documents/{MANIFEST}"))
    if name is not None and name in there:
        return name
    remedy = f"There is: {', '.join(there)}." if there else "Ingest one: m4rag corpus ingest."
    if name is not None:
        raise UsageError(f"no corpus {name!r}", where=str(folder), remedy=remedy)
    return _only(there, "corpus", remedy)


def _index(store: Store, name: str | None) -> str:
    if name is not None:
        return name
    from m4rag.index.aliases import PREVIOUS

    there = sorted(alias for alias in store.aliases() if not alias.endswith(PREVIOUS))
    return _only(there, "index", f"There is: {', '.join(there)}." if there else "Build one: m4rag index build.")


def _base(store: Store, name: str | None) -> str:
    from m4rag.index.aliases import versions
    from m4rag.index.collection import base_name

    if name is not None:
        return base_name(name)
    there = sorted({version.description.base for version in versions(store)})
    return _only(there, "index", f"There is: {', '.join(there)}." if there else "Build one: m4rag index build.")


def _only(there: list[str], what: str, remedy: str) -> str:
    if len(there) != 1:
        raise UsageError(f"more than one {what}" if there else f"no {what}", remedy=remedy)
    return there[0]


def _channels(text: str) -> tuple[str, ...]:
    from m4rag.index.collection import CHANNELS

    asked = {part.strip() for part in text.split(",")}
    if not asked or asked - set(CHANNELS):
        raise UsageError(f"{text!r} is not a list of channels", remedy=f"Use {', '.join(CHANNELS)} or both.")
    return tuple(channel for channel in CHANNELS if channel in asked)
