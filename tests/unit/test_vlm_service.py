"""What a served model renders to: the rules that keep it running, KServe's schemas, and golden files."""

from __future__ import annotations

import copy
import os
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from deploy_services import COMMIT, service
from kserve_schemas import crds, problems

from m4rag.deploy import catalog, crd, names
from m4rag.deploy.crd import CRDFields
from m4rag.deploy.vlm_service import Owner, Profile, Scaling, VLMService, check_uri, render
from m4rag.errors import Unavailable, UsageError

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "deploy"
MODELS = sorted(catalog.catalog().models)
ISVC: Profile = "InferenceService"
LLM: Profile = "LLMInferenceService"
NEW = crd.of_crds(crds())
OLD = CRDFields(inference_service=True, llm_version="v1alpha1", llm_rollout_strategy=False, llm_scaling_keda=False)
SCALING = Scaling(
    min_replicas=2, max_replicas=8, prometheus="http://prometheus.monitoring:9090", requests_per_replica=24
)
EVERYTHING = {
    "expires_at": datetime(2026, 11, 22, 18, tzinfo=UTC),
    "owner": Owner(api_version="v1", kind="Pod", name="launcher", uid="c0ffee"),
    "service_account": "weights",
    "stopped": True,
}

Object = dict[str, Any]


@pytest.fixture(params=[ISVC, LLM])
def profile(request: pytest.FixtureRequest) -> Profile:
    chosen: Profile = request.param
    return chosen


def objects(one: VLMService, fields: CRDFields = NEW) -> dict[str, Object]:
    return {body["kind"]: body for body in render(one, fields)}


def pod(one: VLMService, fields: CRDFields = NEW) -> Object:
    """The pod's specification as KServe would merge it from the objects."""
    found = objects(one, fields)
    if one.profile == LLM:
        spec: Object = found[LLM]["spec"]["template"]
        return spec
    runtime, predictor = found["ServingRuntime"]["spec"], found[ISVC]["spec"]["predictor"]
    container = runtime["containers"][0] | {"resources": predictor["model"]["resources"]}
    return predictor | {"containers": [container], "volumes": runtime["volumes"]}


def container(one: VLMService, fields: CRDFields = NEW) -> Object:
    (only,) = pod(one, fields)["containers"]
    return dict(only)


def variables(one: VLMService) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container(one)["env"]}


@pytest.mark.parametrize("model", MODELS)
def test_golden_objects(model: str, profile: Profile) -> None:
    path = GOLDEN / profile / f"{model}.yaml"
    text = yaml.safe_dump_all(render(service(model, profile=profile), NEW), sort_keys=True, width=1000)
    if os.environ.get("M4RAG_REGENERATE") == "1":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), "make golden, then review the diff"


def test_golden_files_are_of_models_that_there_are() -> None:
    assert sorted(path.stem for path in GOLDEN.rglob("*.yaml")) == sorted([*MODELS, *MODELS])


@pytest.mark.parametrize("model", MODELS)
def test_every_object_fits_kserves_schema_with_no_unknown_field(model: str, profile: Profile) -> None:
    for body in render(service(model, profile=profile, **EVERYTHING), NEW):
        assert problems(body) == []


@pytest.mark.parametrize(
    "changes", [{"replicas": None}, {"replicas": None, "scaling": SCALING}, {"rollout": "replace"}]
)
def test_every_choice_fits_the_schema(changes: dict[str, Any]) -> None:
    for body in render(service(profile=LLM, **changes), NEW):
        assert problems(body) == []


def test_the_schema_check_sees_what_a_strict_server_would_refuse() -> None:
    (body,) = render(service(profile=LLM), NEW)
    wrong = copy.deepcopy(body)
    wrong["spec"]["replicsa"] = 2
    wrong["spec"]["template"]["containers"][0]["startupProbe"]["periodSeconds"] = "often"
    found = " ".join(problems(wrong))
    assert "spec.replicsa: unknown field" in found
    assert "'often' is not of type 'integer'" in found


