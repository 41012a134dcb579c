"""Labels of people: what is written for them, what is refused, and how far the judge agrees."""

from __future__ import annotations

import csv
import json
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest
from run_folders import write_judgements, write_run
from sklearn.metrics import cohen_kappa_score
from typer.testing import CliRunner

from m4rag.bench.agreement import Coefficient
from m4rag.bench.benchmark import finish
from m4rag.bench.judgements import JUDGEMENTS, pairs, read_scores
from m4rag.bench.labels import (
    Agreement,
    _agrees,
    keep_labels,
    measure,
    read_agreement,
    read_labels,
    write_agreement,
    write_sample,
)
from m4rag.bench.report import current_report, write_report
from m4rag.bench.runs import RunPlan
from m4rag.cli import app
from m4rag.errors import BadData, UsageError

HEADER = "question_id,chunk_id,score"


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judged") / "run"
    write_run(folder, settings=("no_rag", "oracle", "caption_query"))
    write_judgements(folder)
    return folder


@pytest.fixture
def run(judged: Path, tmp_path: Path) -> Path:
    """A judged run of this test's own."""
    return Path(shutil.copytree(judged, tmp_path / "run"))


def read(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.DictReader(stream))


def fill(run: Path, template: Path, file: Path, noise: float, delimiter: str = ",") -> Path:
    """What somebody makes of a template who sees what the judge sees, less clearly."""
    scores, chance = read_scores(run), random.Random(file.name)
    rows = read(template)
    for row in rows:
        score = round(scores[row["question_id"], row["chunk_id"]] + chance.gauss(0, noise))
        row["score"] = str(min(5, max(1, score)))
    with file.open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
        table.writeheader()
        table.writerows(rows)
    return file


def test_a_sample_has_each_score_and_variety_by_its_share_and_hides_the_judge(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    assert write_sample(run, 150, file) == 150
    rows = read(file)
    scores, wanted = read_scores(run), pairs(run, RunPlan.read(run))
    judged = {pair.key: pair for pair in wanted if pair.key in scores}
    chosen = [(row["question_id"], row["chunk_id"]) for row in rows]
    assert len(set(chosen)) == 150
    assert set(chosen) <= judged.keys()
    everywhere = Counter(scores[key] for key in judged)
    sampled = Counter(scores[key] for key in chosen)
    for score, count in everywhere.items():
        assert abs(sampled[score] - 150 * count / len(judged)) <= 1
    assert {row["language"] for row in rows} == {pair.question.language for pair in wanted}
    assert {row["score"] for row in rows} == {""}
    assert "judge" not in " ".join(rows[0]).lower()
    assert [row["language"] for row in rows] == sorted(row["language"] for row in rows)
    for row in rows:
        pair = judged[row["question_id"], row["chunk_id"]]
        assert row["passage"] == pair.passage
        assert row["right_answer"] == pair.question.options[pair.question.answer_index]


def test_the_same_run_gives_the_same_sample_and_never_overwrites_labels(run: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    write_sample(run, 20, one)
    write_sample(run, 20, two)
    assert one.read_bytes() == two.read_bytes()
    with pytest.raises(UsageError, match="may hold labels"):
        write_sample(run, 20, one)
    everything = write_sample(run, 10**6, tmp_path / "all.csv")
    scored = [pair for pair in pairs(run, RunPlan.read(run)) if pair.key in read_scores(run)]
    assert everything == len(scored)


def test_no_cell_is_a_formula_and_ids_come_back_as_they_were(tmp_path: Path) -> None:
    write_run(tmp_path / "run", markup="\n=HYPERLINK(1)", settings=("oracle",))
    write_judgements(tmp_path / "run")
    questions = tmp_path / "labels.csv"
    write_sample(tmp_path / "run", 30, questions)
    cells = [cell for row in read(questions) for cell in row.values()]
    assert any("=HYPERLINK" in cell for cell in cells)
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in cells)
    assert not any("\n" in cell for cell in cells)
    wanted = pairs(tmp_path / "run", RunPlan.read(tmp_path / "run"))[:1]
    for name in ("=1+1", "'=1", "-5"):
        pair = wanted[0]
        odd = type(pair)(pair.question.model_copy(update={"question_id": name}), pair.passage, pair.chunk_ids)
        file = tmp_path / "odd.csv"
        file.write_text(f"{HEADER}\n'{name},{pair.chunk_ids[0]},3\n")
        (label,) = read_labels([file], [odd])
        assert (label.question_id, label.rater, label.score) == (name, "odd", 3)


def test_files_of_several_people_are_read_whatever_their_separator(run: Path, tmp_path: Path) -> None:
    template = tmp_path / "template.csv"
    write_sample(run, 40, template)
    files = [
        fill(run, template, tmp_path / f"{name}.csv", 0.5, delimiter)
        for name, delimiter in (("anna", ","), ("ben", ";"), ("chi", "\t"))
    ]
    labels = read_labels(files, pairs(run, RunPlan.read(run)))
    assert Counter(label.rater for label in labels) == {"anna": 40, "ben": 40, "chi": 40}
    one = tmp_path / "both.csv"
    key = ",".join(pairs(run, RunPlan.read(run))[0].key)
    one.write_text(f"{HEADER},rater\n{key},4,dora\n{key},5.0,emil\n{key},,fay\n")
    assert [(label.rater, label.score) for label in read_labels([one], pairs(run, RunPlan.read(run)))] == [
        ("dora", 4),
        ("emil", 5),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"{HEADER}\nKEY,4\nKEY2,6\n", r"labels.csv line 3: score '6'. Scores are whole numbers from 1 to 5"),
        (f"{HEADER}\nKEY,2.5\n", "line 2: score '2.5'"),
        (f"{HEADER}\nKEY,nan\n", "line 2: score 'nan'"),
        (f"{HEADER}\nKEY,good\n", "line 2: score 'good'"),
        (f"{HEADER}\nKEY,4\nKEY,5\n", "line 3: labels labelled this passage twice, first in .*line 2"),
        (f"{HEADER}\nKEY,4\nnobody,asked,4\n", "line 3: passage 'asked' was not shown with question 'nobody'"),
        ('question_id,chunk_id,score,note\nKEY,4,"two\nlines"\nKEY2,9,\n', "line 4: score '9'"),
        (f"{HEADER}\nKEY\n", "line 2: 2 cells where the header has 3"),
        (f'{HEADER}\nKEY,"4\n', "line 2: not CSV"),
        (f"{HEADER}\nKEY,\n", "no row has a score"),
        (f"{HEADER}\n", "no row has a score"),
        ("", "no column 'question_id', 'chunk_id', 'score', as labels have. It has: nothing"),
        ("question_id,passage,score\n", "no column 'chunk_id', as labels have. It has: question_id, passage, score"),
    ],
)
def test_what_is_no_label_is_refused_with_its_line(run: Path, tmp_path: Path, text: str, says: str) -> None:
    wanted = pairs(run, RunPlan.read(run))
    file = tmp_path / "labels.csv"
    file.write_text(text.replace("KEY2", ",".join(wanted[1].key)).replace("KEY", ",".join(wanted[0].key)))
    with pytest.raises(BadData, match=says):
        read_labels([file], wanted)


