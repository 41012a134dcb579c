"""For each model: deployed -> answers -> judgements -> scores, policies, report, MLflow record -> removed."""

import os

from kfp import dsl

from components.benchmark.judge import judge as judge_step
from components.benchmark.plan_benchmark import plan_benchmark
from components.benchmark.run_benchmark import run_benchmark
from components.benchmark.score import score
from components.corpus.fingerprint import fingerprint
from components.corpus.ingest import ingest
from components.deploy.deploy_vlm import deploy_vlm
from components.deploy.remove_vlm import remove_vlm
from components.policy.fit_policy import fit_policy
from components.registry.register import register
from pipelines.policy import costly, effect, placed, pure, waiting

MODELS_AT_ONCE = int(os.environ.get("M4RAG_MODELS_AT_ONCE", "4"))
"""Models deployed at the same time, said when compiling: as many as there are GPUs for."""


@dsl.pipeline(name="m4rag-benchmark-model", description="Deploy a model, measure it, keep the record, remove it.")
def benchmark_model(
    documents: dsl.Input[dsl.Dataset],
    wanted: dict,
    node_selector: dict,
    tolerations: list,
    dataset: str,
    items: str,
    limit: int,
    settings: list,
    images: str,
    index: str,
    multimodal: dict,
    k: int,
    prompt_language: str,
    context_language: str,
    option_order: int,
    judge: str,
    judge_samples: int,
):
    """Measure one model. Whatever happens in between, it is removed in the end; see `benchmark` for the parameters."""
    run_id = dsl.PIPELINE_JOB_ID_PLACEHOLDER
    removal = waiting(remove_vlm(wanted=wanted, run=run_id), retries=3)
    with dsl.ExitHandler(removal, name="deployed"):
        deployed = waiting(deploy_vlm(wanted=wanted, run=run_id), retries=0)
        endpoint = placed(deployed, node_selector, tolerations).outputs["endpoint"]
        run = costly(
            run_benchmark(
                documents=documents,
                endpoint=endpoint,
                dataset=dataset,
                items=items,
                limit=limit,
                settings=settings,
                images=images,
                index=index,
                multimodal=multimodal,
                k=k,
                prompt_language=prompt_language,
                context_language=context_language,
                option_order=option_order,
            )
        )
        judged = costly(judge_step(run=run.outputs["run"], endpoint=endpoint, answer=judge, samples=judge_samples))
        scored = pure(score(run=judged.outputs["judged"]))
        fitted = pure(fit_policy(run=scored.outputs["scored"]))
        effect(register(run=fitted.outputs["fitted"]))


@dsl.pipeline(
    name="m4rag-benchmark",
    description="Measure whether retrieval helps models, learn when, and keep the record in MLflow.",
)
def benchmark(
    models: list = [],
    dataset: str = "sample",
    items: str = "",
    limit: int = 0,
    settings: list = ["text_only", "no_rag", "oracle", "oracle_query", "caption_query"],
    images: str = "all",
    index: str = "sample",
    multimodal: dict = {},
    k: int = 5,
    prompt_language: str = "en",
    context_language: str = "en",
    option_order: int = -1,
    judge: str = "",
    judge_samples: int = 1,
    source: str = "sample",
    path: str = "",
    corpus: str = "sample",
):
    """Run the benchmark against models that are deployed for it, or the one that M4RAG_VLM_URL names.

    Args:
        models: Models to deploy, as many at once as was said when compiling: `{"model": name in the table, "uri":
            "hf://owner/name:<commit>"}`, and optionally "hardware" and "replicas". None: the model of M4RAG_VLM_URL.
        dataset: Dataset name.
        items: File of questions, on a volume that the steps mount; empty for datasets inside the package.
        limit: At most this many questions; 0 for all.
        settings: Settings in the order of the table. `multimodal:<encoder>` searches the only served index that was
            built with that encoder, or that of `multimodal`.
        images: `all` or `none`; `none` is the text-only baseline.
        index: Base name of the text index.
        multimodal: Encoder name to index base, where several served indexes were built with that encoder.
        k: Passages shown to the model.
        prompt_language: `en`, or `native` for instructions in the language of each question.
        context_language: `en`, or `native` for gold documents in the language of each question.
        option_order: Seed of the order that options are shown in; -1 for the dataset's.
        judge: `shown`: a judge that knows the right answers scores every passage; `hidden`: one that does not; empty
            judges nothing. The judge is the model of M4RAG_JUDGE_URL, else the model under test.
        judge_samples: Judgements of each passage, an odd number.
        source: Reader of the corpus with the gold documents.
        path: File of the corpus; empty for sources inside the package.
        corpus: Name of the corpus.
    """
    asked = {"dataset": dataset, "items": items, "settings": settings, "images": images, "k": k}
    asked |= {"prompt_language": prompt_language, "context_language": context_language}
    asked |= {"judge": judge, "judge_samples": judge_samples}
    plan = effect(plan_benchmark(models=models, **asked))
    read = effect(fingerprint(source=source, path=path))
    corpus_read = pure(ingest(source=source, path=path, fingerprint=read.output, name=corpus)).after(plan)
    with dsl.ParallelFor(plan.output, parallelism=MODELS_AT_ONCE) as model:
        benchmark_model(
            documents=corpus_read.outputs["documents"],
            wanted=model.wanted,
            node_selector=model.node_selector,
            tolerations=model.tolerations,
            limit=limit,
            index=index,
            multimodal=multimodal,
            option_order=option_order,
            **asked,
        )
