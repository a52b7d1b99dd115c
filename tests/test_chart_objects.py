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
            assert all(rule["to"] for rule in made["spec"]["egress"])
            # Every port is open only of pods that are named.
            named = [rule for rule in made["spec"]["egress"] if "ports" not in rule]
            assert all(to["podSelector"]["matchLabels"] for rule in named for to in rule["to"])
            assert all(rule["from"] and rule["ports"] for rule in made["spec"]["ingress"])
            assert {53} in [
                {port["port"] for port in rule.get("ports", [])} for rule in made["spec"]["egress"]
            ]


@each_mode
def test_what_is_optional_is_off(mode):
    made = {one["kind"] for one in rendered(case(mode))}
    assert not made & {
        "HorizontalPodAutoscaler", "ScaledObject", "PodDisruptionBudget", "ServiceMonitor", "PrometheusRule",
        "ConfigMap", "HTTPRoute", "NetworkPolicy", "ServiceAccount", "PersistentVolumeClaim",
    }  # fmt: skip


@each_case
def test_a_pod_has_time_to_finish_and_routes_wait_long_enough(values):
    for made in rendered(values):
        for pod in pods(made):
            for one in pod.get("containers", []):
                guard = next((word for word in one.get("args", []) if word.startswith("--guard=")), None)
                if guard and "terminationGracePeriodSeconds" in pod:
                    said = {"linger": 0, **json.loads(guard.removeprefix("--guard="))}
                    assert pod["terminationGracePeriodSeconds"] > said["grace"] + said["linger"]
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


# --- what a real cluster does -----------------------------------------------------------------------------


@each_case
def test_services_of_the_namespace_set_no_variables_and_a_failed_start_says_why(values):
    for made, pod, one in everywhere(values):
        if made["kind"] not in ("SeldonDeployment", "ClusterServingRuntime"):  # which have no such field
            assert pod["enableServiceLinks"] is False or one["image"] != OURS
        if one["image"] == OURS:
            assert one["terminationMessagePolicy"] == "FallbackToLogsOnError"


@each_case
def test_a_node_can_be_emptied(values):
    """emptyDirs keep the cluster autoscaler from removing a node, unless a pod says that it may."""
    for made in rendered(values):
        for said, pod in annotated(made):
            scratch = {volume["name"] for volume in pod.get("volumes", []) if "emptyDir" in volume}
            may = said.get("cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes", "")
            assert scratch <= set(may.split(","))


def annotated(made):
    """Pods with their annotations, where the object has both."""
    if made["kind"] == "Deployment":
        template = made["spec"]["template"]
        yield template["metadata"]["annotations"], template["spec"]
    if made["kind"] == "InferenceService":
        for part in made["spec"].values():
            if "volumes" in part:
                yield part["annotations"], part


@pytest.mark.parametrize("seconds", [5, 30, 120])
@each_mode
def test_what_was_accepted_may_take_as_long_as_the_limits_say(mode, seconds):
    sets = ("--set", f"limits.max_seconds={seconds},timeout=200")
    objects = rendered(case(mode), *sets)
    (guard,) = (word for word in explainer_container(objects)["args"] if word.startswith("--guard="))
    said = json.loads(guard.removeprefix("--guard="))
    if mode == "seldon-v1":  # whose operator gives every pod 20 seconds, whatever one would need
        assert said["linger"] + said["grace"] < 20
        return
    assert said["grace"] > seconds
    for made in objects:
        for pod in pods(made):
            grace = pod.get("terminationGracePeriodSeconds")
            assert grace is None or grace > said["linger"] + said["grace"]


def test_an_artifact_that_needs_tensorflow_gets_the_image_with_it():
    container = containers(of_kind(rendered(CASES[0].parent / "tensorflow-values.yaml"), "Deployment"))
    assert next(container)["image"] == f"{OURS}-tensorflow"


