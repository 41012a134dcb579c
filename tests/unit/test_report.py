from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from run_folders import MARKUP, write_judgements, write_run

from m4rag.bench.examples import GAINED, LOST, MISLED, choose_examples
from m4rag.bench.findings import finding, relevance_finding
from m4rag.bench.joined import answers_by_setting, read_folder_table
from m4rag.bench.relevance import Bin, Relevance
from m4rag.bench.report import current_report, tongue, write_report
from m4rag.bench.runs import Passage, RunPlan
from m4rag.bench.scoring import Estimate, Scores
from m4rag.errors import BadData
from m4rag.languages import LANGUAGES, RIGHT_TO_LEFT, lookup
from m4rag.policy.fit import fit
from m4rag.policy.words import against_the_better
from m4rag.schema import Question

ARABIC = re.compile(r"[\u0600-\u06ff]")
VOID = {"meta", "link", "img", "br", "wbr"}


class Page(HTMLParser):
    """What a browser would make of the page: elements with their attributes, and texts with the direction they get."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str, str]] = []
        self._open: list[tuple[str, dict[str, str]]] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = (tag, {name: value or "" for name, value in attrs})
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        direction = next((attrs["dir"] for _, attrs in reversed(self._open) if "dir" in attrs), "ltr")
        if data.strip():
            self.texts.append((self._open[-1][0], direction, data))

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.elements if name == tag]

    def heading_texts(self) -> str:
        return " ".join(text for tag, _, text in self.texts if tag == "h1")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_run(folder)
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return Page((run / "report.html").read_text())


def test_the_page_loads_and_runs_nothing(page: Page) -> None:
    assert page.all("script") == []
    assert page.all("form") == []
    for _, attrs in page.elements:
        assert not [name for name in attrs if name.startswith("on") or name == "style"]
        for name in ("src", "href", "xlink:href", "srcset", "data"):
            assert attrs.get(name, "data:").startswith("data:")


def test_the_security_policy_allows_this_pages_style_and_pictures_only(run: Path, page: Page) -> None:
    style = re.search(r"<style>(.*?)</style>", (run / "report.html").read_text(), re.DOTALL)
    assert style is not None
    seal = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = next(attrs["content"] for attrs in page.all("meta") if "http-equiv" in attrs)
    assert policy.split("; ")[:3] == ["default-src 'none'", "img-src data:", f"style-src 'sha256-{seal}'"]


def test_texts_of_users_models_and_corpora_never_become_markup(tmp_path: Path) -> None:
    write_run(tmp_path, markup=MARKUP, note=f"Random weights {MARKUP}")
    text = write_report(tmp_path).read_text()
    hostile = Page(text)
    assert "<script" not in text
    assert not any("onerror" in attrs for _, attrs in hostile.elements)
    # In the model's name, the note, a question, an option, a passage, a category and a model's answer.
    assert text.count("&lt;script&gt;") > 50


def test_texts_in_arabic_letters_run_from_right_to_left(page: Page) -> None:
    arabic = [(tag, direction) for tag, direction, text in page.texts if ARABIC.search(text)]
    assert len([tag for tag, direction in arabic if direction == "rtl"]) > 10
    assert {direction for _, direction in arabic} == {"rtl", "auto"}


def test_each_text_says_its_language(page: Page) -> None:
    spoken = {attrs["lang"] for tag, attrs in page.elements if tag == "p" and "lang" in attrs}
    assert spoken >= {"am", "ar", "hi", "ja", "si", "th"}


def test_every_language_has_a_name_of_its_own_in_its_direction() -> None:
    for code, language in LANGUAGES.items():
        spoken = tongue(code)
        assert spoken.direction == language.direction
        assert bool(ARABIC.search(spoken.endonym)) == (language.script in RIGHT_TO_LEFT), spoken
    assert tongue("nan").endonym == "闽南语"
    assert tongue("zh_cn").tag == "zh-Hans"
    assert tongue("yue").tag == "yue-Hant"


def test_the_report_stays_small_and_shows_each_picture_once(run: Path, page: Page) -> None:
    pictures = [attrs["src"] for attrs in page.all("img")]
    assert len(pictures) == 12
    assert len(set(pictures)) == 12
    assert (run / "report.html").stat().st_size < 3_000_000


def test_examples_come_from_many_scripts(page: Page) -> None:
    questions = {attrs["lang"] for _, attrs in page.elements if attrs.get("class") == "question native"}
    assert len({lookup(tag.partition("-")[0]).script for tag in questions}) >= 9


def test_the_same_run_gives_the_same_report(run: Path) -> None:
    before = (run / "report.html").read_bytes()
    assert write_report(run).read_bytes() == before


def test_an_ordinary_run_carries_no_warning(page: Page) -> None:
    assert page.all("aside") == []
    assert "Retrieval" in page.heading_texts()


def test_a_note_about_the_model_replaces_the_verdict(tmp_path: Path) -> None:
    write_run(tmp_path, note="Random weights: accuracy is chance.")
    noted = Page(write_report(tmp_path).read_text())
    assert len(noted.all("aside")) == 1
    assert "say nothing about a model" in noted.heading_texts()
    assert "etrieval" not in noted.heading_texts()


def test_a_run_without_images_is_labelled_in_every_section(tmp_path: Path) -> None:
    write_run(tmp_path, images="none")
    labelled = Page(write_report(tmp_path).read_text())
    assert labelled.heading_texts().startswith("Text-only baseline")
    # The page's top, the table, and the four sections that show numbers or examples.
    assert sum(attrs.get("class") == "badge" for attrs in labelled.all("span")) == 6
    assert sum(tag == "figcaption" for tag, _ in labelled.elements) == 12


def test_a_run_that_shows_no_passages_has_a_report(tmp_path: Path) -> None:
    write_run(tmp_path, settings=("no_rag",))
    text = write_report(tmp_path).read_text()
    assert "does not compare retrieval" in text
    assert "not measured" in text


def test_a_picture_that_is_gone_is_named_and_the_rest_is_shown(tmp_path: Path) -> None:
    write_run(tmp_path)
    (tmp_path / "pictures" / "tea-0.png").unlink()
    (tmp_path / "pictures" / "drum-0.png").write_text("not a picture")
    text = write_report(tmp_path).read_text()
    assert text.count("not readable here") == 2
    assert len(Page(text).all("img")) == 10


def test_a_report_of_these_scores_is_kept_where_the_pictures_are_not(tmp_path: Path) -> None:
    write_run(tmp_path)
    before = write_report(tmp_path).read_bytes()
    shutil.rmtree(tmp_path / "pictures")
    assert current_report(tmp_path).read_bytes() == before


def test_a_report_of_other_scores_is_written_again(tmp_path: Path) -> None:
    write_run(tmp_path)
    write_report(tmp_path)
    scores = json.loads((tmp_path / "scores.json").read_text())
    scores["settings"][1]["accuracy"]["value"] = 99.9
    (tmp_path / "scores.json").write_text(json.dumps(scores))
    assert "99.9" in current_report(tmp_path).read_text()


def test_a_report_is_written_again_where_the_pictures_are_not(tmp_path: Path) -> None:
    write_run(tmp_path)
    before = write_report(tmp_path).read_bytes()
    shutil.rmtree(tmp_path / "pictures")
    (tmp_path / "report.html").unlink()
    assert write_report(tmp_path).read_bytes() == before


def section(text: str, name: str) -> str:
    return text[text.index(f'<section aria-labelledby="{name}">') :].split("</section>", maxsplit=1)[0]


def test_every_language_and_setting_is_a_coloured_number(run: Path) -> None:
    found = section((run / "report.html").read_text(), "languages")
    scores = Scores.model_validate_json((run / "scores.json").read_bytes())
    cells = [cell for row in scores.settings for cell in row.breakdowns["language"].values()]
    for cell in (*cells, *(row.accuracy for row in scores.settings)):
        tenth = min(9, int(cell.value // 10))
        shown = f"<b>{cell.value:.1f}</b><small>{cell.low:.1f}–{cell.high:.1f}</small>"
        assert f'<td class="n h{tenth}">{shown}</td>' in found or cell.low == cell.high
    assert found.count('<td class="n h') == len(cells) + len(scores.settings)


def test_the_weakest_groups_are_those_of_a_setting_that_can_be_served(run: Path) -> None:
    found = section((run / "report.html").read_text(), "breakdowns")
    scores = Scores.model_validate_json((run / "scores.json").read_bytes())
    best = max(scores.settings[1::2], key=lambda row: row.accuracy.value)  # no_rag and caption_query
    assert f"Weakest groups in {best.setting}" in found
    first = min(
        (cell for name, cells in best.breakdowns.items() if len(cells) > 1 for cell in cells.values() if cell.n >= 20),
        key=lambda cell: cell.high,
    )
    table = found[: found.index("</table>")]
    assert f"<b>{first.value:.1f}</b>" in table[: table.index("</td>")]
    # The whole has a number, too: what is not below it is not weak.
    assert 1 < table.count('<th scope="row">') <= 8
    assert '<td class="n">+' not in table


def test_answers_that_cannot_be_used_are_quoted(run: Path) -> None:
    found = section((run / "report.html").read_text(), "settings")
    assert found.count("I am not sure which one it is</pre>") == 3


def test_examples_show_what_context_without_the_answer_does(page: Page) -> None:
    outcomes = {attrs["class"] for _, attrs in page.elements if attrs.get("class", "").startswith("outcome")}
    assert outcomes >= {"outcome gained-with-retrieval", "outcome misled-by-context"}


def test_only_settings_that_could_be_served_gain_or_lose_an_example(tmp_path: Path) -> None:
    write_run(tmp_path, settings=("no_rag", "oracle_query", "caption_query"))
    questions = read_folder_table(tmp_path / "questions", Question)
    answers = answers_by_setting(tmp_path, RunPlan.read(tmp_path), questions)
    passages = read_folder_table(tmp_path / "passages", Passage)
    chosen = choose_examples(questions, answers, passages, lambda code: lookup(code).language.script, limit=60)
    for example in chosen:
        by_setting = {answer.setting: answer.choice == example.question.answer_index for answer in example.answers}
        change = by_setting["caption_query"] - by_setting["no_rag"]
        assert (example.outcome == GAINED) == (change > 0)
        assert (example.outcome in (LOST, MISLED)) == (change < 0)
    unlike = [[answer.choice == example.question.answer_index for answer in example.answers] for example in chosen]
    assert any(plain == caption != oracle for plain, oracle, caption in unlike), "one differs by oracle_query alone"


@pytest.fixture(scope="module")
def ruled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ruled")
    write_run(folder)
    policy = fit(folder)
    policy.write(policy.file_in(folder))
    write_report(folder)
    return folder


def test_a_policy_is_shown_with_its_rules_classes_and_digest(ruled: Path) -> None:
    text = (ruled / "report.html").read_text()
    policy = fit(ruled)
    evidence = policy.evidence
    found = section(text, "policy")
    rules = (evidence.never, evidence.always, evidence.gated, evidence.gate_alone, evidence.oracle)
    by_class = [rule for each in evidence.by_class.values() for rule in (each.never, each.always, each.gated)]
    for rule in (*rules, *by_class):
        assert f"<b>{rule.value:.1f}</b><small>{rule.low:.1f}–{rule.high:.1f}</small>" in found
    assert found.count("✓ chosen") == 1
    assert against_the_better(evidence).replace("-", "−") in found
    assert policy.digest in found
    assert "NaN" not in found


def test_fitting_a_policy_makes_the_report_stale_and_a_changed_file_is_named(ruled: Path, tmp_path: Path) -> None:
    shutil.copytree(ruled, tmp_path / "run")
    (file,) = (tmp_path / "run").glob("policy-*.json")
    file.write_text(file.read_text().replace('"k": 3', '"k": 4'))
    found = section(current_report(tmp_path / "run").read_text(), "policy")
    assert "Not shown: policy-caption_query.json: changed since it was fitted" in found
    assert "✓ chosen" not in found
    file.unlink()
    assert '<section aria-labelledby="policy">' not in current_report(tmp_path / "run").read_text()


def test_a_policy_of_other_answers_is_named_and_not_shown(ruled: Path, tmp_path: Path) -> None:
    write_run(tmp_path, seed=8)
    shutil.copyfile(ruled / "policy-caption_query.json", tmp_path / "policy-caption_query.json")
    found = section(write_report(tmp_path).read_text(), "policy")
    assert "policy-caption_query.json: fitted on other answers than those of this run" in found


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judged")
    write_run(folder)
    write_judgements(folder)
    write_report(folder)
    return folder


def headings(page: Page) -> list[str]:
    return [text for tag, _, text in page.texts if tag == "h2"]


def test_a_run_that_nobody_judged_has_no_section_about_relevance(page: Page) -> None:
    assert "Does relevance decide?" not in headings(page)


def test_a_judged_run_shows_every_rate_as_a_point_with_its_interval_and_as_a_number(judged: Path) -> None:
    text = (judged / "report.html").read_text()
    section = text[text.index('<section aria-labelledby="relevance">') :].split("</section>")[0]
    assert "Does relevance decide?" in headings(Page(text))
    relevance = Relevance.model_validate_json((judged / "relevance.json").read_bytes())
    shown = [relevance.pooled, *relevance.settings]
    assert section.count('<path transform="scale(') == sum(
        rate is not None for part in shown if part for bin_ in part.bins for rate in (bin_.retention, bin_.correction)
    )
    whole = relevance.whole
    assert whole is not None
    for part in (*whole.bins, *whole.summary, whole.overall):
        for rate in (part.retention, part.correction):
            if rate is not None:
                assert f"<b>{rate.value:.1f}</b><small>{rate.low:.1f}–{rate.high:.1f}</small>" in section
    assert relevance.auc is not None
    assert f"<b>{relevance.auc.value:.3f}</b>" in section
    assert "judge-32b" in section
    assert "NaN" not in section


def test_judging_a_run_makes_its_report_stale(tmp_path: Path) -> None:
    write_run(tmp_path)
    write_report(tmp_path)
    write_judgements(tmp_path)
    assert "Does relevance decide?" in current_report(tmp_path).read_text()


def test_a_judge_of_random_weights_or_without_a_score_concludes_nothing(tmp_path: Path) -> None:
    plan = write_run(tmp_path)
    relevance = write_judgements(tmp_path, note="Random weights.")
    assert relevance_finding(plan, relevance).startswith("Nothing can be concluded")
    assert "about the judge: Random weights." in write_report(tmp_path).read_text()
    shutil.rmtree(tmp_path / "judgements")
    silent = write_judgements(tmp_path, failed=1.0)
    assert relevance_finding(plan, silent) == "The judge gave no passage a score that could be read."
    assert "Does relevance decide?" in write_report(tmp_path).read_text()


def test_a_judge_that_cannot_tell_gold_passages_concludes_nothing(tmp_path: Path) -> None:
    plan = write_run(tmp_path)
    relevance = write_judgements(tmp_path, blind=True)
    assert relevance.auc is not None
    assert relevance.auc.low <= 0.5
    told = relevance_finding(plan, relevance)
    assert told.startswith("Nothing can be concluded from this section; about the judge: judge-32b does not tell gold")
    page = write_report(tmp_path).read_text()
    assert told in page
    assert "Leaving out" not in page
    better = relevance.model_copy(update={"auc": relevance.auc.model_copy(update={"low": 0.501})})
    assert not relevance_finding(plan, better).startswith("Nothing")


def test_a_judged_run_without_no_rag_says_what_is_missing(tmp_path: Path) -> None:
    plan = write_run(tmp_path, settings=("oracle", "caption_query"))
    assert "no_rag is missing" in relevance_finding(plan, write_judgements(tmp_path))
    assert "no_rag is missing" in write_report(tmp_path).read_text()


def test_texts_of_the_judge_never_become_markup(tmp_path: Path) -> None:
    write_run(tmp_path, markup=MARKUP)
    write_judgements(tmp_path, model=f"judge{MARKUP}", note=f"Note {MARKUP}")
    text = write_report(tmp_path).read_text()
    assert "<script" not in text
    assert not any("onerror" in attrs for _, attrs in Page(text).elements)


@pytest.mark.parametrize(
    ("retention", "correction", "words"),
    [
        ((40, 90), (20, 80), "Yes: retention rises from 40.0 % (relevance below 2, 50 answers) to 90.0 % (above 4"),
        ((40, 90), (50, 55), "In part: retention rises"),
        ((50, 55), (50, 55), "Not clearly: retention goes from 50.0 %"),
        ((90, 40), (90, 40), "Not clearly: retention falls from 90.0 %"),
        ((None, 90), (None, 80), "It cannot be told"),
    ],
)
def test_the_sentence_about_relevance_claims_only_what_the_intervals_show(
    judged: Path, retention: tuple[float | None, float], correction: tuple[float | None, float], words: str
) -> None:
    relevance = Relevance.model_validate_json((judged / "relevance.json").read_bytes())
    assert relevance.pooled is not None

    def made(label: str, position: int) -> Bin:
        kept, mended = (
            None
            if (value := rate[position]) is None
            else _estimate(value, value - 8, value + 8).model_copy(update={"n": 50})
            for rate in (retention, correction)
        )
        return Bin(label=label, low=1, high=5, n=99, retention=kept, correction=mended, effect=None)

    pooled = relevance.pooled.model_copy(update={"summary": (made("below 2", 0), made("above 4", 1))})
    sentence = relevance_finding(RunPlan.read(judged), relevance.model_copy(update={"pooled": pooled}))
    assert sentence.startswith(words)


def test_a_run_that_is_not_scored_says_what_to_do(tmp_path: Path) -> None:
    write_run(tmp_path)
    (tmp_path / "scores.json").unlink()
    with pytest.raises(BadData, match=r"not scored.*m4rag bench score"):
        write_report(tmp_path)


def test_scores_of_another_run_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "one")
    write_run(tmp_path / "other", settings=("no_rag",))
    shutil.copy(tmp_path / "other" / "scores.json", tmp_path / "one" / "scores.json")
    with pytest.raises(BadData, match="where the run has"):
        write_report(tmp_path / "one")


def test_a_run_without_all_its_answers_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path)
    (tmp_path / "answers" / "manifest.json").unlink()
    with pytest.raises(BadData, match="has not finished"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    ("change", "p_holm", "words"),
    [
        ((20, 10, 30), 0.001, "Retrieval helps this model"),
        ((-20, -30, -10), 0.001, "Retrieval hurts this model"),
        ((6, 1, 11), 0.051, "Retrieval makes no clear difference for this model"),
        ((6, 0, 12), 0.049, "Retrieval makes no clear difference for this model"),
        ((6, 0.1, 12), 0.049, "Retrieval helps this model"),
    ],
)
def test_the_headline_claims_only_what_the_paired_comparison_shows(
    tmp_path: Path, change: tuple[float, float, float], p_holm: float, words: str
) -> None:
    plan = write_run(tmp_path)
    effect = dict(zip(("value", "low", "high"), change, strict=True)) | {"p_holm": p_holm}
    found = finding(plan, _scores_with(tmp_path, effect))
    assert found.headline == words
    assert f"a difference of {change[0]:+.1f} [{change[1]:+.1f}, {change[2]:+.1f}] points" in found.support


def test_scores_of_an_earlier_version_are_not_compared(tmp_path: Path) -> None:
    plan = write_run(tmp_path)
    found = finding(plan, _scores_with(tmp_path, None))
    assert "not computed" in found.headline
    assert "score the run again" in found.support


def _scores_with(folder: Path, effect: dict[str, float] | None) -> Scores:
    scores = Scores.model_validate_json((folder / "scores.json").read_bytes())
    settings = []
    for row in scores.settings:
        if row.setting == "caption_query":
            assert row.effect is not None
            row = row.model_copy(update={"effect": effect and row.effect.model_copy(update=effect)})
        settings.append(row)
    return scores.model_copy(update={"settings": tuple(settings)})


def _estimate(value: float, low: float, high: float) -> Estimate:
    return Estimate(value=value, low=low, high=high, n=180, groups=12)
