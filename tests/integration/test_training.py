"""The reference models' training code: it runs, resumes, exports what transformers loads, teaches only replies."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from m4rag import models
from m4rag.progress import silent
from m4rag.training import nano, pictures, retriever, tasks, tower, trainer, vlm
from m4rag.training.tokenizer import token, tokenizer

FEW = trainer.Schedule(steps=3, batch=4, rate=1e-3, warmup=1, save=2)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("training")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pictures of each sprite and a tower of three steps: the code is tested here, not what is learned."""
    for module in (pictures, retriever, vlm):
        monkeypatch.setattr(module, "VARIANTS", 2)
    quick = lambda work, *, seed, progress: tower.tower(work, seed=seed, progress=progress, schedule=FEW)  # noqa: E731
    monkeypatch.setattr(vlm, "tower", quick)
    monkeypatch.setattr(retriever, "tower", quick)


def weights(folder: Path) -> dict[str, np.ndarray]:
    from safetensors.torch import load_file

    return {name: value.float().numpy() for name, value in load_file(str(folder / "model.safetensors")).items()}


def test_a_vlm_is_trained_resumed_and_loaded_again(work: Path, tmp_path: Path) -> None:
    vlm.train_vlm(models.SMALL_VLM, tmp_path / "once", work / "a", seed=0, progress=silent, schedule=FEW)
    first = weights(tmp_path / "once")
    log = vlm.train_vlm(models.SMALL_VLM, tmp_path / "again", work / "a", seed=0, progress=silent, schedule=FEW)
    assert log.history[-1]["step"] == FEW.steps  # went on from the last checkpoint
    second = weights(tmp_path / "again")
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert any(name.startswith("vision_tower.vision_model.") for name in first)
    loaded = nano.load(tmp_path / "again")
    expected = loaded.model.language_model.embed_tokens.weight.detach().numpy()
    assert np.array_equal(first["language_model.model.embed_tokens.weight"], expected)


def test_a_retriever_and_its_sister_are_trained_and_loaded_again(work: Path, tmp_path: Path) -> None:
    import torch

    retriever.train_retriever(models.EMBED, tmp_path / models.EMBED, work / "b", seed=0, progress=silent, schedule=FEW)
    retriever.train_retriever(
        models.COLEMBED, tmp_path / models.COLEMBED, work / "b", seed=0, progress=silent, schedule=FEW
    )
    retriever.train_retriever(models.EMBED, tmp_path / "again", work / "b", seed=0, progress=silent, schedule=FEW)
    one, other = weights(tmp_path / models.EMBED), weights(tmp_path / models.COLEMBED)
    assert one.keys() == other.keys()
    resumed = weights(tmp_path / "again")
    assert all(np.array_equal(one[name], resumed[name]) for name in one)
    changed = "language_model.model.layers.0.mlp.up_proj.weight"
    assert not np.array_equal(one[changed], other[changed])
    assert all(np.array_equal(one[name], other[name]) for name in one if name.startswith("vision_tower"))
    loaded = nano.load(tmp_path / models.COLEMBED)
    with torch.no_grad():
        hidden = loaded.model(input_ids=torch.tensor([retriever.encoded("ሰኞ", image=False)])).last_hidden_state
    assert hidden.shape[-1] == nano.SIZES[models.COLEMBED].hidden
    assert torch.isfinite(hidden).all()


def test_pages_of_one_thing_never_count_against_each_other() -> None:
    import torch

    vectors = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]), dim=-1)
    loss = retriever._in_batch(lambda features: features, multi_vector=False)
    side = {"sentence_embedding": vectors}
    far = {"sentence_embedding": -vectors}
    apart = float(loss([side, side, far], torch.tensor([0, 1, 2])))
    parallel = float(loss([side, side, far], torch.tensor([0, 0, 2])))
    assert parallel < apart / 10


def test_only_replies_are_taught_and_every_script_survives_the_tokenizer() -> None:
    for number in range(60):
        example = tasks.example(f"round trip:{number}")
        ids, labels = vlm.encoded(example.turns)
        taught = [token_id for token_id in labels if token_id != vlm.IGNORED]
        replies = "".join(f"{reply}{nano.EOS}" for _, reply in example.turns)
        assert tokenizer().decode(taught, skip_special_tokens=False) == replies
        assert ids.count(token(nano.IMAGE_TOKEN)) == nano.IMAGE_TOKENS
        for prompt, reply in example.turns:
            assert tokenizer().decode(tokenizer().encode(prompt).ids) == prompt
            if example.kind != "caption":
                assert 1 <= json.loads(reply)["answer"] <= 5


def test_the_command_trains_exports_and_records_once(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient
    from typer.testing import CliRunner

    from m4rag.cli import app

    monkeypatch.setenv("M4RAG_HOME", str(tmp_path))
    monkeypatch.setattr(vlm, "SCHEDULES", {models.SMALL_VLM: FEW})
    monkeypatch.setattr(vlm, "WORDS", {models.SMALL_VLM: FEW})
    (work / "a").mkdir(exist_ok=True)
    (tmp_path / "training").symlink_to(work / "a")  # pictures and tower are drawn and trained there
    line = ["train", "vlm", "--recipe", "nano", "--model", models.SMALL_VLM, "--json"]
    first, again = (json.loads(CliRunner().invoke(app, line).stdout) for _ in range(2))
    assert first == again
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("m4rag-training").experiment_id])
    assert run.info.run_id == first[0]["mlflow_run"]
    assert run.data.params["steps"] == str(FEW.steps)
    assert run.data.tags["m4rag.weights_digest"] == first[0]["sha256"]
    assert {"config.json", "model.safetensors"} <= {file.path for file in client.list_artifacts(run.info.run_id)}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--recipe", "large"], "unknown recipe 'large'"), (["--model", "gpt"], "unknown model 'gpt'")],
)
def test_what_cannot_be_trained_is_refused_at_once(arguments: list[str], said: str) -> None:
    from typer.testing import CliRunner

    from m4rag.cli import app

    assert said in str(CliRunner().invoke(app, ["train", "vlm", *arguments]).exception)
