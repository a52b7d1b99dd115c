"""What the chart makes, object by object: valid for the cluster, and harmless in it."""

from __future__ import annotations

import json

import pytest
from helm_chart import (
    CASES,
    MODES,
    OURS,
    case,
    check,
    containers,
    explainer_container,
    is_test,
    needs_tools,
    of_kind,
    pods,
    rendered,
)

pytestmark = needs_tools
each_case = pytest.mark.parametrize("values", CASES, ids=lambda path: path.name.removesuffix("-values.yaml"))
each_mode = pytest.mark.parametrize("mode", MODES)


def everywhere(values):
    """Every container that is made with these values, with its object and its pod."""
    for made in rendered(values):
        for pod in pods(made):
            for one in [*pod.get("initContainers", []), *pod.get("containers", [])]:
                yield made, pod, one


@each_case
def test_every_object_is_valid_and_has_no_unknown_field(values):
    for made in rendered(values):
        check(made)


def test_an_unknown_field_of_a_native_object_is_an_error():
    import kubernetes_validate

    service = of_kind(rendered(case("deployment")), "Service")
    with pytest.raises(kubernetes_validate.ValidationError, match="colour"):
        check({**service, "spec": {**service["spec"], "colour": "blue"}})


def test_an_unknown_field_of_a_custom_object_is_an_error():
    service = of_kind(rendered(case("kserve-explainer")), "InferenceService")
    check(service)
    explainer = {**service["spec"]["explainer"], "colour": "blue"}
    with pytest.raises(AssertionError, match=r"spec/explainer: .*colour"):
        check({**service, "spec": {**service["spec"], "explainer": explainer}})


# --- policy -----------------------------------------------------------------------------------------------


@each_case
def test_every_container_is_restricted(values):
    """Pod Security Standards, level restricted; a pod of KServe's or Seldon's own making is theirs."""
    for made, pod, one in everywhere(values):
        security, of_pod = one["securityContext"], pod.get("securityContext", {})
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security["runAsNonRoot"] is True
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert "privileged" not in security
        assert of_pod.get("runAsUser", 1) != 0
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert not any("hostPath" in volume for volume in pod.get("volumes", []))
        assert not any("hostPort" in port for port in one.get("ports", []))
        if made["kind"] in ("Pod", "Deployment"):
            assert pod["automountServiceAccountToken"] is False


@each_case
def test_our_root_is_read_only_with_a_tmp_beside_it(values):
    """Seldon Core 1 gives an explainer's container no volumes, so there its root has to be writable."""
    for made, pod, one in everywhere(values):
        if one["name"] == "kserve-container" and "startupProbe" not in one and one["image"] != OURS:
            continue  # the model's server
        if made["kind"] == "SeldonDeployment":
            continue
        assert one["securityContext"]["readOnlyRootFilesystem"] is True
        if not is_test(made):
            assert {"name": "tmp", "mountPath": "/tmp"} in one["volumeMounts"]
            names = {volume["name"] for volume in pod["volumes"]}
            assert {mount["name"] for mount in one["volumeMounts"]} <= names


@each_case
def test_no_image_floats_and_every_container_knows_its_limits(values):
    for _, _, one in everywhere(values):
        _, _, tag = one["image"].rpartition("/")[2].partition(":")
        assert tag
        assert tag != "latest"
        assert {"cpu", "memory"} <= set(one["resources"]["requests"])
        assert "memory" in one["resources"]["limits"]


@each_mode
def test_the_server_is_probed_by_http_and_ready_without_its_model(mode):
    container = explainer_container(rendered(case(mode)))
    assert container["livenessProbe"]["httpGet"]["path"] in ("/v2/health/live", "/explain/live")
    # /v2/health/ready says that the artifact is read; a sidecar's asks itself, not the model behind it.
    ready = "/explain/ready" if mode == "kserve-sidecar" else "/v2/health/ready"
    assert container["readinessProbe"]["httpGet"]["path"] == ready
    startup = container["startupProbe"]
    assert startup["failureThreshold"] * startup["periodSeconds"] >= 120