def test_files_that_are_no_text_are_refused(run: Path, tmp_path: Path) -> None:
    latin = tmp_path / "latin.csv"
    latin.write_bytes("question_id,chunk_id,score,note\na,b,3,größer\n".encode("latin-1"))
    with pytest.raises(BadData, match=r"not UTF-8\. Save it as “CSV UTF-8”"):
        read_labels([latin], [])
    with pytest.raises(BadData, match="no such file"):
        read_labels([tmp_path / "absent.csv"], [])


def labelled(run: Path, tmp_path: Path, **noise: float) -> Agreement:
    template = tmp_path / "template.csv"
    write_sample(run, 120, template)
    files = [fill(run, template, tmp_path / f"{name}.csv", sigma) for name, sigma in noise.items()]
    keep_labels(run, read_labels(files, pairs(run, RunPlan.read(run))))
    found = write_agreement(run)
    assert found is not None
    return found


def test_the_judge_is_compared_with_every_label_and_with_each_person(run: Path, tmp_path: Path) -> None:
    found = labelled(run, tmp_path, anna=0.5, ben=1.5)
    scores = read_scores(run)
    kappas = {}
    for name in ("anna", "ben"):
        rows = read(tmp_path / f"{name}.csv")
        theirs = [int(row["score"]) for row in rows]
        ours = [scores[row["question_id"], row["chunk_id"]] for row in rows]
        kappas[name] = cohen_kappa_score(ours, theirs, labels=[1, 2, 3, 4, 5], weights="quadratic")
    assert {row.rater: row.kappa.value for row in found.raters} == pytest.approx(kappas)
    assert found.overall.kappa.value is not None
    assert kappas["ben"] < found.overall.kappa.value < kappas["anna"]
    assert (found.overall.labels, found.passages, found.unjudged) == (240, 120, 0)
    assert sum(map(sum, found.confusion)) == 240
    assert found.people is not None
    assert found.words.startswith("judge-32b agrees with 2 people: quadratic-weighted kappa 0.")
    assert "People with each other: alpha 0." in found.words
    assert read_agreement(run) == found


