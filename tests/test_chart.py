"""The chart as Helm sees it: linted, rendered, packaged, and refusing what is wrong in words."""

from __future__ import annotations

import json
import tomllib

import chart_values
import pytest
import write_chart
import yaml
from helm_chart import (
    CASES,
    CHART,
    MODES,
    ROOT,
    SNAPSHOTS,
    VERSION,
    case,
    helm,
    needs_tools,
    rendered,
    snapshot,
    text,
)

pytestmark = needs_tools

WRONG = {
    # by the schema
    "mode=daemonset": "mode",
    "colour=blue": "colour",
    "image.tga=1": "tga",
    "image.tag=latest": "tag",
    "image.digest=sha256:12": "digest",
    "image.repository=a/b:1": "repository",
    "image.pullPolicy=Sometimes": "pullPolicy",
    "threads=0": "threads",
    "threads=many": "threads",
    "replicas=-1": "replicas",
    "limits.max_batch=0": "max_batch",
    "limits.max_bach=4": "max_bach",
    "limits.max_seconds=-1": "max_seconds",
    "guard.max_depth=2": "max_depth",
    "guard.token_file=/token": "token_file",
    "guard.management=true": "management",
    "predictor.url=fashion:8080": "url",
    "predictor.timeout=0": "timeout",
    "predictor.output=classes": "output",
    "predictor.modle=a": "modle",
    "artifact.uri=ftp://host/path": "uri",
    "timeout=0": "timeout",
    "autoscaling.kind=vpa": "kind",
    "resources.limits.cpus=1": "cpus",
    "serviceMonitor.interval=often": "interval",
    "networkPolicy.enabled=yes please": "enabled",
    "test.shape={0}": "shape",
    "jobs.store=redis": "store",
    "jobs.limits.owner_job=1": "owner_job",
    "jobs.limits.lease=0": "lease",
    "jobs.sink=http://user:secret@events": "sink",
    "cache.size=20GB": "size",
    "cache.size=0M": "size",
    "kserve.deploymentMode=Serverless": "deploymentMode",
    # by what goes together
    "artifact.uri=": "artifact.uri: missing; say where the fitted explainer is",
    "predictor.model=": "predictor.model",
    "predictor=null": "predictor.url, predictor.model: mode deployment needs both",
    "mode=kserve-explainer": "mode kserve-explainer takes the model's address from the platform",
    "httpRoute.enabled=true": "httpRoute.hostnames: expected at least one",
    "networkPolicy.enabled=true": "networkPolicy.predictor.labels: missing; say which pods the model's are",
    "networkPolicy.enabled=true,networkPolicy.predictor.port=80": "80 looks like the port of a Service",
    "env.X=1": "env.X: expected text, got 1; put it in quotes, or use --set-string env.X=1",
    "labels.on=true": "labels.on: expected text, got true; put it in quotes, or use --set-string",
    "annotations.a\\.b/c=2": "--set-string annotations.a\\.b/c=2",
    "tls.clientCa=true": "tls.clientCa: needs tls.secret",
    "tls.secret=a,httpRoute.enabled=true,httpRoute.hostnames={a}": "a Gateway calls a Service without TLS",
    "model.canary.uri=s3://b/m": "model.canary.uri: KServe splits traffic so in mode kserve-explainer",
    "autoscaling.running=2": "running",
    "autoscaling.utilization=100": "utilization",
    "autoscaling.minReplicas=9": "autoscaling.minReplicas: expected at most autoscaling.maxReplicas",
    "timeout=10": "timeout: 10 is less than limits.max_seconds, 30",
    "artifact.downloader=a/b:latest": "artifact.downloader: expected a tag other than latest",
    "jobs.enabled=true,replicas=2": "a volume is one replica's, and another would not find its jobs",
    "jobs.enabled=true,autoscaling.kind=hpa,autoscaling.maxReplicas=2": "a volume is one replica's",
    "jobs.enabled=true,jobs.store=postgresql": "jobs.secret: missing; name a Secret with an entry url",
    "jobs.enabled=true,jobs.secret=a": "jobs.secret: is for jobs.store postgresql",
    "jobs.enabled=true,jobs.persistence.existingClaim=a,jobs.persistence.emptyDir=true": "got both",
    "page.url=explain.example.com": "url",
    "autoscaling.minReplicas=0": "0 needs autoscaling.kind keda and jobs in PostgreSQL",
}
WRONG_FOR = {
    ("kserve-explainer", "model.uri="): "model.uri: mode kserve-explainer declares the model too",
    (
        "kserve-explainer",
        "predictor.url=http://a",
    ): "takes the model's address from the platform",
    (
        "kserve-explainer",
        "tls.secret=a",
    ): "in mode kserve-explainer the platform calls the server without TLS",
    ("kserve-sidecar", "predictor.kind=v1"): "predictor.kind: a sidecar asks the model over V2",
    (
        "seldon-v1",
        "predictor.output=logits",
    ): "in mode seldon-v1 the operator says everything about the model",
    ("kserve-explainer-v1", "model.canary.uri=s3://b/m"): "model.canary.uri: KServe splits traffic so",
    ("kserve-explainer", "autoscaling.kind=hpa"): "in mode kserve-explainer the platform scales",
    ("kserve-sidecar", "model.image="): "model.image, model.uri: mode kserve-sidecar runs the model's server",
    ("kserve-sidecar", "model.image=server"): "model.image: expected a tag or a digest, got server",
    ("kserve-sidecar", "httpRoute.enabled=true"): "in mode kserve-sidecar the platform makes the routes",
    ("kserve-explainer-v1", "spread.enabled=true"): "Knative manages its pods",
    ("artifact-s3", "networkPolicy.enabled=true,networkPolicy.predictor.port=8080"): "networkPolicy.storage",
    ("seldon-v1", "artifact.uri=oci://a/b:1"): "Seldon Core 1 downloads s3://, gs:// and pvc:// only",
    ("seldon-v2", "artifact.uri=pvc://a/b"): "Seldon Core 2 downloads s3:// and gs:// only",
    ("seldon-v2", "serviceMonitor.enabled=true"): "in mode seldon-v2 the pods are the operator's",
    ("seldon-v1", "tokenSecret=tokens"): "the operator calls the server without a token",
    ("seldon-v1", "jobs.enabled=true"): "in mode seldon-v1 the operator's routes reach no job",
    ("seldon-v2", "page.enabled=true"): "in mode seldon-v2 the operator's routes reach no page",
    (
        "page",
        "networkPolicy.from=null",
    ): "networkPolicy.from: missing; name the pods of the Gateway",
    ("seldon-v2", "cache.enabled=true"): "nothing can be mounted beside what the operator mounts",
    (
        "kserve-explainer",
        "jobs.enabled=true,autoscaling.maxReplicas=2",
    ): "a volume is one replica's",
    ("kserve-explainer-v1", "jobs.enabled=true"): "Knative ends a pod that answers no request",
    ("jobs", "autoscaling.kind=keda,autoscaling.minReplicas=0"): "0 needs autoscaling.kind keda and jobs in",
    (
        "jobs-postgresql",
        "networkPolicy.database=null",
    ): "networkPolicy.database: missing; say where",
    (
        "jobs-postgresql",
        "networkPolicy.sink.port=0,networkPolicy.sink.labels=null",
    ): "networkPolicy.sink: missing",
    (
        "network-policy",
        "networkPolicy.otlp.cidr=10.0.0.0/8,networkPolicy.otlp.port=0",
    ): "needs a port beside it",
    ("seldon-v2", "signature.secret=signer"): "nothing can be mounted beside what the operator mounts",
}


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("mode", MODES)
def test_the_chart_is_lint_free_in_every_mode(mode, version):
    done = helm("lint", "--strict", CHART, "-f", case(mode), version=version)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout


