"""The peers' side of `benchmarks/eval_client.py`; runs in an environment of theirs and prints what it cost as JSON.

Arguments: `aiohttp`, `inspect_ai` or `lm_eval`; folder of the load; base URL; concurrency. Each peer is tuned as its
own documentation advises, and each first answers a few questions that are not measured.
"""

import asyncio
import base64
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

WARM_UP = 64
MAX_TOKENS = 128


def bare_aiohttp(rows, url, model, concurrency):
    """What a script of twenty lines does: images encoded once, answers kept in memory, nothing on the disk."""
    import aiohttp

    images = {}

    def body(row):
        if row["image"] not in images:
            encoded = base64.b64encode(Path(row["image"]).read_bytes()).decode()
            images[row["image"]] = f"data:image/jpeg;base64,{encoded}"
        content = [
            {"type": "image_url", "image_url": {"url": images[row["image"]]}},
            {"type": "text", "text": row["prompt"]},
        ]
        messages = [{"role": "user", "content": content}]
        return json.dumps({"model": model, "messages": messages, "max_tokens": MAX_TOKENS, "temperature": 0}).encode()

    async def main():
        answers, waiting = {}, iter(rows)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=concurrency)) as session:

            async def worker():
                for row in waiting:
                    headers = {"Content-Type": "application/json"}
                    async with session.post(f"{url}/chat/completions", data=body(row), headers=headers) as response:
                        answers[row["id"]] = (await response.json())["choices"][0]["message"]["content"]

            await asyncio.gather(*(worker() for _ in range(concurrency)))
        return len(answers)

    return asyncio.run(main())


def inspect(rows, url, model, concurrency):
    """`log_realtime=False` and images left out of the log, as its maintainers advise for speed."""
    from inspect_ai import Task, eval
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.model import ChatMessageUser, ContentImage, ContentText, GenerateConfig, get_model
    from inspect_ai.scorer import pattern
    from inspect_ai.solver import generate

    samples = [
        Sample(
            id=row["id"],
            input=[ChatMessageUser(content=[ContentImage(image=row["image"]), ContentText(text=row["prompt"])])],
            target=row["target"],
        )
        for row in rows
    ]
    config = GenerateConfig(max_connections=concurrency, max_tokens=MAX_TOKENS, temperature=0, seed=0)
    with tempfile.TemporaryDirectory() as logs:
        (log,) = eval(
            Task(dataset=MemoryDataset(samples), solver=generate(), scorer=pattern(r'"answer":\s*(\d)')),
            model=get_model(f"openai-api/load/{model}", base_url=url, api_key="none", config=config),
            max_samples=concurrency,
            max_connections=concurrency,
            log_realtime=False,
            log_images=False,
            log_dir=logs,
            display="none",
        )
    if log.status != "success":
        raise SystemExit(f"inspect_ai: {log.status} {log.error.message if log.error else ''}")
    return log.results.completed_samples


def lm_eval(rows, url, model, concurrency):
    import datasets
    from lm_eval import simple_evaluate
    from lm_eval.api.task import ConfigurableTask
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        datasets.disable_progress_bars()
        task = ConfigurableTask(
            config={
                "task": "load",
                "dataset_path": "json",
                "dataset_kwargs": {"data_files": {"test": str(path)}, "cache_dir": folder},
                "test_split": "test",
                "output_type": "generate_until",
                "doc_to_text": lambda row: row["prompt"],
                "doc_to_target": lambda row: row["target"],
                "doc_to_image": lambda row: [Image.open(row["image"])],
                "generation_kwargs": {"until": [], "max_gen_toks": MAX_TOKENS, "temperature": 0},
                "metric_list": [{"metric": "exact_match"}],
            }
        )
        found = simple_evaluate(
            model="local-chat-completions",
            model_args={
                "model": model,
                "base_url": f"{url}/chat/completions",
                "num_concurrent": concurrency,
                "max_images": 1,
                "timeout": 600,
            },
            tasks=[task],
            apply_chat_template=True,
            bootstrap_iters=0,
        )
    return len(found["samples"]["load"])


def main(name, load, url, concurrency):
    import urllib.request

    ask = {"aiohttp": bare_aiohttp, "inspect_ai": inspect, "lm_eval": lm_eval}[name]
    rows = [json.loads(line) for line in (Path(load) / "questions.jsonl").read_text().splitlines()]
    model = json.load(urllib.request.urlopen(f"{url}/models"))["data"][0]["id"]
    ask(rows[:WARM_UP], url, model, concurrency)
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    answered = ask(rows, url, model, concurrency)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    cost = {
        "questions": answered,
        "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "wall_s": wall,
        "rss_mb": after.ru_maxrss / 1024,
    }
    print(json.dumps(cost), flush=True)


if __name__ == "__main__":
    os.environ["OPENAI_API_KEY"] = "none"
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