def test_certificates_are_mounted_probed_and_tested():
    objects = rendered(CASES[0].parent / "tls-values.yaml")
    container = explainer_container(objects)
    words = [word for word in container["args"] if word.startswith("--tls")]
    folder = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}["tls"]
    files = {"cert": "tls.crt", "key": "tls.key", "client-ca": "ca.crt"}
    assert words == [f"--tls-{name}={folder}/{file}" for name, file in files.items()]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["scheme"] == "HTTPS"
    (test,) = (one for one in objects if is_test(one))
    env = {one["name"]: one.get("value") for one in test["spec"]["containers"][0]["env"]}
    assert env["ADDRESS"] == "https://fashion:8080"
    assert env["CERTIFICATES"] == test["spec"]["containers"][0]["volumeMounts"][0]["mountPath"]


def service_ports(container):
    """What KServe 0.20 makes of a container's ports in mode Standard: the first at 80, others as they are;
    those whose name says gRPC are HTTP/2 (reconcilers/service, createDefaultSvc)."""
    for index, port in enumerate(container["ports"]):
        grpc = "grpc" in port["name"] or "h2c" in port["name"]
        yield "grpc" if grpc else "rest", 80 if index == 0 else port["containerPort"], port["containerPort"]


@pytest.mark.parametrize("mode", ["kserve-explainer", "kserve-runtime", "kserve-sidecar"])
def test_kserve_routes_rest_and_grpc_to_the_port_that_speaks_it(mode):
    ports = list(service_ports(explainer_container(rendered(case(mode)))))
    assert ports == [("rest", 80, 8080), ("grpc", 8081, 8081)]


@pytest.mark.parametrize("mode", ["kserve-explainer", "kserve-runtime"])
def test_knative_is_given_the_one_port_that_it_takes(mode):
    objects = rendered(case(mode), "--set", "kserve.deploymentMode=Knative")
    assert len(explainer_container(objects)["ports"]) == 1


def test_a_sidecar_offers_grpc_only_where_the_model_does():
    objects = rendered(case("kserve-sidecar"), "--set", "model.grpcPort=0")
    assert [kind for kind, _, _ in service_ports(explainer_container(objects))] == ["rest"]


def test_a_canary_is_the_model_with_another_address_and_leaves_the_explainer_alone():
    """As KServe 0.20 has it (canary of an InferenceService): a name of its own, no scaling of its own."""
    values = CASES[0].parent / "kserve-explainer-canary-values.yaml"
    spec = of_kind(rendered(values), "InferenceService")["spec"]
    (canary,) = spec["canary"]
    assert canary["trafficPercent"] == 20
    assert set(canary["predictor"]) == {"name", "model"}
    assert canary["predictor"]["name"] != spec["predictor"].get("name")
    assert canary["predictor"]["model"]["modelFormat"] == spec["predictor"]["model"]["modelFormat"]
    assert canary["predictor"]["model"]["storageUri"] != spec["predictor"]["model"]["storageUri"]
    without = rendered(values, "--set", "model.canary.uri=")
    assert of_kind(without, "InferenceService")["spec"]["explainer"] == spec["explainer"]


def test_the_policy_for_the_model_names_its_pods_and_only_a_port_of_theirs():
    name = CASES[0].parent / "network-policy-any-port-values.yaml"
    (rule,) = (
        one
        for one in of_kind(rendered(name), "NetworkPolicy")["spec"]["egress"]
        if "matchLabels" in one["to"][0]["podSelector"] and "fashion" in str(one["to"])
    )
    assert "ports" not in rule
    assert rule["to"][0]["podSelector"]["matchLabels"]