def test_one_person_is_nobody_elses_rater(run: Path, tmp_path: Path) -> None:
    found = labelled(run, tmp_path, anna=0.5)
    assert (found.raters, found.people) == ((), None)
    assert "one person" in found.words


def test_another_judge_is_compared_with_the_same_labels(run: Path, tmp_path: Path) -> None:
    first = labelled(run, tmp_path, anna=0.3)
    write_judgements(run, model="other-judge", seed=8, blind=True)
    with pytest.raises(BadData, match="computed from other judgements"):
        read_agreement(run)
    finish(run)
    second = read_agreement(run)
    assert second is not None
    assert (second.judge, second.labels) == ("other-judge", first.labels)
    assert second.overall.kappa.value is not None
    assert first.overall.kappa.value is not None
    assert second.overall.kappa.value < first.overall.kappa.value


def test_a_judge_without_a_score_for_any_label_is_said_and_breaks_nothing(run: Path, tmp_path: Path) -> None:
    labelled(run, tmp_path, anna=0.3)
    write_judgements(run, model="silent-judge", failed=1.0)
    found = measure(run)
    assert (found.overall.labels, found.unjudged) == (0, 120)
    assert found.words == "silent-judge gave no score to any of the 120 labelled passages."
    write_agreement(run)
    assert found.words in write_report(run).read_text()


def test_the_report_says_how_far_the_judge_is_right_and_is_renewed(run: Path, tmp_path: Path) -> None:
    before = write_report(run).read_text()
    assert "weighted kappa" not in before
    found = labelled(run, tmp_path, anna=0.5)
    assert f"{found.overall.kappa.words}" in current_report(run).read_text()


@pytest.mark.parametrize(
    ("value", "low", "high", "says"),
    [
        (0.72, 0.65, 0.78, "J agrees with P: quadratic-weighted kappa 0.72 [0.65, 0.78] (substantial)"),
        (0.5, 0.35, 0.62, "J agrees with P: quadratic-weighted kappa 0.50 [0.35, 0.62] (fair to substantial)"),
        (0.1, -0.1, 0.3, "J does not clearly agree with P: quadratic-weighted kappa 0.10 [-0.10, 0.30]"),
        (-0.5, -0.7, -0.3, "J does not clearly agree with P: quadratic-weighted kappa -0.50 [-0.70, -0.30]"),
        (1.0, None, None, "How far J agrees with P is not known: quadratic-weighted kappa 1.00 (too little"),
        (None, None, None, "How far J agrees with P is not known: quadratic-weighted kappa not defined"),
    ],
)
def test_words_claim_what_the_interval_supports(
    value: float | None, low: float | None, high: float | None, says: str
) -> None:
    assert _agrees("J", "P", Coefficient(value=value, low=low, high=high, groups=9)).startswith(says)


def test_the_command_writes_a_sample_reads_labels_and_says_what_they_show(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded: list[Path] = []
    monkeypatch.setattr("m4rag.cli.record.record_run", lambda run, _: recorded.append(run) or {"url": "x"})
    command, template = ["bench", "agreement", str(run)], tmp_path / "to label.csv"
    with pytest.raises(UsageError, match="nobody labelled passages of this run"):
        CliRunner().invoke(app, command, catch_exceptions=False)
    with pytest.raises(UsageError, match="--sample: it writes one file"):
        CliRunner().invoke(app, [*command, "--sample", "9"], catch_exceptions=False)
    written = CliRunner().invoke(app, [*command, str(template), "--sample", "50"], catch_exceptions=False)
    assert "50 passages to label" in written.stdout
    assert "5. Directly confirms the correct answer." in written.stdout
    assert f"'{template}'" in written.stdout
    filled = [str(fill(run, template, tmp_path / name, 0.6)) for name in ("[b]anna.csv", "ben.csv")]
    told = json.loads(CliRunner().invoke(app, [*command, *filled, "--json"], catch_exceptions=False).stdout)
    assert told["agreement"]["overall"]["labels"] == 100
    shown = CliRunner().invoke(app, command, catch_exceptions=False)  # the labels are in the run now
    assert "[b]anna" in shown.stdout
    assert "judge gave 5" in shown.stdout
    assert recorded == [run, run]


def test_a_run_that_nobody_judged_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path, settings=("oracle",))
    assert not (tmp_path / JUDGEMENTS).exists()
    with pytest.raises(UsageError, match="the run is not judged"):
        CliRunner().invoke(app, ["bench", "agreement", str(tmp_path)], catch_exceptions=False)
    assert write_agreement(tmp_path) is None
