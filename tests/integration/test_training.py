"""The reference models' training code: it runs, resumes, exports what transformers loads, teaches only replies."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

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
    for module in (pictures, retriever, tower, vlm):
        monkeypatch.setattr(module, "VARIANTS", 2)
    quick = lambda work, *, seed, progress: tower.tower(work, seed=seed, progress=progress, schedule=FEW)  # noqa: E731
    monkeypatch.setattr(vlm, "tower", quick)
    monkeypatch.setattr(retriever, "tower", quick)


def weights(folder: Path) -> dict[str, np.ndarray]:
    from safetensors.torch import load_file

    return {name: value.float().numpy() for name, value in load_file(str(folder / "model.safetensors")).items()}


def test_a_vlm_is_trained_resumed_and_loaded_again(work: Path, tmp_path: Path) -> None:
    vlm.train_vlm(nano.SMALL_VLM, tmp_path / "once", work / "a", seed=0, progress=silent, schedule=FEW)
    first = weights(tmp_path / "once")
    log = vlm.train_vlm(nano.SMALL_VLM, tmp_path / "again", work / "a", seed=0, progress=silent, schedule=FEW)
    assert log[-1]["step"] == FEW.steps  # went on from the last checkpoint
    second = weights(tmp_path / "again")
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert any(name.startswith("vision_tower.vision_model.") for name in first)
    loaded = nano.load(tmp_path / "again")
    expected = loaded.model.language_model.embed_tokens.weight.detach().numpy()
    assert np.array_equal(first["language_model.model.embed_tokens.weight"], expected)


def test_a_retriever_and_its_sister_are_trained_and_loaded_again(work: Path, tmp_path: Path) -> None:
    import torch

    retriever.train_retriever(nano.EMBED, tmp_path / nano.EMBED, work / "b", seed=0, progress=silent, schedule=FEW)
    retriever.train_retriever(
        nano.COLEMBED, tmp_path / nano.COLEMBED, work / "b", seed=0, progress=silent, schedule=FEW
    )
    retriever.train_retriever(nano.EMBED, tmp_path / "again", work / "b", seed=0, progress=silent, schedule=FEW)
    one, other = weights(tmp_path / nano.EMBED), weights(tmp_path / nano.COLEMBED)
    assert one.keys() == other.keys()
    resumed = weights(tmp_path / "again")
    assert all(np.array_equal(one[name], resumed[name]) for name in one)
    changed = "language_model.model.layers.0.mlp.up_proj.weight"
    assert not np.array_equal(one[changed], other[changed])
    assert all(np.array_equal(one[name], other[name]) for name in one if name.startswith("vision_tower"))
    loaded = nano.load(tmp_path / nano.COLEMBED)
    with torch.no_grad():
        hidden = loaded.model(input_ids=torch.tensor([retriever.encoded("ሰኞ", image=False)])).last_hidden_state
    assert hidden.shape[-1] == nano.SIZES[nano.COLEMBED].hidden
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
