"""Jobs of a server that is killed, stopped, or whose disk fails: what was accepted is done, and done right.

EXPLAINER_RUNTIME_KILLS says at how many random points the server is killed; at two unless it does.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time

import httpx
import pytest
from staged import IMAGE, Held, anchor, explainer, model, serving

from explainer_runtime.jobs import kept

ASYNC = {"prefer": "respond-async"}
EXPLAIN, JOBS = "/v1/models/boots:explain", "/v2/models/boots/explanations"
PATIENCE = 120.0
KILLS = int(os.environ.get("EXPLAINER_RUNTIME_KILLS", "2"))
QUICK = {"lease": 1.0, "attempts": 1000}
"""A server that falls silent is noticed after a second; however slow the machine, no job is given up."""


def body(index):
    return {"instances": IMAGE.tolist(), "parameters": {"seed": index}}


@pytest.fixture(scope="module")
def held():
    return Held()


@pytest.fixture(scope="module")
def models(held, tmp_path_factory):
    with model(held) as predictor:
        yield [explainer(anchor(tmp_path_factory.mktemp("artifact")), "boots", predictor, threads=2)]


@pytest.fixture
def serve(models, tmp_path, monkeypatch):
    """Serves on the same jobs again and again; yields a client, and the process."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # who is killed tidies nothing up

    @contextlib.contextmanager
    def one(**limits):
        jobs = {"where": str(tmp_path / "jobs"), "limits": {**QUICK, **limits}}
        with (
            serving(models, tmp_path / "server", jobs=jobs) as (server, process),
            httpx.Client(base_url=server.rest(""), timeout=PATIENCE) as client,
        ):
            yield client, process

    return one


def until(condition):
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def ended(client, place):
    job = {}

    def look():
        job.update(client.get(place).json())
        return job["state"] not in ("queued", "running")

    until(look)
    return job


def submitted(client, index):
    answer = client.post(EXPLAIN, json=body(index), headers=ASYNC)
    assert answer.status_code == 202, answer.text
    return answer.headers["location"]


def test_every_accepted_job_is_done_whenever_the_server_is_killed(serve):
    points, places, index = random.Random(7), {}, 0
    for _ in range(KILLS):
        with serve() as (client, process):
            # Nothing is waited for here: any moment is as good as another.
            killer = threading.Timer(points.uniform(0, 0.5), process.kill)
            killer.start()
            with contextlib.suppress(httpx.TransportError):
                for _ in range(4):
                    index += 1
                    places[submitted(client, index)] = index
            killer.join()
            process.wait(timeout=PATIENCE)
    with serve() as (client, _):
        client.post(EXPLAIN, json=body(0))  # the model is met
        listed = client.get(f"{JOBS}?limit=500").json()["explanations"]
        assert {job["links"]["self"] for job in listed} >= set(places)
        assert len({job["id"] for job in listed}) == len(listed)
        for job in listed:  # also those that were taken, and nobody has heard of it
            assert ended(client, job["links"]["self"])["state"] == "done"
        for place, number in places.items():
            fetched, waited = (
                client.get(f"{place}/result").json(),
                client.post(EXPLAIN, json=body(number)).json(),
            )
            for one in (waited, fetched):  # a model is met once by each server, which is part of a cost
                del one["meta"]["cost"]
            assert fetched == waited


def test_a_server_that_stops_gives_its_jobs_back_at_once(serve, held, tmp_path):
    store = kept(str(tmp_path / "jobs")).store
    with serve(lease=600.0) as (client, process):
        with held.hold():
            job = submitted(client, 1).rpartition("/")[2]
            assert held.entered.acquire(timeout=PATIENCE)
            assert store.get(job, None).state == "running"
            process.terminate()
            until(lambda: store.get(job, None).state == "queued")  # while the thread that did it still waits
            assert process.poll() is None
        assert store.get(job, None).attempt == 0
    store.close()


def test_a_disk_that_fails_is_said_and_stops_no_one_who_waits(serve, tmp_path):
    where = tmp_path / "jobs"
    where.mkdir()
    (where / "jobs.sqlite").write_bytes(b"no database" * 1000)
    with serve() as (client, _):
        check_refused(client, client.post(EXPLAIN, json=body(1), headers=ASYNC))
        for path in (JOBS, f"{JOBS}/1", f"{JOBS}/1/result"):
            check_refused(client, client.get(path))
        assert (where / "jobs.sqlite").read_bytes().startswith(b"no database")  # for somebody to look at
        (where / "jobs.sqlite").unlink()
        done = submitted(client, 1)
        assert ended(client, done)["state"] == "done"
        (where / "blobs").rename(where / "away")
        (where / "blobs").write_text("in the way")
        check_refused(client, client.post(EXPLAIN, json=body(2), headers=ASYNC))
        check_refused(client, client.get(f"{done}/result"))
        (where / "blobs").unlink()
        (where / "away").rename(where / "blobs")
        assert client.get(f"{done}/result").status_code == 200
        assert ended(client, submitted(client, 2))["state"] == "done"


def check_refused(client, answer):
    assert answer.status_code == 503, answer.text
    assert answer.json()["error"].startswith("jobs cannot be kept or read now: ")
    assert int(answer.headers["retry-after"]) > 0
    assert client.post(EXPLAIN, json=body(1)).status_code == 200
