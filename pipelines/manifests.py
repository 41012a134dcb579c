"""Pipelines as Kubernetes objects, for a server that keeps them there and a repository that a GitOps tool applies."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from pipelines.compiled import compile_to, require_pinned
from pipelines.ir import read


def write_manifests(name: str, folder: Path, namespace: str | None) -> list[Path]:
    """Write a `Pipeline`, and a `PipelineVersion` that is named by its content: the name that `launch` looks for.

    A version can't be edited, so every content gets a file of its own; older ones stay for the runs that use them.

    Args:
        name: The pipeline.
        folder: Where `<pipeline>.yaml` and `<version>.yaml` go.
        namespace: Namespace of the objects; None leaves it to whoever applies them.

    Returns:
        The two files.

    Raises:
        UsageError: A step's image is named by tag.
    """
    import yaml
    from kfp import compiler
    from kfp.compiler.compiler_utils import KubernetesManifestOptions

    from pipelines import pipeline

    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as scratch:
        compiled = compile_to(name, Path(scratch))
        require_pinned(compiled)
        ir = read(compiled)
        both = Path(scratch) / "manifests.yaml"
        options = KubernetesManifestOptions(
            pipeline_version_name=ir.version, namespace=namespace, include_pipeline_manifest=True
        )
        compiler.Compiler().compile(
            pipeline(name), str(both), kubernetes_manifest_format=True, kubernetes_manifest_options=options
        )
        objects = list(yaml.safe_load_all(both.read_text(encoding="utf-8")))
    paths = []
    for manifest in objects:
        path = folder / f"{manifest['metadata']['name']}.yaml"
        path.write_text(yaml.safe_dump(manifest, sort_keys=True, allow_unicode=True), encoding="utf-8")
        paths.append(path)
    return paths