@each_case
def test_selectors_select_the_pods_that_are_made(values):
    objects = rendered(values)
    labels = list(pod_labels(objects))
    for made in objects:
        spec = made.get("spec", {})
        selector = {
            "Service": lambda spec=spec: spec["selector"],
            "NetworkPolicy": lambda spec=spec: spec["podSelector"]["matchLabels"],
            "PodDisruptionBudget": lambda spec=spec: spec["selector"]["matchLabels"],
            "Deployment": lambda spec=spec: spec["selector"]["matchLabels"],
        }.get(made["kind"])
        if selector:
            assert any(selector().items() <= one.items() for one in labels), made["kind"]
        for pod in pods(made):
            for spread in pod.get("topologySpreadConstraints", []):
                assert any(spread["labelSelector"]["matchLabels"].items() <= one.items() for one in labels)


def test_the_test_pod_is_no_backend_of_the_service():
    objects = rendered(case("deployment"))
    labels = of_kind(objects, "Pod")["metadata"]["labels"]
    assert not of_kind(objects, "Service")["spec"]["selector"].items() <= labels.items()


def pod_labels(objects):
    for made in objects:
        if made["kind"] == "Deployment":
            yield made["spec"]["template"]["metadata"]["labels"]
        if made["kind"] == "InferenceService":
            yield from (part["labels"] for part in made["spec"].values() if "labels" in part)


def test_a_monitor_selects_a_service_with_its_port():
    objects = rendered(case("service-monitor"))
    monitor = of_kind(objects, "ServiceMonitor")["spec"]
    (service,) = (one for one in objects if one["kind"] == "Service" and "metrics" in one["metadata"]["name"])
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["endpoints"][0]["port"] in [port["name"] for port in service["spec"]["ports"]]


@each_case
def test_a_network_policy_denies_by_default_and_names_what_it_allows(values):
    for made in rendered(values):
        if made["kind"] == "NetworkPolicy":
            assert set(made["spec"]["policyTypes"]) == {"Ingress", "Egress"}
            assert all(rule["to"] and rule["ports"] for rule in made["spec"]["egress"])
            assert all(rule["from"] and rule["ports"] for rule in made["spec"]["ingress"])
            assert {53} in [{port["port"] for port in rule["ports"]} for rule in made["spec"]["egress"]]


@each_mode
def test_what_is_optional_is_off(mode):
    made = {one["kind"] for one in rendered(case(mode))}
    assert not made & {
        "HorizontalPodAutoscaler", "ScaledObject", "PodDisruptionBudget", "ServiceMonitor", "PrometheusRule",
        "ConfigMap", "HTTPRoute", "NetworkPolicy", "ServiceAccount",
    }  # fmt: skip


@each_case
def test_a_pod_has_time_to_finish_and_routes_wait_long_enough(values):
    for made in rendered(values):
        for pod in pods(made):
            for one in pod.get("containers", []):
                guard = next((word for word in one.get("args", []) if word.startswith("--guard=")), None)
                if guard and "terminationGracePeriodSeconds" in pod:
                    said = {"grace": 25, "linger": 0, **json.loads(guard.removeprefix("--guard="))}
                    assert pod["terminationGracePeriodSeconds"] >= said["grace"] + said["linger"]
        if made["kind"] == "InferenceService":
            assert all(part["timeout"] >= 30 for part in made["spec"].values() if "timeout" in part)
    if any(made["kind"] == "InferenceService" for made in rendered(values)):
        assert any(
            "timeout" in part
            for made in rendered(values)
            if made["kind"] == "InferenceService"
            for part in made["spec"].values()
        )


@each_case
def test_an_artifact_is_read_only_for_the_server(values):
    for made in rendered(values):
        for pod in pods(made):
            for one in pod.get("containers", []):
                mounts = [mount for mount in one.get("volumeMounts", []) if mount["name"] == "artifact"]
                assert all(mount["readOnly"] for mount in mounts)


def test_containers_of_every_mode_are_looked_at():
    for mode in MODES:
        assert [one for made in rendered(case(mode)) for one in containers(made) if not is_test(made)]
