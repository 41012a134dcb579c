"""The peer's side of `benchmarks/chunking.py`; runs in the peer's own environment and prints MB/s as JSON.

Arguments: the file of articles; megabytes of it to cut.
"""

import json
import sys
import time
from pathlib import Path

from icu4py.breakers import WordBreaker
from langchain_text_splitters import RecursiveCharacterTextSplitter


def words(text: str) -> int:
    """Tokens by the rule of m4rag's portable tokenizer."""
    return sum(-(-len(word) // 8) for word in WordBreaker(text, "") if not word.isspace())


SPLITTERS = {
    "langchain, tokens": RecursiveCharacterTextSplitter(chunk_size=256, chunk_overlap=50, length_function=words),
    "langchain, characters": RecursiveCharacterTextSplitter(chunk_size=1000, chunk_overlap=200),
}


def main(path: str, megabytes: int) -> None:
    texts, size = [], 0
    with Path(path).open(encoding="utf-8") as stream:
        for line in stream:
            texts.append(json.loads(line)["text"])
            size += len(texts[-1].encode())
            if size > megabytes * 1_000_000:
                break
    rates = {}
    for name, splitter in SPLITTERS.items():
        start = time.process_time()
        for text in texts:
            splitter.split_text(text)
        rates[name] = size / 1e6 / (time.process_time() - start)
    json.dump(rates, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
