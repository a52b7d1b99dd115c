"""Autoscaling, computed: what the rendered objects ask for and what a running server's metrics answer.

The arithmetic is that of the HorizontalPodAutoscaler ("Algorithm details" in Kubernetes' documentation):
`ceil(sum / target)`, and nothing within a tenth of the target. KEDA hands its trigger to one of those.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import sqlite3
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from helm_chart import CHART, needs_tools, of_kind, rendered
from servers import v2_input
from staged import IMAGE, Held, anchor, explainer, metrics, model, serving

from explainer_runtime.errors import Overloaded
from explainer_runtime.hosts.service.admission import Admission
from explainer_runtime.jobs import kept

pytestmark = needs_tools
THREADS = 2
BODY = json.dumps({"inputs": [v2_input(IMAGE)]})


def asked_for(kind):
    """The metric that a scaler reads, its labels, the target for one replica, least and most replicas."""
    values = {"HorizontalPodAutoscaler": "hpa", "ScaledObject": "keda"}[kind]
    sets = ("--set", f"threads={THREADS},name=anchor,autoscaling.utilization=75")
    spec = of_kind(rendered(CHART / "ci" / f"{values}-values.yaml", *sets), kind)["spec"]
    if kind == "HorizontalPodAutoscaler":
        (source,) = (one["pods"] for one in spec["metrics"])
        milli = source["target"]["averageValue"]
        assert milli.endswith("m")
        return (
            source["metric"]["name"],
            {},
            int(milli[:-1]) / 1000,
            spec["minReplicas"],
            spec["maxReplicas"],
        )
    (trigger,) = (one["metadata"] for one in spec["triggers"])
    name, labels = re.fullmatch(r"sum\((\w+)\{(.*)\}\)", trigger["query"]).groups()
    labels = dict(re.findall(r'(\w+)="([^"]*)"', labels))
    labels.pop("namespace")  # which Prometheus adds
    return name, labels, float(trigger["threshold"]), spec["minReplicaCount"], spec["maxReplicaCount"]


def replicas(kind, now, exposed):
    """How many replicas there will be, of `now` that each expose these metrics."""
    name, labels, target, least, most = asked_for(kind)
    wanted = "".join(f'{key}="{value}"' for key, value in labels.items())
    series = [value for line, value in exposed.items() if line.startswith(name + "{") and wanted in line]
    assert len(series) == 1, (name, exposed)
    ratio = sum(series) / target
    return now if abs(ratio - 1) <= 0.1 else min(most, max(least, math.ceil(now * ratio)))


@pytest.fixture(scope="module")
def held():
    return Held()


@pytest.fixture(scope="module")
def server(tmp_path_factory, held):
    folder = tmp_path_factory.mktemp("scaling")
    with model(held) as predictor:
        one = explainer(anchor(folder), "anchor", predictor, threads=THREADS, queue=4)
        with serving([one], folder / "served") as (server, _):
            yield server


def asked(server):
    answer = httpx.post(
        server.rest("/v2/models/anchor/explain"),
        content=BODY,
        headers={"content-type": "application/json"},
        timeout=60,
    )
    return answer.status_code


def until(server, holds):
    """The metrics, once they are so."""
    while not holds(exposed := metrics(server)):
        httpx.get(server.rest("/v2/health/live"))
    return exposed


DEMAND = 'explainer_demand{model="anchor"}'


@pytest.mark.parametrize("kind", ["HorizontalPodAutoscaler", "ScaledObject"])
def test_a_server_that_is_full_gets_company_and_an_idle_one_loses_it(server, held, kind):
    least = asked_for(kind)[3]
    with ThreadPoolExecutor(10) as clients, held.hold():
        running = [clients.submit(asked, server) for _ in range(THREADS)]
        full = until(server, lambda told: told[DEMAND] >= THREADS)
        assert replicas(kind, 1, full) >= 2  # full, and nobody waits
        more = [clients.submit(asked, server) for _ in range(10 - THREADS)]
        refused = until(server, lambda told: told[DEMAND] >= 2 * THREADS + 2)
        assert replicas(kind, 1, refused) >= 4
        held.release()
        statuses = [one.result(timeout=60) for one in [*running, *more]]
    assert set(statuses) == {200, 429}
    idle = until(server, lambda told: told[DEMAND] == 0)
    assert replicas(kind, asked_for(kind)[4], idle) == least


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_a_pod_that_runs_all_it_can_is_too_busy_however_many_threads_it_has(threads):
    for kind in ("HorizontalPodAutoscaler", "ScaledObject"):
        sets = ("--set", f"threads={threads},autoscaling.utilization=90")
        values = {"HorizontalPodAutoscaler": "hpa", "ScaledObject": "keda"}[kind]
        text = json.dumps(of_kind(rendered(CHART / "ci" / f"{values}-values.yaml", *sets), kind))
        target = float(re.search(r'"(?:averageValue|threshold)": "([\d.]+)m?"', text)[1])
        target /= 1000 if kind == "HorizontalPodAutoscaler" else 1
        assert threads / target > 1.1  # more than the tolerance of the autoscaler


def test_refusals_are_demand_until_there_is_room_and_hammering_does_not_add_to_it():
    told = []
    admission = Admission(1, 0, 1e9, 1e9, lambda running, waiting, demand: told.append(demand))
    started: list[float] = []

    def occupy(waited):
        started.append(waited)
        while len(refused) < 50:
            pass

    refused: list[bool] = []
    future = admission.submit(occupy)
    while not started:
        pass
    for _ in range(50):
        with pytest.raises(Overloaded):
            admission.submit(lambda waited: None)
        refused.append(True)
        assert admission.demand == 2
    future.result(timeout=60)
    admission.close()
    admission._pool.shutdown()
    assert max(told) == 2
    assert (told[-1], admission.demand) == (0, 0)


def test_the_table_of_jobs_asks_for_pods_while_something_can_be_done(tmp_path):
    """The query of KEDA's trigger, asked of the table as jobs come, run, pause and end."""
    spec = of_kind(rendered(CHART / "ci" / "jobs-postgresql-values.yaml"), "ScaledObject")["spec"]
    assert spec["minReplicaCount"] == 0
    (trigger,) = (one["metadata"] for one in spec["triggers"] if one["type"] == "postgresql")
    assert trigger["connectionFromEnv"] == "EXPLAINER_RUNTIME_JOBS"
    now = [1000.0]
    store, _ = kept(str(tmp_path), now=lambda: now[0])

    def wanted():
        query = trigger["query"].replace("extract(epoch from now())", str(now[0]))
        with contextlib.closing(sqlite3.connect(tmp_path / "jobs.sqlite")) as table:
            (count,) = table.execute(query).fetchone()
        return math.ceil(count / float(trigger["targetQueryValue"]))

    assert store.standing().queued == 0
    assert wanted() == 0
    for name in ("fashion", "fashion", "fashion", "another's"):
        store.submit("ann", name, "request", 1)
    assert wanted() == 2
    held = store.lease(), store.lease(), store.lease()
    assert wanted() == 2  # what runs keeps its pod
    store.release(held[0].id, held[0].fence, pause=30)
    store.finish(held[1].id, held[1].fence, "done")
    assert wanted() == 1
    store.finish(held[2].id, held[2].fence, "failed")
    assert wanted() == 0  # what pauses asks for none, until it is due
    now[0] += 30
    assert wanted() == 1
    store.close()
