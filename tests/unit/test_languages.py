"""Languages and varieties: the published counts, every name a dataset uses, and the code `nan`."""

from __future__ import annotations

import subprocess
import sys

import pytest

from m4rag.errors import BadData, UsageError
from m4rag.languages import (
    CVQA_PAIRS,
    LANGUAGES,
    SCRIPTS,
    SHARED_PAIRS,
    VARIETIES,
    WORLDCUISINES_VARIETIES,
    lookup,
)


def test_the_published_counts_are_reached() -> None:
    worldcuisines = {VARIETIES[code].language.code for code in WORLDCUISINES_VARIETIES}
    cvqa = {lookup(pair).language.code for pair in CVQA_PAIRS}
    assert (len(WORLDCUISINES_VARIETIES), len(worldcuisines)) == (30, 24)
    assert (len(CVQA_PAIRS), len(cvqa), len(SHARED_PAIRS)) == (39, 31, 13)
    assert len(LANGUAGES) == len(worldcuisines | cvqa) == 42
    assert len(VARIETIES) == 56


def test_shared_pairs_are_one_pair_for_each_language_that_both_benchmarks_have() -> None:
    worldcuisines = {VARIETIES[code].language.code for code in WORLDCUISINES_VARIETIES}
    both = worldcuisines & {lookup(pair).language.code for pair in CVQA_PAIRS}
    assert {lookup(pair).language.code for pair in SHARED_PAIRS} == both


def test_codes_agree_with_the_language_registry() -> None:
    langcodes = pytest.importorskip("langcodes")
    for language in LANGUAGES.values():
        tag = langcodes.Language.get(language.code)
        assert tag.is_valid(), language
        assert tag.to_alpha3() == language.iso639_3, language
        # CLDR has no separate script for written Hokkien of Medan: WorldCuisines writes it in simplified Han.
        assert tag.maximize().script == language.script, language
        assert (tag.maximize().script == "Arab") == (language.direction == "rtl"), language


@pytest.mark.parametrize(
    ("written", "code", "language"),
    [
        ("jv_krama", "jv_krama", "jv"),
        ("JV-Krama", "jv_krama", "jv"),
        ("spa-MX", "spa-MX", "es"),
        ("spa-ES", "es", "es"),
        ("zho-SG", "zho-SG", "zh"),
        ("zh-CN", "zh_cn", "zh"),
        ("zh", "zh", "zh"),
        ("cmn", "zh", "zh"),
        ("zh-yue", "yue", "yue"),
        ("zh-min-nan", "nan", "nan"),
        ("jpn", "ja", "ja"),
        ("jpn-JP", "ja", "ja"),
        ("am", "am", "am"),
        ("amh", "am", "am"),
        ("amh-ET", "amh-ET", "am"),
        ("Amharic", "am", "am"),
        ("yo", "yo", "yo"),
        ("si", "si", "si"),
        ("sin-LK", "si", "si"),
        ("fil", "tl", "tl"),
        ("tgl", "tl", "tl"),
        ("Egyptian_Arabic", "arz", "arz"),
        ("Norwegian", "no", "no"),
        ("min", "min", "min"),
    ],
)
def test_every_name_that_a_dataset_uses_is_understood(written: str, code: str, language: str) -> None:
    variety = lookup(written)
    assert (variety.code, variety.language.code) == (code, language)


@pytest.mark.parametrize("code", ["am", "te", "yo", "jv", "si", "sw", "ta", "ko", "ja", "id", "ru", "zh"])
def test_a_bare_language_code_is_its_own_variety(code: str) -> None:
    variety = lookup(code)
    assert (variety.code, variety.region, variety.register) == (code, "", "")


def test_looking_up_the_code_that_lookup_returned_changes_nothing() -> None:
    for variety in [*VARIETIES.values(), *map(lookup, LANGUAGES)]:
        assert lookup(variety.code) == variety
        assert lookup(variety.language.code).language == variety.language


def test_nan_is_hokkien_and_a_missing_value_is_not() -> None:
    assert lookup("nan").language.name == "Hokkien"
    assert lookup("nan_spoken").script == "Latn"
    for missing in (float("nan"), None):
        with pytest.raises(BadData, match="keep_default_na=False"):
            lookup(missing)


def test_an_unknown_code_is_refused_with_the_nearest_ones() -> None:
    with pytest.raises(UsageError, match=r"unknown language code 'jv_kramma'\. Did you mean jv_krama"):
        lookup("jv_kramma")
    with pytest.raises(UsageError, match="unknown language code ''"):
        lookup("")


def test_classes_and_scripts_are_whole_and_ambiguous_classes_say_so() -> None:
    assert {language.joshi for language in LANGUAGES.values()} == {0, 1, 2, 3, 4, 5}
    assert {variety.script for variety in VARIETIES.values()} <= SCRIPTS.keys()
    noted = {language.code for language in LANGUAGES.values() if ": " in language.joshi_source}
    assert noted == {"arz", "nan", "no", "si"}
    assert lookup("am").script_name == "Ethiopic"
    assert lookup("ur").direction == "rtl"


def test_names_tell_varieties_of_one_language_apart() -> None:
    names = [variety.name for variety in VARIETIES.values()]
    assert len(set(names)) == len(names)


def test_reading_the_table_loads_nothing_heavy() -> None:
    code = "import sys, m4rag.languages; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"langcodes", "numpy", "pyarrow", "pydantic"} & set(loaded)
