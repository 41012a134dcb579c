"""The 42 languages and 56 varieties of M4-RAG: code, script, direction, resource class, and every name they go by.

Where the counts come from: WorldCuisines has 24 languages in 30 varieties, CVQA has 39 language-country pairs in 31
languages. 13 of the pairs are a language that WorldCuisines has as well, so 24 + 18 = 42 and 30 + 39 - 13 = 56.

Resource classes are those of Joshi et al. 2020, "The State and Fate of Linguistic Diversity and Inclusion in the NLP
World" (file `lang2tax.txt`): 0 is "left behind", 5 is "winner"; M4-RAG calls 0-2 low-resource. Where that file lists a
language twice or not by this name, `Language.joshi_source` says what was chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache

from m4rag.errors import BadData, UsageError

SCRIPTS = {
    "Arab": "Arabic",
    "Beng": "Bengali",
    "Cyrl": "Cyrillic",
    "Deva": "Devanagari",
    "Ethi": "Ethiopic",
    "Hans": "Han (simplified)",
    "Hant": "Han (traditional)",
    "Jpan": "Japanese",
    "Kore": "Korean",
    "Latn": "Latin",
    "Sinh": "Sinhala",
    "Taml": "Tamil",
    "Telu": "Telugu",
    "Thai": "Thai",
}
"""ISO 15924 code to the name that tables show."""

RIGHT_TO_LEFT = frozenset({"Arab"})
LOW_RESOURCE = frozenset({0, 1, 2})
"""Joshi classes that M4-RAG calls low-resource."""


@dataclass(frozen=True, slots=True)
class Language:
    """One of the 42 languages.

    Attributes:
        code: Short code that tables and breakdowns use: ISO 639-1 where there is one, else ISO 639-3.
        iso639_3: ISO 639-3 (or the macrolanguage's) code.
        name: English name.
        script: ISO 15924 code of the script the benchmarks write it in.
        direction: `ltr` or `rtl`.
        joshi: Resource class, 0 (least) to 5 (most).
        joshi_source: Where the class comes from and what was ambiguous.
        cvqa_name: Language name in CVQA's `Subset` column, None if CVQA does not have it.
        wiki: Subdomain of its Wikipedia.
    """

    code: str
    iso639_3: str
    name: str
    script: str
    direction: str
    joshi: int
    joshi_source: str
    cvqa_name: str | None
    wiki: str

    @property
    def low_resource(self) -> bool:
        """Whether M4-RAG counts it among the low-resource languages."""
        return self.joshi in LOW_RESOURCE


@dataclass(frozen=True, slots=True)
class Variety:
    """A language as one benchmark has it: in a register, or as spoken in one country.

    Attributes:
        code: What `Question.language` holds: a WorldCuisines code (`jv_krama`), a CVQA pair (`spa-MX`), or the bare
            language code where a dataset says no more than the language.
        language: The language.
        script: ISO 15924 code; differs from the language's for Hokkien, whose spoken form is romanised.
        region: ISO 3166 code of the country, "" if the variety is not tied to one.
        register: `formal`, `casual`, `krama`, ..., "" if none is stated.
    """

    code: str
    language: Language
    script: str
    region: str = ""
    register: str = ""

    @property
    def name(self) -> str:
        """English name for tables: `Javanese (krama)`, `Spanish (MX)`."""
        detail = self.register or self.region
        return f"{self.language.name} ({detail})" if detail else self.language.name

    @property
    def script_name(self) -> str:
        """English name of the script."""
        return SCRIPTS[self.script]

    @property
    def direction(self) -> str:
        """`ltr` or `rtl`."""
        return self.language.direction


_LANG2TAX = "lang2tax.txt (Joshi et al. 2020)"

# code, ISO 639-3, name, script, Joshi class, CVQA name, wiki if it is not the code, note on an ambiguous class
_ROWS: tuple[tuple[str, str, str, str, int, str | None, str | None, str | None], ...] = (
    ("am", "amh", "Amharic", "Ethi", 2, "Amharic", None, None),
    ("ar", "ara", "Arabic", "Arab", 5, None, None, None),
    ("arz", "arz", "Egyptian Arabic", "Arab", 3, "Egyptian_Arabic", None, "M4-RAG's own assignment is not published"),
    ("az", "aze", "Azerbaijani", "Latn", 1, None, None, None),
    ("bn", "ben", "Bengali", "Beng", 3, "Bengali", None, None),
    ("br", "bre", "Breton", "Latn", 1, "Breton", None, None),
    ("bg", "bul", "Bulgarian", "Cyrl", 3, "Bulgarian", None, None),
    ("yue", "yue", "Cantonese", "Hant", 1, None, "zh-yue", None),
    ("zh", "zho", "Chinese", "Hans", 5, "Chinese", None, None),
    ("cs", "ces", "Czech", "Latn", 4, None, None, None),
    ("en", "eng", "English", "Latn", 5, None, None, None),
    ("tl", "fil", "Filipino", "Latn", 3, "Filipino", None, None),
    ("fr", "fra", "French", "Latn", 5, None, None, None),
    ("hi", "hin", "Hindi", "Deva", 4, "Hindi", None, None),
    ("nan", "nan", "Hokkien", "Hans", 0, None, "zh-min-nan", "listed as 'hokkien' = 0 and as 'min nan' = 1; 0 is used"),
    ("ig", "ibo", "Igbo", "Latn", 1, "Igbo", None, None),
    ("id", "ind", "Indonesian", "Latn", 3, "Indonesian", None, None),
    ("ga", "gle", "Irish", "Latn", 2, "Irish", None, None),
    ("it", "ita", "Italian", "Latn", 4, None, None, None),
    ("ja", "jpn", "Japanese", "Jpan", 5, "Japanese", None, None),
    ("jv", "jav", "Javanese", "Latn", 1, "Javanese", None, None),
    ("rw", "kin", "Kinyarwanda", "Latn", 1, "Kinyarwanda", None, None),
    ("ko", "kor", "Korean", "Kore", 4, "Korean", None, None),
    ("ms", "msa", "Malay", "Latn", 3, "Malay", None, None),
    ("mr", "mar", "Marathi", "Deva", 2, "Marathi", None, None),
    ("min", "min", "Minangkabau", "Latn", 1, "Minangkabau", None, None),
    ("mn", "mon", "Mongolian", "Cyrl", 1, "Mongolian", None, None),
    ("no", "nor", "Norwegian", "Latn", 1, "Norwegian", None, "not listed as such; Bokmål and Nynorsk are both 1"),
    ("om", "orm", "Oromo", "Latn", 1, "Oromo", None, None),
    ("pt", "por", "Portuguese", "Latn", 4, "Portuguese", None, None),
    ("ro", "ron", "Romanian", "Latn", 3, "Romanian", None, None),
    ("ru", "rus", "Russian", "Cyrl", 4, "Russian", None, None),
    ("sc", "srd", "Sardinian", "Latn", 1, None, None, None),
    ("si", "sin", "Sinhala", "Sinh", 0, "Sinhala", None, "listed as 'sinhala' = 0 and as 'sinhalese' = 1; 0 is used"),
    ("es", "spa", "Spanish", "Latn", 5, "Spanish", None, None),
    ("su", "sun", "Sundanese", "Latn", 1, "Sundanese", None, None),
    ("sw", "swa", "Swahili", "Latn", 2, "Swahili", None, None),
    ("ta", "tam", "Tamil", "Taml", 3, "Tamil", None, None),
    ("te", "tel", "Telugu", "Telu", 1, "Telugu", None, None),
    ("th", "tha", "Thai", "Thai", 3, None, None, None),
    ("ur", "urd", "Urdu", "Arab", 3, "Urdu", None, None),
    ("yo", "yor", "Yoruba", "Latn", 2, None, None, None),
)

LANGUAGES: dict[str, Language] = {
    code: Language(
        code=code,
        iso639_3=iso639_3,
        name=name,
        script=script,
        direction="rtl" if script in RIGHT_TO_LEFT else "ltr",
        joshi=joshi,
        joshi_source=_LANG2TAX if note is None else f"{_LANG2TAX}: {note}",
        cvqa_name=cvqa_name,
        wiki=wiki or code,
    )
    for code, iso639_3, name, script, joshi, cvqa_name, wiki, note in _ROWS
}
"""Code to language: the 42."""

# WorldCuisines code: language, script if it is not the language's, region, register.
_WORLDCUISINES: dict[str, tuple[str, str | None, str, str]] = {
    "ar": ("ar", None, "", ""),
    "az": ("az", None, "", ""),
    "bn": ("bn", None, "", ""),
    "cs": ("cs", None, "", ""),
    "en": ("en", None, "", ""),
    "es": ("es", None, "", ""),
    "fr": ("fr", None, "", ""),
    "hi": ("hi", None, "", ""),
    "id_casual": ("id", None, "", "casual"),
    "id_formal": ("id", None, "", "formal"),
    "it": ("it", None, "", ""),
    "ja_casual": ("ja", None, "", "casual"),
    "ja_formal": ("ja", None, "", "formal"),
    "jv_krama": ("jv", None, "", "krama"),
    "jv_ngoko": ("jv", None, "", "ngoko"),
    "ko_casual": ("ko", None, "", "casual"),
    "ko_formal": ("ko", None, "", "formal"),
    "mr": ("mr", None, "", ""),
    "nan": ("nan", None, "ID", "written"),
    "nan_spoken": ("nan", "Latn", "ID", "spoken"),
    "ru_casual": ("ru", None, "", "casual"),
    "ru_formal": ("ru", None, "", "formal"),
    "sc": ("sc", None, "", ""),
    "si_formal_spoken": ("si", None, "", "formal spoken"),
    "su_loma": ("su", None, "", "loma"),
    "th": ("th", None, "", ""),
    "tl": ("tl", None, "", ""),
    "yo": ("yo", None, "", ""),
    "yue": ("yue", None, "", ""),
    "zh_cn": ("zh", None, "CN", ""),
}

# fmt: off
CVQA_PAIRS = (
    "amh-ET", "arz-EG", "ben-IN", "bre-FR", "bul-BG", "fil-PH", "gle-IE", "hin-IN", "ibo-NG", "ind-ID",
    "jav-ID", "jpn-JP", "kin-RW", "kor-KR", "mar-IN", "min-ID", "mon-MN", "msa-MY", "nor-NO", "orm-ET",
    "por-BR", "ron-RO", "rus-RU", "sin-LK", "spa-AR", "spa-CL", "spa-CO", "spa-EC", "spa-ES", "spa-MX",
    "spa-UY", "sun-ID", "swa-KE", "tam-IN", "tel-IN", "urd-IN", "urd-PK", "zho-CN", "zho-SG",
)
# fmt: on
"""CVQA's 39 language-country pairs as `<ISO 639-3>-<ISO 3166>`."""

COUNTRIES = {
    "AR": "Argentina", "BG": "Bulgaria", "BR": "Brazil", "CL": "Chile", "CN": "China", "CO": "Colombia",
    "EC": "Ecuador", "EG": "Egypt", "ES": "Spain", "ET": "Ethiopia", "FR": "France", "ID": "Indonesia",
    "IE": "Ireland", "IN": "India", "JP": "Japan", "KE": "Kenya", "KR": "South Korea", "LK": "Sri Lanka",
    "MN": "Mongolia", "MX": "Mexico", "MY": "Malaysia", "NG": "Nigeria", "NO": "Norway", "PH": "Philippines",
    "PK": "Pakistan", "RO": "Romania", "RU": "Russia", "RW": "Rwanda", "SG": "Singapore", "UY": "Uruguay",
}  # fmt: skip
"""ISO 3166 code to English name of every country in CVQA."""

SHARED_PAIRS: dict[str, str] = {
    "ben-IN": "bn",
    "fil-PH": "tl",
    "hin-IN": "hi",
    "ind-ID": "id",
    "jav-ID": "jv",
    "jpn-JP": "ja",
    "kor-KR": "ko",
    "mar-IN": "mr",
    "rus-RU": "ru",
    "sin-LK": "si",
    "spa-ES": "es",
    "sun-ID": "su",
    "zho-CN": "zh_cn",
}
"""The 13 pairs whose language WorldCuisines has too, and what `lookup` returns for them.

Where WorldCuisines has registers, CVQA does not say which one it is in, so the pair is the bare language.
"""


def _varieties() -> dict[str, Variety]:
    found = {
        code: Variety(code, LANGUAGES[language], script or LANGUAGES[language].script, region, register)
        for code, (language, script, region, register) in _WORLDCUISINES.items()
    }
    by_iso = {language.iso639_3: language for language in LANGUAGES.values()}
    for pair in CVQA_PAIRS:
        if pair not in SHARED_PAIRS:
            iso639_3, region = pair.split("-")
            language = by_iso[iso639_3]
            found[pair] = Variety(pair, language, language.script, region)
    return found


VARIETIES: dict[str, Variety] = _varieties()
"""Code to variety: the 56."""

WORLDCUISINES_VARIETIES = tuple(_WORLDCUISINES)
"""The 30 codes of WorldCuisines."""

# Further codes that real data uses for one of the languages.
_OTHER_CODES = {"tgl": "tl", "cmn": "zh", "nob": "no", "nno": "no", "nb": "no", "nn": "no", "msa": "ms", "zsm": "ms"}


def _normal(code: str) -> str:
    return code.strip().casefold().replace("-", "_").replace(" ", "_")


def _index() -> dict[str, Variety]:
    bare = {code: Variety(code, language, language.script) for code, language in LANGUAGES.items()}
    bare |= {code: VARIETIES[code] for code in bare.keys() & VARIETIES.keys()}
    index: dict[str, Variety] = {}
    for code, language in LANGUAGES.items():
        for name in (language.name, language.cvqa_name, language.wiki, language.iso639_3, code):
            if name is not None:
                index[_normal(name)] = bare[code]
    index |= {name: bare[code] for name, code in _OTHER_CODES.items()}
    index |= {_normal(code): variety for code, variety in VARIETIES.items()}
    index |= {_normal(pair): index[_normal(code)] for pair, code in SHARED_PAIRS.items()}
    return index


_INDEX = _index()


def _pairs_by_name() -> dict[tuple[str, str], str]:
    names = {language.iso639_3: language.cvqa_name for language in LANGUAGES.values() if language.cvqa_name}
    split = {pair: pair.split("-") for pair in CVQA_PAIRS}
    return {(_normal(names[iso]), _normal(COUNTRIES[region])): pair for pair, (iso, region) in split.items()}


_PAIRS_BY_NAME = _pairs_by_name()


def cvqa_pair(language: str, country: str) -> str:
    """The code of one of CVQA's pairs, which is a code that `lookup` knows.

    Args:
        language: Language as CVQA names it (`Egyptian_Arabic`); case, spaces and `_` do not matter.
        country: Country as CVQA names it (`Sri_Lanka`, `South Korea`), by the same rule.

    Returns:
        `<ISO 639-3>-<ISO 3166>`, one of `CVQA_PAIRS`.

    Raises:
        UsageError: CVQA has no such pair; the remedy names the countries of that language, or the nearest languages.
    """
    pair = _PAIRS_BY_NAME.get((_normal(language), _normal(country)))
    if pair is not None:
        return pair
    countries = [COUNTRIES[code[-2:]] for (name, _), code in _PAIRS_BY_NAME.items() if name == _normal(language)]
    if countries:
        remedy = f"CVQA has {language} of {', '.join(countries)}."
    else:
        near = get_close_matches(_normal(language), sorted({name for name, _ in _PAIRS_BY_NAME}), n=3, cutoff=0.5)
        remedy = f"Did you mean {' or '.join(near)}?" if near else "Its pairs are `m4rag.languages.CVQA_PAIRS`."
    raise UsageError(f"unknown CVQA pair of language {language!r} and country {country!r}", remedy=remedy)


def lookup(code: str | float | None) -> Variety:
    """The variety that a code or name stands for, whatever the dataset calls it.

    Accepts the 56 variety codes, all 39 CVQA pairs, ISO 639-1 and 639-3 codes, Wikipedia subdomains, English and CVQA
    language names; case, `-` and `_` do not matter. A bare language code that is not itself one of the 56 (`ja`, `am`)
    gives a variety of that code with neither region nor register.

    Args:
        code: The code. Only strings are right; None and NaN are taken to explain what went wrong.

    Raises:
        UsageError: Nothing goes by this code; the remedy names the nearest ones.
        BadData: The code is missing: most often pandas read the language code `nan` as a missing value.
    """
    if not isinstance(code, str):
        raise BadData(
            f"the language code is missing ({code!r})",
            remedy="The code of Hokkien is the string 'nan', which pandas and spreadsheets read as a missing value: "
            "read the file with keep_default_na=False, or from Parquet or JSON.",
        )
    return _lookup(code)


@lru_cache(maxsize=1024)
def _lookup(code: str) -> Variety:
    found = _INDEX.get(_normal(code))
    if found is not None:
        return found
    near = get_close_matches(_normal(code), _INDEX, n=3, cutoff=0.5)
    codes = list(dict.fromkeys(_INDEX[name].code for name in near))
    hint = f"Did you mean {' or '.join(codes)}?" if codes else "Use an ISO 639 code or a WorldCuisines or CVQA code."
    raise UsageError(f"unknown language code {code!r}", remedy=hint)
