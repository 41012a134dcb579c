"""GPU hours against answers computed by hand, and what must hold of every estimate."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from run_folders import write_run
from typer.testing import CliRunner

from m4rag.bench.usage import read_usage
from m4rag.cli.deploy_cost import cost_command
from m4rag.deploy.catalog import catalog, hardware, model
from m4rag.deploy.cost import PAGE_TOKENS, PUBLISHED, Work, cost, tokens_per_second, work
from m4rag.errors import UsageError

SMALL, MIDDLE, LARGE = model("qwen2-5-vl-7b"), model("qwen3-vl-32b"), model("qwen2-5-vl-72b")
counts = st.integers(1, 10**6)
sizes = st.floats(1, 5000)
speeds = st.floats(10, 1e5)


def test_a_measured_speed_by_hand() -> None:
    """1,000 questions in 5 settings, 1,000 tokens in and 80 out: 5.4 million tokens at 3,000 a second are 0.5 h."""
    found = cost(MIDDLE, work(1000, 5, 1000, 80), 3000, startup_s=900, price_per_gpu_hour=2.0)
    assert (found.gpus, found.basis) == (2, "measured")
    assert found.hours == (0.75, 0.75)
    assert found.gpu_hours == (1.5, 1.5)
    assert found.money == (3.0, 3.0)


def test_a_published_speed_by_hand() -> None:
    """36,000 requests on 4 GPUs at 1.2 and 0.5 a second: 8 1/3 and 20 h, and half an hour to start."""
    found = cost(LARGE, work(36000, 1, 1000, 100), startup_s=1800)
    assert found.basis == "published"
    assert found.hours == pytest.approx((8.5 + 1 / 3, 20.5))
    assert found.gpu_hours == pytest.approx((34 + 4 / 3, 82))
    assert found.money is None


def test_what_nobody_measured_is_not_made_up() -> None:
    for one in (model("qwen3-vl-8b"), model("qwen2-5-vl-72b-fp8")):  # the latter was published on 4 GPUs, not on 2
        found = cost(one, work(1000, 1, 1000, 100), price_per_gpu_hour=1)
        assert (found.basis, found.hours, found.gpu_hours, found.money) == (None, None, None, None)


@pytest.mark.parametrize(
    ("prompt", "completion", "basis"), [(4864, 128, "published"), (4865, 128, None), (9, 129, None)]
)
def test_published_speeds_hold_for_requests_as_long_as_the_published(
    prompt: int, completion: int, basis: str | None
) -> None:
    assert PAGE_TOKENS == 1680 * 2240 // 28**2 + 64
    assert cost(SMALL, work(10, 1, prompt, completion)).basis == basis


def test_published_models_are_in_the_table() -> None:
    assert PUBLISHED.keys() <= catalog().models.keys()
    assert all(one.photo >= one.page > 0 for one in PUBLISHED.values())


def test_a_model_without_gpus_costs_no_gpu_hours() -> None:
    with pytest.raises(UsageError, match="no GPU"):
        cost(SMALL.model_copy(update={"hardware": "cpu"}), work(1, 1, 1, 1), 10)


def test_a_speed_from_wall_times_by_hand() -> None:
    """100 requests of 8 s each, 16 in flight, take 50 s; 90,000 tokens in 50 s are 1,800 a second."""
    assert tokens_per_second(Work(100, 80_000, 10_000), 800, 16) == 1800
    with pytest.raises(UsageError, match="no answer"):
        tokens_per_second(Work(0, 0, 0), 0, 16)


@given(counts, st.integers(1, 9), sizes, sizes, speeds, st.integers(2, 9))
def test_work_is_linear_in_questions(
    questions: int, settings: int, prompt: float, completion: float, speed: float, times: int
) -> None:
    def hours(n: int) -> float:
        found = cost(SMALL, work(n, settings, prompt, completion), speed, startup_s=0)
        assert found.hours is not None
        return found.hours[0]

    assert hours(questions * times) == pytest.approx(times * hours(questions))
    assert work(questions, settings, prompt, completion) == work(settings, questions, prompt, completion)


@given(counts, sizes, sizes, speeds, st.floats(0, 7200), st.floats(0, 100))
def test_the_start_is_paid_once_and_everything_in_proportion(
    questions: int, prompt: float, completion: float, speed: float, startup_s: float, price: float
) -> None:
    for one in (SMALL, MIDDLE, LARGE):
        asked = work(questions, 1, prompt, completion)
        found = cost(one, asked, speed, startup_s=startup_s, price_per_gpu_hour=price)
        without = cost(one, asked, speed, startup_s=0)
        assert found.hours and found.gpu_hours and found.money and without.hours
        gpus = hardware(one.hardware).gpus
        assert found.hours[0] - without.hours[0] == pytest.approx(startup_s / 3600, abs=1e-6 * found.hours[0])
        assert found.gpu_hours[1] == pytest.approx(gpus * found.hours[1])
        assert found.money[0] == pytest.approx(price * found.gpu_hours[0])
        faster = cost(one, asked, 2 * speed, startup_s=0)
        assert faster.hours and faster.hours[0] == pytest.approx(without.hours[0] / 2)


app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
app.command("cost")(cost_command)
app.callback()(lambda: None)
WORK = ["--questions", "1000", "--settings", "5", "--prompt-tokens", "1000", "--completion-tokens", "80"]


def told(*arguments: str) -> dict[str, object]:
    done = CliRunner().invoke(app, ["cost", *arguments, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_the_command_shows_every_model_that_answers() -> None:
    found = told(*WORK)
    names = [one["model"] for one in found["models"]]
    assert names == [name for name, one in catalog().models.items() if one.task == "generate"]
    assert {one["basis"] for one in found["models"]} == {"published", None}
    assert any("published, vLLM 0.7.2, lower bounds" in line for line in found["assumptions"])
    table = CliRunner().invoke(app, ["cost", *WORK, "--price-per-gpu-hour", "2"]).stdout
    assert "measure it" in table and "qwen2-5-vl-72b-fp8 " in table
    assert max(len(line) for line in table.splitlines()) <= 80


def test_the_command_takes_a_measured_speed() -> None:
    arguments = ["--tokens-per-second", "qwen3-vl-32b=3000", "--startup-minutes", "15", "--price-per-gpu-hour", "2"]
    (found,) = told("qwen3-vl-32b", *WORK, *arguments)["models"]
    assert found["gpu_hours"] == [1.5, 1.5]
    assert found["money"] == [3.0, 3.0]


def test_a_run_gives_the_work_and_its_model_s_speed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    write_run(run)
    plan, usage = read_usage(run)
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        f"models:\n  mine:\n    uri: hf://me/mine\n    task: generate\n    served_name: {plan.model.name}\n"
        "    hardware: h100x1\n    weights_gib: 1\n    tensor_parallel: 1\n"
        "    max_model_len: 4096\n    image_tokens: 64\n"
    )
    assert tuple(one.setting for one in usage) == plan.settings
    found = told(str(mine), "--run", str(run), "--in-flight", "32", "--startup-minutes", "0")
    assert found["work"]["requests"] == plan.n_questions * len(plan.settings)
    # By Little's law the run itself took the sum of its wall times, 32 at once; errors are taken to cost as much.
    each = sum(one.prompt_tokens + one.completion_tokens for one in usage)
    scaled = found["work"]["prompt_tokens"] + found["work"]["completion_tokens"]
    seconds = sum(one.seconds for one in usage) / 32 * scaled / each
    assert found["models"][0]["hours"][0] == pytest.approx(seconds / 3600)
    more = told(str(mine), "--run", str(run), "--questions", str(10 * plan.n_questions))
    assert more["work"]["prompt_tokens"] == pytest.approx(10 * found["work"]["prompt_tokens"])
    assert more["models"][0]["hours"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Name a --run, or all of"),
        ([*WORK[:-2]], "Name a --run, or all of"),
        ([*WORK, "--in-flight", "3"], "it is about a run"),
        (["--run", "nowhere", "--settings", "3"], "says its settings and tokens itself"),
        ([*WORK, "--tokens-per-second", "qwen3-vl-8b=fast"], "not MODEL=NUMBER"),
        ([*WORK, "--tokens-per-second", "qwen3-vl-8b=-1"], "not MODEL=NUMBER"),
        ([*WORK, "--tokens-per-second", "qwen3-vl-8b=nan"], "not MODEL=NUMBER"),
        ([*WORK, "--tokens-per-second", "gpt=3"], "none of the models"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        CliRunner().invoke(app, ["cost", *arguments], catch_exceptions=False)


def test_the_speed_of_another_model_s_run_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    with pytest.raises(UsageError, match="is none of these"):
        CliRunner().invoke(app, ["cost", "--run", str(tmp_path / "run"), "--in-flight", "8"], catch_exceptions=False)


def test_the_arithmetic_loads_nothing_heavy() -> None:
    code = "import sys, m4rag.deploy.cost; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not {"pyarrow", "kubernetes", "kfp", "numpy", "rich"} & set(done.stdout.split())
