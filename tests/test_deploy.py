"""The manifests of deploy/, built by the real kubectl: valid, and the same server as the chart's."""

from __future__ import annotations

import functools

import pytest
import yaml
from helm_chart import (
    ROOT,
    case,
    check,
    containers,
    explainer_container,
    kubectl,
    needs_tools,
    of_kind,
    pods,
    rendered,
)
from typer.main import get_command

from explainer_runtime.cli import app

pytestmark = needs_tools
OVERLAYS = sorted(path.parent for path in (ROOT / "deploy" / "overlays").glob("*/kustomization.yaml"))
each_overlay = pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
MODE = {
    "deployment": "deployment",
    "deployment-tls": "deployment",
    "deployment-signed": "deployment",
    "deployment-jobs": "deployment",
    "kserve-standard": "kserve-explainer",
    "kserve-knative": "kserve-explainer",
    "seldon-v1": "seldon-v1",
    "seldon-v2": "seldon-v2",
}


MORE = {
    "kserve-knative": ("--set", "kserve.deploymentMode=Knative"),
    "deployment-tls": ("--set", "tls.secret=explainer-tls"),
    "deployment-signed": ("--set", "signature.secret=explainer-signer"),
    "deployment-jobs": (
        "--set",
        "replicas=2,jobs.enabled=true,jobs.store=postgresql,jobs.secret=explainer-jobs",
    ),
}


@functools.cache
def built(overlay):
    done = kubectl("kustomize", overlay)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def test_there_is_an_overlay_for_every_platform():
    assert {path.name for path in OVERLAYS} == set(MODE)


@each_overlay
def test_every_object_of_an_overlay_is_valid_and_in_a_namespace(overlay):
    for made in built(overlay):
        assert made["metadata"]["namespace"]
        check(made)


@each_overlay
def test_an_overlay_runs_the_container_that_the_chart_runs(overlay):
    values = case(MODE[overlay.name])
    objects = rendered(values, *MORE.get(overlay.name, ()))
    assert explainer_container(built(overlay)) == explainer_container(objects)


@pytest.mark.parametrize("name", ["deployment", "deployment-tls", "deployment-signed", "deployment-jobs"])
def test_a_deployment_is_the_charts_but_for_what_helm_says_of_itself(name):
    objects = rendered(case("deployment"), *MORE.get(name, ()))
    for made in built(ROOT / "deploy" / "overlays" / name):
        theirs = of_kind(objects, made["kind"])["spec"]
        if made["kind"] == "Deployment":
            for spec in (made["spec"], theirs):
                spec["template"]["metadata"]["labels"] = dict(spec["selector"]["matchLabels"])
        assert made["spec"] == theirs


def test_the_operator_verifies_what_the_server_reads_by_the_key_that_it_has():
    """The init container that sigstore's operator adds has the mounts of the pod's containers."""
    objects = built(ROOT / "deploy" / "model-validation")
    asked, made = of_kind(objects, "ModelValidation"), of_kind(objects, "Deployment")
    template = made["spec"]["template"]
    assert template["metadata"]["labels"]["validation.ml.sigstore.dev/ml"] == asked["metadata"]["name"]
    (container,) = template["spec"]["containers"]
    read = {one["name"]: one["value"] for one in container["env"]}["MLSERVER_MODEL_URI"]
    assert asked["spec"]["model"] == {"path": read, "signaturePath": f"{read}/model.sig"}
    key = asked["spec"]["config"]["publicKeyConfig"]["keyPath"]
    assert f"--require-signature={key}" in container["args"]
    mounts = {one["mountPath"] for one in container["volumeMounts"]}
    assert {read, key.rpartition("/")[0]} <= mounts


def test_batches_are_valid_and_run_the_command_that_there_is():
    """Both manifests, and the words of each by the command's own parser; `$(...)` is Kubernetes' to say."""
    ray, indexed = (of_kind(built(ROOT / "deploy" / "batch"), kind) for kind in ("RayJob", "Job"))
    check(indexed)
    groups = [
        ray["spec"]["rayClusterSpec"]["headGroupSpec"],
        *ray["spec"]["rayClusterSpec"]["workerGroupSpecs"],
    ]
    templates = [group["template"]["spec"] for group in groups]
    for pod in templates:
        check({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": pod})
    (container,) = indexed["spec"]["template"]["spec"]["containers"]
    for words in (ray["spec"]["entrypoint"].split(), container["args"]):
        assert words[:2] == ["explainer-runtime", "batch"]
        get_command(app).commands["batch"].make_context("batch", words[2:])
    ours = [one for pod in [*templates, indexed["spec"]["template"]["spec"]] for one in pod["containers"]]
    for one in ours:
        assert one["securityContext"]["allowPrivilegeEscalation"] is False
        assert one["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert one["resources"]["limits"]["memory"]
        assert {mount["mountPath"] for mount in one["volumeMounts"]} == {
            "/tmp",
            "/mnt/explainers",
            "/mnt/batch",
        }


@each_overlay
def test_every_container_of_an_overlay_is_restricted_and_has_limits(overlay):
    for made in built(overlay):
        for one in containers(made):
            assert one["securityContext"]["allowPrivilegeEscalation"] is False
            assert one["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert one["resources"]["limits"]["memory"]
            assert not one["image"].endswith(":latest")


def test_knative_is_given_nothing_that_it_refuses():
    (overlay,) = (path for path in OVERLAYS if path.name == "kserve-knative")
    service = of_kind(built(overlay), "InferenceService")
    assert service["metadata"]["annotations"] == {"serving.kserve.io/deploymentMode": "Knative"}
    for pod in pods(service):
        assert "terminationGracePeriodSeconds" not in pod
        assert not any("startupProbe" in one for one in pod.get("containers", []))


def test_the_readme_says_how_to_call_every_overlay():
    readme = (ROOT / "deploy" / "README.md").read_text()
    for overlay in OVERLAYS:
        assert f"deploy/overlays/{overlay.name}" in readme
    assert readme.count("curl ") >= len(OVERLAYS)