@pytest.mark.parametrize("values", CASES, ids=lambda path: path.name.removesuffix("-values.yaml"))
def test_helm_3_and_helm_4_make_the_same_of_every_feature(values):
    assert text(values, 3) == text(values, 4)
    assert rendered(values)


def test_there_are_at_least_thirty_features():
    assert len(CASES) >= 30


@pytest.mark.parametrize("version", [3, 4])
def test_the_chart_can_be_packaged(version, tmp_path):
    done = helm("package", CHART, "--destination", tmp_path, version=version)
    assert done.returncode == 0, done.stderr
    (package,) = tmp_path.glob("explainer-runtime-*.tgz")
    assert package.stat().st_size < 100_000  # ten times that is what a cluster stores of a release


def test_the_chart_installs_this_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_value_is_refused_by_name(wrong):
    assert_refused("deployment", wrong, WRONG[wrong])


@pytest.mark.parametrize(("mode", "wrong"), WRONG_FOR)
def test_what_a_mode_cannot_do_is_refused_with_the_reason(mode, wrong):
    assert_refused(mode, wrong, WRONG_FOR[mode, wrong])


@pytest.mark.parametrize("wrong", ["limits.max_batch=0", "colour=blue", "artifact.uri="])
def test_helm_4_refuses_it_likewise(wrong):
    assert_refused("deployment", wrong, WRONG[wrong], version=4)


def assert_refused(mode, wrong, message, version=3):
    done = helm("template", "fashion", CHART, "-f", case(mode), "--set", wrong, version=version)
    assert done.returncode != 0
    assert message in done.stderr
    assert "nil pointer" not in done.stderr


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_makes_what_it_made(mode):
    """After a change that is meant: `python tests/helm_chart.py`."""
    assert snapshot(mode) == (SNAPSHOTS / f"{mode}.yaml").read_text()


# --- values, schema and table are one thing -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["values.yaml", "values.schema.json", "README.md"])
def test_what_is_written_from_the_models_is_in_step_with_them(name):
    """Otherwise: `python charts/write_chart.py`."""
    assert (CHART / name).read_text() == write_chart.written()[CHART / name]


def test_every_value_has_a_sentence():
    silent = [path for path, _, said in write_chart.rows() if not said.endswith(".")]
    assert silent == []


def test_the_schema_is_closed():
    schema = json.loads((CHART / "values.schema.json").read_text())
    for name, part in {"values": schema, **schema["$defs"]}.items():
        if part.get("type") == "object" and "properties" in part:
            assert part["additionalProperties"] is False, name


def test_the_defaults_are_those_of_the_models():
    made = yaml.safe_load((CHART / "values.yaml").read_text())
    parsed = chart_values.Values.model_validate(made)
    assert parsed.model_dump(by_alias=True, mode="json", exclude_unset=True) == made
    guard = chart_values.Guard(linger=5)
    assert parsed == chart_values.Values(predictor={}, limits={}, guard=guard, jobs={"limits": {}})