def test_nothing_ends_before_its_answers_are_given(profile: Profile) -> None:
    one = service(profile=profile, timeout_s=120)
    stop = container(one)["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert stop == 15, "the route forgets the pod before it stops listening"
    assert "--shutdown-timeout=120" in container(one)["args"], "vLLM's default is 0 and cuts answers off"
    assert pod(one)["terminationGracePeriodSeconds"] == 15 + 120 + 15


def test_the_route_lets_the_longest_answer_through() -> None:
    assert objects(service(timeout_s=900))[ISVC]["spec"]["predictor"]["timeout"] == 900, "KServe's default is 60 s"
    spec = objects(service(profile=LLM))[LLM]["spec"]
    assert spec["router"]["route"] == {}, "the preset's own route has no limit"


def test_a_slow_start_is_waited_for_and_a_dead_engine_is_not(profile: Profile) -> None:
    found = container(service(profile=profile))
    startup, liveness = found["startupProbe"], found["livenessProbe"]
    patience = startup["periodSeconds"] * startup["failureThreshold"]
    assert patience >= 30 * 60
    assert patience > int(variables(service(profile=profile))["VLLM_ENGINE_READY_TIMEOUT_S"]), (
        "vLLM says more than a kill"
    )
    assert 30 <= liveness["periodSeconds"] * liveness["failureThreshold"] <= 120


def test_probes_ask_for_health_and_the_preset_keeps_its_scheme() -> None:
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container(service())[probe]["httpGet"] == {"path": "/health", "port": 8080}
        assert "httpGet" not in container(service(profile=LLM))[probe], "the preset asks /health over TLS"


def test_a_roll_out_never_waits_for_a_quarter_of_a_gpu(profile: Profile) -> None:
    surge, replace = service(profile=profile), service(profile=profile, rollout="replace")

    def strategy(one: VLMService) -> Object:
        body = objects(one)[profile]["spec"]
        found: Object = (
            body["rolloutStrategy"] if profile == LLM else body["predictor"]["deploymentStrategy"]["rollingUpdate"]
        )
        return found

    assert strategy(surge) == {"maxUnavailable": 0, "maxSurge": 1}
    assert strategy(replace) == {"maxUnavailable": 1, "maxSurge": 0}


@pytest.mark.parametrize("hardware", ["h100x1", "cpu"])
def test_the_pod_keeps_to_restricted_pod_security(profile: Profile, hardware: str) -> None:
    one = service(profile=profile, hardware=catalog.hardware(hardware))
    context = container(one)["securityContext"]
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["runAsNonRoot"] is True
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod(one)["securityContext"]["runAsNonRoot"] is True
    assert pod(one)["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod(one).keys()
    assert all(volume.keys() <= {"name", "emptyDir"} for volume in pod(one)["volumes"])


def test_what_is_written_goes_where_any_user_may_write(profile: Profile) -> None:
    one = service(profile=profile)
    mounts = {mount["mountPath"]: mount["name"] for mount in container(one)["volumeMounts"]}
    volumes = {volume["name"]: volume["emptyDir"] for volume in pod(one)["volumes"]}
    home = variables(one)["HOME"]
    assert home in mounts
    assert variables(one)["VLLM_CACHE_ROOT"].startswith(f"{home}/")
    assert variables(one)["USER"], "torch asks for a name, and a foreign user id has none"
    assert volumes[mounts["/dev/shm"]] == {"medium": "Memory", "sizeLimit": "16Gi"}, "without a limit it is all memory"
    assert set(mounts.values()) == set(volumes)


def test_a_service_named_vllm_does_not_stop_vllm(profile: Profile) -> None:
    assert pod(service(profile=profile))["enableServiceLinks"] is False


@pytest.mark.parametrize("model", MODELS)
def test_a_replica_gets_its_gpus_and_enough_beside_them(model: str, profile: Profile) -> None:
    one = service(model, profile=profile)
    found, gpus = container(one)["resources"], one.model.tensor_parallel
    assert found["requests"]["nvidia.com/gpu"] == found["limits"]["nvidia.com/gpu"] == str(gpus)
    assert int(found["requests"]["cpu"]) >= 8 * gpus
    assert int(found["requests"]["memory"].removesuffix("Gi")) >= 64 * gpus
    assert f"--tensor-parallel-size={gpus}" in container(one)["args"]


def test_no_gpu_is_asked_for_where_there_is_none(profile: Profile) -> None:
    one = service(profile=profile, hardware=catalog.hardware("cpu"))
    assert "nvidia.com/gpu" not in str(container(one)["resources"])
    assert "--gpu-memory-utilization" not in str(container(one)["args"])


def test_the_image_is_the_one_that_was_named(profile: Profile) -> None:
    one = service(profile=profile)
    assert container(one)["image"] == one.image
    assert container(one)["imagePullPolicy"] == "IfNotPresent"


@pytest.mark.parametrize("model", MODELS)
def test_arguments_come_through_kserves_shell_unchanged(model: str, profile: Profile) -> None:
    """LLMInferenceService's preset puts the arguments through `eval`, which destroys JSON."""
    given = container(service(model, profile=profile))["args"]
    script = r"""eval "exec printf '%s\0' ${VLLM_ADDITIONAL_ARGS} $@" """
    done = subprocess.run(["bash", "-c", script, "bash", *given], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip("\0").split("\0") == given


def test_nothing_of_the_service_looks_like_a_secret(profile: Profile) -> None:
    one = service(profile=profile, **EVERYTHING)
    assert not re.search(r"api-key|TOKEN|PASSWORD|SECRET", f"{container(one)['args']} {container(one)['env']}")
    assert "PYTHONPATH" not in variables(one), "KServe's webhook refuses it"


def test_the_hub_is_not_asked_for_weights_that_are_elsewhere(profile: Profile) -> None:
    assert "HF_HUB_OFFLINE" not in variables(service(profile=profile))
    assert variables(service(profile=profile, uri="pvc://weights/qwen"))["HF_HUB_OFFLINE"] == "1"


def test_the_served_name_is_the_same_for_every_revision_and_service(profile: Profile) -> None:
    for one in (service(profile=profile), service(profile=profile, name="other", uri=f"hf://a/b:{'f' * 40}")):
        if profile == LLM:
            assert objects(one)[LLM]["spec"]["model"]["name"] == "qwen2.5-vl-7b"
        else:
            assert "--served-model-name=qwen2.5-vl-7b" in container(one)["args"]


def test_standard_mode_is_said_because_kserves_default_is_knative() -> None:
    found = objects(service())
    assert found[ISVC]["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == "Standard"
    assert found[ISVC]["spec"]["predictor"]["model"]["runtime"] == found["ServingRuntime"]["metadata"]["name"]
    assert found["ServingRuntime"]["spec"]["supportedModelFormats"][0]["autoSelect"] is False, "it is nobody else's"
    assert [body["kind"] for body in render(service(), NEW)] == ["ServingRuntime", ISVC], "the runtime is there first"


def test_who_scales_is_said_once() -> None:
    fixed, external = objects(service(replicas=3))[ISVC], objects(service(replicas=None))[ISVC]
    assert fixed["spec"]["predictor"]["minReplicas"] == fixed["spec"]["predictor"]["maxReplicas"] == 3
    assert fixed["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] == "none"
    assert not {"minReplicas", "maxReplicas"} & external["spec"]["predictor"].keys()
    assert external["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] == "external"

    def llm(**changes: Any) -> set[str]:
        spec = objects(service(profile=LLM, **changes))[LLM]["spec"]
        return {"replicas", "scaling"} & spec.keys()

    assert llm() == {"replicas"}
    assert llm(replicas=None) == set(), "KServe then keeps what the external scaler set"
    assert llm(replicas=None, scaling=SCALING) == {"scaling"}


def test_scaling_goes_by_one_number_for_all_pods() -> None:
    keda = objects(service(profile=LLM, replicas=None, scaling=SCALING))[LLM]["spec"]["scaling"]["keda"]
    query = keda["triggers"][0]["metadata"]["query"]
    assert query.startswith("sum("), "KEDA takes one value, and there is a series for every pod"
    assert 'llm_isvc_name="qwen2-5-vl-7b-0123abcd"' in query
    assert keda["initialCooldownPeriod"] >= 30 * 60, "a replica that loads is not scaled away"


def test_an_older_kserve_gets_the_fields_that_it_has() -> None:
    body = objects(service(profile=LLM), OLD)[LLM]
    assert body["apiVersion"] == "serving.kserve.io/v1alpha1"
    assert "rolloutStrategy" not in body["spec"]
    assert body["spec"]["replicas"] == 1
    assert problems(body) == []
    with pytest.raises(
        Unavailable, match=r"no scaling\.keda\. .*ScaledObject .* deployment qwen2-5-vl-7b-0123abcd-kserve"
    ):
        render(service(profile=LLM, replicas=None, scaling=SCALING), OLD)


def test_a_cluster_without_kserve_is_told_what_to_install() -> None:
    nothing = crd.of_crds([])
    assert nothing == CRDFields(False, None, False, False)
    for profile, what in ((ISVC, "no InferenceService"), (LLM, "no LLMInferenceService")):
        with pytest.raises(Unavailable, match=what):
            render(service(profile=profile), nothing)


def test_the_installed_fields_are_read_from_the_crds() -> None:
    assert CRDFields(True, "v1alpha2", True, True) == NEW
    older = copy.deepcopy(list(crds()))
    for one in older:
        for version in one["spec"]["versions"]:
            if one["spec"]["names"]["kind"] == LLM:
                version["served"] = version["name"] == "v1alpha1"
                fields = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
                del fields["rolloutStrategy"], fields["scaling"]["properties"]["keda"]
    assert crd.of_crds(older) == OLD


def test_the_same_service_is_the_same_objects_and_another_has_another_hash(profile: Profile) -> None:
    def hashes(one: VLMService) -> set[str]:
        return {body["metadata"]["annotations"][names.SPEC] for body in render(one, NEW)}

    one = service(profile=profile)
    assert render(one, NEW) == render(service(profile=profile), NEW)
    (first,) = hashes(one)
    for changes in ({"timeout_s": 5}, {"uri": f"hf://a/b:{'e' * 40}"}, {"replicas": 2}, {"run": "another"}):
        assert hashes(service(profile=profile, **changes)) != {first}
    later = service(profile=profile, **EVERYTHING | {"service_account": None})
    assert hashes(later) == {first}, "expiry, owner and a stop are not what is served"


def test_pods_carry_the_hash_and_not_the_expiry(profile: Profile) -> None:
    """KServe copies these annotations to the pods; what changes there restarts them."""

    def copied(**changes: Any) -> Object:
        body = objects(service(profile=profile, **changes))[profile]
        if profile == LLM:
            found: Object = body["spec"]["annotations"]
            return found
        return dict(body["metadata"]["annotations"]) | dict(body["spec"]["predictor"]["annotations"])

    monday, tuesday = (copied(expires_at=datetime(2026, 11, day, tzinfo=UTC)) for day in (23, 24))
    assert monday == tuesday
    assert re.fullmatch("[0-9a-f]{12}", monday[names.SPEC])


def test_everything_says_whose_it_is_and_until_when(profile: Profile) -> None:
    found = objects(service(profile=profile, **EVERYTHING))
    for body in found.values():
        assert body["metadata"]["namespace"] == "m4rag"
        assert body["metadata"]["labels"] == names.labels("qwen2-5-vl-7b", "museum-ca684015c7a0")
        (owner,) = body["metadata"]["ownerReferences"]
        assert owner == {"apiVersion": "v1", "kind": "Pod", "name": "launcher", "uid": "c0ffee"}
    served = found[profile]
    assert served["metadata"]["annotations"][names.EXPIRES_AT] == "2026-11-22T18:00:00Z"
    assert served["metadata"]["annotations"]["serving.kserve.io/stop"] == "true"
    assert pod(service(profile=profile, **EVERYTHING))["serviceAccountName"] == "weights"


def test_without_an_end_there_is_none(profile: Profile) -> None:
    text = str(render(service(profile=profile, run=None), NEW))
    assert names.EXPIRES_AT not in text
    assert names.RUN not in text
    assert "ownerReferences" not in text
    assert "serving.kserve.io/stop" not in text


def test_pods_of_an_llm_service_carry_the_labels_too() -> None:
    body = objects(service(profile=LLM))[LLM]
    assert body["spec"]["labels"] == body["metadata"]["labels"]


def test_the_endpoint_picker_serves_chats_and_not_embeddings() -> None:
    assert objects(service(profile=LLM))[LLM]["spec"]["router"]["scheduler"] == {}, (
        "the preset's, without token-producer"
    )
    assert "scheduler" not in objects(service("netra-embed", profile=LLM))[LLM]["spec"]["router"]


@pytest.mark.parametrize(
    "uri",
    [
        f"hf://Qwen/Qwen2.5-VL-7B-Instruct:{COMMIT}",
        f"oci://registry.example:5000/models/qwen@sha256:{'a' * 64}",
        "s3://models/qwen2.5-vl-7b/2026-11",
        "pvc://weights/qwen2.5-vl-7b",
        "pvc://weights",
    ],
)
def test_weights_that_are_named_exactly_are_accepted(uri: str) -> None:
    assert check_uri(uri) == uri


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("hf://Qwen/Qwen2.5-VL-7B-Instruct", r"names no commit\. Write hf://owner/name:<40 hex digits>"),
        ("hf://Qwen/Qwen2.5-VL-7B-Instruct:main", "names no commit"),
        (f"hf://Qwen/Qwen2.5-VL-7B-Instruct:{COMMIT[:12]}", "names no commit"),
        ("oci://registry.example/qwen:latest", r"names no digest\. Write oci://registry/name@sha256:"),
        ("https://example.org/weights", r"is not an address of weights\. Write hf://, oci://, s3:// or pvc://"),
        ("s3://key:secret@models/qwen", "is not an address of weights"),
        ("pvc://weights/../x y", "is not an address of weights"),
        (f"hf://a/b:{COMMIT}\nx", "names no commit"),
        ("", "is not an address of weights"),
    ],
)
def test_weights_that_could_be_others_tomorrow_are_refused(uri: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        service(uri=uri)
    assert "\n" not in str(refused.value)


def test_a_tag_is_an_image_only_for_development() -> None:
    with pytest.raises(UsageError, match=r"vllm/vllm-openai:v0\.32\.0: the image is not named by its digest"):
        service(image="vllm/vllm-openai:v0.32.0")
    assert container(service(image="vllm/vllm-openai:v0.32.0", allow_tag=True))["image"] == "vllm/vllm-openai:v0.32.0"
    with pytest.raises(UsageError, match="not a reference to an image"):
        service(image="vllm vllm", allow_tag=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hardware": catalog.hardware("h100x4")}, r"runs on 1 GPU, and h100x4 has 4\. Take the profile h100x1"),
        ({"name": "Qwen"}, r"'Qwen' can't name a service"),
        ({"replicas": 0}, r"the service: replicas: Input should be greater than or equal to 1"),
        ({"replica": 2}, r"the service: replica: unknown key"),
        ({"profile": "Deployment"}, r"the service: profile: .*'InferenceService' or 'LLMInferenceService'"),
        ({"scaling": SCALING, "profile": LLM}, r"both `replicas` and `scaling`"),
        ({"scaling": SCALING, "replicas": None}, r"ScaledObject of yours scale the deployment .*-predictor"),
        ({"expires_at": datetime(2026, 11, 22)}, r"the service: expires_at: Input should have timezone info"),
        ({"timeout_s": 0}, r"the service: timeout_s"),
    ],
)
def test_what_does_not_go_together_is_said_in_a_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        service(**changes)
    assert "\n" not in str(refused.value)