def volumes(pod, container, path):
    """The volume that a container has at a path, and how it is mounted."""
    (mount,) = (one for one in container["volumeMounts"] if one["mountPath"] == path)
    (volume,) = (one for one in pod["volumes"] if one["name"] == mount["name"])
    return volume, mount


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("jobs", {"persistentVolumeClaim": {"claimName": "fashion-jobs"}}),
        ("kserve-runtime-jobs", {"persistentVolumeClaim": {"claimName": "explanations"}}),
        ("kserve-sidecar-jobs", {"emptyDir": {"sizeLimit": "6Gi"}}),
    ],
)
def test_jobs_are_kept_where_the_server_is_told_and_may_write(name, where):
    (said,) = (
        (pod, one)
        for _, pod, one in everywhere(CASES[0].parent / f"{name}-values.yaml")
        if "--jobs=/var/lib/jobs" in one.get("args", [])
    )
    volume, mount = volumes(*said, "/var/lib/jobs")
    assert volume == {"name": "jobs", **where}
    assert not mount.get("readOnly")


def test_a_claim_is_never_asked_for_by_two_pods_at_once():
    objects = rendered(CASES[0].parent / "jobs-values.yaml")
    claim = of_kind(objects, "PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert of_kind(objects, "Deployment")["spec"]["strategy"] == {"type": "Recreate"}
    service = of_kind(rendered(CASES[0].parent / "kserve-runtime-jobs-values.yaml"), "InferenceService")
    assert service["spec"]["predictor"]["deploymentStrategy"] == {"type": "Recreate"}


@pytest.mark.parametrize("name", ["jobs-postgresql", "kserve-explainer-jobs"])
def test_a_database_is_named_by_a_secret_alone(name):
    container = explainer_container(rendered(CASES[0].parent / f"{name}-values.yaml"))
    (said,) = (one for one in container["env"] if one["name"] == "EXPLAINER_RUNTIME_JOBS")
    assert said["valueFrom"] == {"secretKeyRef": {"name": "explainer-jobs", "key": "url"}}
    assert not [word for word in container["args"] if word.startswith("--jobs=")]


@pytest.mark.parametrize(("size", "volume"), [("500M", "600000k"), ("1G", "1200M"), ("2T", "2400G")])
def test_what_is_kept_fits_its_volume_with_a_fifth_to_spare(size, volume):
    objects = rendered(CASES[0].parent / "jobs-values.yaml", "--set", f"cache.size={size}")
    container, (pod,) = explainer_container(objects), pods(of_kind(objects, "Deployment"))
    assert f"--cache=/var/cache/explanations:{size}" in container["args"]
    assert volumes(pod, container, "/var/cache/explanations")[0]["emptyDir"] == {"sizeLimit": volume}


def test_a_policy_lets_jobs_reach_their_database_and_their_sink():
    objects = rendered(CASES[0].parent / "jobs-postgresql-values.yaml")
    rules = of_kind(objects, "NetworkPolicy")["spec"]["egress"]
    assert {
        "to": [{"ipBlock": {"cidr": "10.2.0.0/24"}}],
        "ports": [{"port": 5432, "protocol": "TCP"}],
    } in rules
    (sink,) = (to for rule in rules for to in rule["to"] if "events" in str(to))
    assert sink["podSelector"]["matchLabels"] == {"app": "events"}


def test_a_page_is_routed_with_what_it_asks_for_and_the_dashboard_links_to_it():
    objects = rendered(CASES[0].parent / "page-values.yaml")
    assert {"--page", "--page-samples"} <= set(explainer_container(objects)["args"])
    (rule,) = of_kind(objects, "HTTPRoute")["spec"]["rules"]
    paths = {(one["path"]["type"], one["path"]["value"]) for one in rule["matches"]}
    assert {("Exact", "/"), ("PathPrefix", "/page"), ("Exact", "/v2/models")} <= paths
    board = json.loads(of_kind(objects, "ConfigMap")["data"]["explainer-runtime.json"])
    (page,) = (one for one in board["templating"]["list"] if one["name"] == "page")
    assert page["query"] == "https://explain.example.com/page/"
    assert [link["url"] for link in board["links"]] == ["${page}"]
