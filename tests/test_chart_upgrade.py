"""From the chart of 0.1.0 to this one, by Helm itself, against a stand-in of a cluster's API."""

from __future__ import annotations

import os
import subprocess

import pytest
import yaml
from cluster import cluster
from helm_chart import CHART, ROOT, TOOLS, VERSION, case, needs_tools, text

pytestmark = needs_tools
OLD = ROOT / "tests" / "charts" / "explainer-runtime-0.1.0.tgz"
VALUES = ("deployment", "disruption-budget", "network-policy", "service-account", "kserve-explainer")


def helm(one, version, *words):
    """Helm at that cluster, with state of its own."""
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(one.config.parent),
        "KUBECONFIG": str(one.config),
        "HELM_NAMESPACE": "models",
    }
    command = [str(word) for word in (TOOLS / f"helm{version}", *words)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def install(one, version, chart, values, *words, verb="install"):
    unchecked = "--disable-openapi-validation"
    return helm(one, version, verb, "fashion", chart, "-f", values, unchecked, *words)


def specs(objects):
    return {key: one.get("spec") for key, one in objects.items()}


def asked_for(values, version):
    """What the chart renders, by kind and name, without the pod of `helm test`."""
    made = [one for one in yaml.safe_load_all(text(values, version)) if one and one["kind"] != "Pod"]
    return {(one["kind"], one["metadata"]["name"]): one for one in made}


@pytest.mark.parametrize(("name", "version"), [*((name, 3) for name in VALUES), ("deployment", 4)])
def test_after_an_upgrade_the_cluster_holds_what_this_chart_says(name, version, tmp_path):
    values = CHART / "ci" / f"{name}-values.yaml"
    with cluster(tmp_path) as one:
        install(one, version, OLD, values)
        before = one.made()
        assert set(before) >= {("Deployment", "fashion")} or name == "kserve-explainer"
        fixed = selectors(before)
        install(one, version, CHART, values, verb="upgrade")
        wanted = asked_for(values, version)
        assert specs(one.made()) == specs(wanted)
        # What a cluster refuses to change.
        assert {key: value for key, value in selectors(one.made()).items() if key in fixed} == fixed
        versions = {m["metadata"]["labels"]["app.kubernetes.io/version"] for m in one.made().values()}
        assert versions == {VERSION}
        helm(one, version, "rollback", "fashion", "1")
        assert specs(one.made()) == specs(before)
        helm(one, version, "uninstall", "fashion")
        assert one.made() == {}


def selectors(objects):
    kinds = ("Deployment", "PodDisruptionBudget")
    return {key: one["spec"]["selector"] for key, one in objects.items() if key[0] in kinds}


def test_values_of_before_are_taken_along_and_new_ones_are_this_charts(tmp_path):
    with cluster(tmp_path) as one:
        install(one, 3, OLD, case("deployment"), "--set", "threads=4")
        words = ("upgrade", "fashion", CHART, "--reset-then-reuse-values", "--disable-openapi-validation")
        helm(one, 3, *words)
        (container,) = one.made()["Deployment", "fashion"]["spec"]["template"]["spec"]["containers"]
    assert "--threads=4" in container["args"]
    assert container["resources"]["requests"]["cpu"] == "250m"
