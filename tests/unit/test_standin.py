"""The stand-in checkpoint is the same on every machine and is never left half written."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from m4rag.manifests import file_digest
from m4rag.vlm.standin import write_standin

WEIGHTS = "model.safetensors"


def test_the_seed_determines_the_weights(tmp_path: Path) -> None:
    first, same, other = (write_standin(tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert file_digest(first / WEIGHTS) == file_digest(same / WEIGHTS) != file_digest(other / WEIGHTS)


def test_a_complete_folder_is_kept_and_another_is_replaced(tmp_path: Path) -> None:
    folder = write_standin(tmp_path / "model")
    written = (folder / WEIGHTS).stat().st_mtime_ns
    assert (write_standin(folder) / WEIGHTS).stat().st_mtime_ns == written
    before = file_digest(folder / WEIGHTS)
    assert file_digest(write_standin(folder, seed=1) / WEIGHTS) != before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_an_unfinished_folder_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{")
    assert (write_standin(folder) / WEIGHTS).exists()
    assert (folder / "config.json").read_text() != "{"


def test_the_tokenizer_reads_every_script_and_gives_it_back(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(write_standin(tmp_path / "model") / "tokenizer.json"))
    text = "Yorùbá · አማርኛ · తెలుగు · සිංහල · ꦗꦮ · 中文 · עברית · 🍲\n\t\x00"
    tokens = tokenizer.encode(text, add_special_tokens=False).ids
    assert len(tokens) == len(text.encode())
    assert tokenizer.decode(tokens) == text
    assert len(tokenizer.encode("<s><|user|>\n<image></s>", add_special_tokens=False).ids) == 5
