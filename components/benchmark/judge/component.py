"""Judge how relevant the passages of a run are."""

from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def judge(
    run: dsl.Input[dsl.Artifact],
    endpoint: dsl.Input[dsl.Artifact],
    judged: dsl.Output[dsl.Artifact],
    answer: str,
    samples: int,
) -> None:
    """Have a model judge every passage that a run showed, 1 to 5; what M4RAG_HOME holds is not judged again.

    Reads M4RAG_JUDGE_URL, the judge, and M4RAG_VLM_API_KEY. Without M4RAG_JUDGE_URL the model under test judges.

    Args:
        run: Run folder of `run_benchmark`.
        endpoint: Artifact of `deploy_vlm`: the model under test.
        judged: The same folder with judgements. Metadata: that of the run.
        answer: `shown`: the judge is told the right answer, as published; `hidden`: as when serving; empty judges
            nothing.
        samples: Judge each passage this often, an odd number; its score is the median.
    """
    import shutil
    from pathlib import Path

    from m4rag.bench.judge import judge_passages
    from m4rag.bench.judgements import Sampling
    from m4rag.bench.runs import at_home
    from m4rag.cli.output import progress
    from m4rag.settings import settings

    folder = at_home(Path(run.path), settings().home)
    if answer:
        url = settings().judge_url or endpoint.metadata["url"]
        asked = {"with_answer": answer == "shown", "sampling": Sampling.times(int(samples))}
        judge_passages(folder, settings(), url, progress, **asked)
    shutil.copytree(folder, judged.path)
    judged.metadata.update(run.metadata)
