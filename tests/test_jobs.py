"""Jobs are done once, by somebody, whatever ends a server; and what cannot be kept is said."""

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import databases
import jobs_killed
import pytest

from explainer_runtime.errors import InvalidInput, InvalidSpec, JobsUnavailable, Overloaded
from explainer_runtime.hosts.door.again import Request
from explainer_runtime.hosts.door.desk import Desk
from explainer_runtime.hosts.door.traffic import Traffic
from explainer_runtime.hosts.service import metrics
from explainer_runtime.hosts.service.caller import Caller
from explainer_runtime.jobs import Limits, database, kept
from explainer_runtime.jobs.events import Sink
from explainer_runtime.jobs.queue import Answer, Worker
from explainer_runtime.jobs.store import Standing

TESTS = Path(__file__).parent
LONG = 120.0
"""Seconds after which something that has to happen has not; no test is about how long it takes."""


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """A machine that is loaded is no database that fails."""
    monkeypatch.setattr(database, "WAIT", 60.0)


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory(prefix="er-jobs-", dir=databases.memory()) as name:
        yield Path(name)


def _killed(where, folder, kills, side_by_side, seed=18):
    log = folder / "log"
    words = [sys.executable, TESTS / "jobs_killed.py", where, log, seed, kills, side_by_side]
    quiet = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    subprocess.run([str(word) for word in words], check=True, timeout=300, env=quiet)
    lines = [line.split() for line in log.read_text().splitlines()]
    store, blobs = kept(where)
    jobs = {job.id: job for owner in jobs_killed.OWNERS for job in store.listed(owner, limit=10_000)}
    accepted = {id for word, id in lines if word == "accepted"}
    finished = [id for word, id in lines if word == "finished"]
    bytes_equal = all(
        blobs.get(job.result) == jobs_killed.answer(blobs.get(job.request)) for job in jobs.values()
    )
    store.close()
    assert accepted
    assert accepted <= jobs.keys()  # one may have been killed between being kept and saying so
    assert {(job.state, job.status, job.fraction) for job in jobs.values()} == {("done", 200, 1.0)}
    assert len(finished) == len(set(finished))
    assert bytes_equal


def test_every_accepted_job_ends_once_though_its_server_is_killed_a_hundred_times(folder):
    _killed(str(folder / "jobs"), folder, kills=100, side_by_side=1)


def test_two_servers_share_a_real_postgresql_and_either_may_be_killed(postgresql, folder):
    _killed(databases.fresh(postgresql), folder, kills=8, side_by_side=2)


@asynccontextmanager
async def _working(where, do, **settings):
    store, blobs = kept(str(where))
    worker = Worker(store, blobs, do, settings.pop("places", lambda: 1), tick=0.05, **settings)
    worker.start()

    def submit(request, owner="ann"):
        job = store.submit(owner, "m", blobs.put(request), len(request))
        worker.wake()
        return job.id

    async def until(id, *states):
        async with asyncio.timeout(LONG):
            while (job := await store.call(store.get, id, "ann")).state not in states:
                await asyncio.sleep(0.01)
        return job

    try:
        yield worker, store, blobs, submit, until
    finally:
        await worker.stop()
        store.close()


def test_an_answer_is_kept_and_a_refusal_is_how_a_job_failed(folder):
    async def do(job, beat):
        return Answer(
            *{b"good": (200, b"{}"), b"bad": (422, b"no", "headers", "rows: too few")}[blobs.get(job.request)]
        )

    async def act():
        nonlocal blobs
        async with _working(folder, do) as (_, _, blobs, submit, until):
            good, bad = await until(submit(b"good"), "done"), await until(submit(b"bad"), "failed")
            assert (good.status, blobs.get(good.result), good.bytes) == (200, b"{}", 6)
            assert (bad.status, blobs.get(bad.result)) == (422, b"no")
            assert (bad.headers, bad.error) == ("headers", "rows: too few")

    blobs = None
    asyncio.run(act())


def test_what_found_no_room_is_tried_again_and_what_breaks_is_failed(folder):
    async def do(job, beat):
        if job.retries == 0:
            return Answer(429)
        raise RuntimeError("a bug")

    async def act():
        async with _working(folder, do) as (_, _, _, submit, until):
            job = await until(submit(b"x"), "failed")
            assert (job.retries, job.attempt, job.fence) == (1, 1, 2)
            assert (job.status, job.error) == (500, "internal error")

    asyncio.run(act())


def test_a_running_job_is_cancelled_and_its_work_is_stopped(folder):
    stopped = []

    async def do(job, beat):
        beat.told(0.25, "a little")
        try:
            await asyncio.sleep(10 * LONG)
        except asyncio.CancelledError:
            stopped.append(job.id)
            raise
        return Answer(200)

    async def act():
        async with _working(folder, do) as (worker, store, _, submit, until):
            id = submit(b"x")
            await until(id, "running")
            async with asyncio.timeout(LONG):
                while store.get(id, "ann").best != "a little":
                    await asyncio.sleep(0.01)
            store.cancel(id, "ann")
            worker.cancelled(id)
            job = await until(id, "cancelled")
            assert (job.fraction, job.result) == (0.25, None)
            assert stopped == [id]

    asyncio.run(act())


def test_a_stop_gives_back_what_runs_as_if_it_had_not_begun(folder):
    async def do(job, beat):
        await asyncio.sleep(10 * LONG)
        return Answer(200)

    async def act():
        async with _working(folder, do) as (_, _, _, submit, until):
            id = submit(b"x")
            await until(id, "running")
        store, _ = kept(str(folder))
        job = store.get(id, "ann")
        assert (job.state, job.attempt, job.retries) == ("queued", 0, 0)
        assert store.lease().id == id  # due at once
        store.close()

    asyncio.run(act())


def test_no_job_is_taken_while_there_is_no_room(folder):
    room = 0

    async def do(job, beat):
        return Answer(200)

    async def act():
        nonlocal room
        async with _working(folder, do, places=lambda: room) as (worker, store, _, submit, until):
            id = submit(b"x")
            for _ in range(20):
                worker.wake()
                await asyncio.sleep(0.01)
            assert store.get(id, "ann").fence == 0
            room = 1
            worker.wake()
            await until(id, "done")

    asyncio.run(act())


def test_a_job_that_is_somebody_elses_now_is_stopped_and_written_by_them_alone(folder):
    async def do(job, beat):
        if job.fence == 1:  # the table is set back below, as if this server had been silent
            await asyncio.sleep(10 * LONG)
        return Answer(200, b"%d" % job.fence)

    async def act():
        async with _working(folder, do) as (_, store, blobs, submit, until):
            id = submit(b"x")
            job = await until(id, "running")
            assert store.release(id, job.fence)
            job = await until(id, "done")
            assert blobs.get(job.result) == b"2"

    asyncio.run(act())


def test_a_request_that_is_no_longer_what_was_recorded_fails_its_job(folder):
    async def do(job, beat):
        return Answer(200, blobs.get(job.request))

    async def act():
        nonlocal blobs
        async with _working(folder, do, places=lambda: room) as (worker, _, blobs, submit, until):
            id = submit(b"x")
            digest = hashlib.sha256(b"x").hexdigest()
            (folder / "blobs" / digest[:2] / digest).write_bytes(b"y")
            nonlocal room
            room = 1
            worker.wake()
            job = await until(id, "failed")
            assert (job.status, job.result) == (500, None)
            assert "damaged" in job.error

    blobs, room = None, 0
    asyncio.run(act())


def test_a_lease_is_held_however_many_ask_at_the_same_time(folder):
    async def act():
        store, blobs = kept(str(folder))
        job, free, done = store.submit("ann", "cf", "request", 1), threading.Event(), asyncio.Event()
        asking = [asyncio.create_task(store.call(free.wait)) for _ in range(50)]

        async def do(job, beat):
            done.set()
            return Answer(200)

        worker = Worker(store, blobs, do, lambda: 1)
        worker.start()
        try:
            async with asyncio.timeout(LONG):
                await done.wait()
                while store.get(job.id, "ann").state != "done":
                    await asyncio.sleep(0.01)
        finally:
            free.set()
        await asyncio.gather(*asking)
        await worker.stop()
        store.close()

    asyncio.run(act())


@pytest.mark.parametrize("first", ["table", "bytes"])
def test_what_is_kept_is_for_its_owner_alone(folder, first):
    store, blobs = kept(str(folder / "jobs"))
    acts = {"table": store.sweep, "bytes": lambda: blobs.put(b"a row")}
    acts.pop(first)()
    for act in acts.values():
        act()
    assert (folder / "jobs").stat().st_mode & 0o777 == 0o700
    store.close()


def test_what_is_refused_leaves_nothing_on_the_disk(folder):
    async def act():
        place = kept(str(folder), Limits(jobs=1))
        desk, ann = Desk(place, None, Traffic()), Caller("ann")
        asked = Request("/v2/models/cf/explain", "", [], b"one")
        job = await desk.take(asked, "cf", ann, "key")
        assert await desk.take(asked, "cf", ann, "key") == job
        for body, key, error in ((b"two", "key", InvalidInput), (b"three", None, Overloaded)):
            with pytest.raises(error):
                await desk.take(asked._replace(body=body), "cf", ann, key)
        place.store.close()
        return job

    job = asyncio.run(act())
    assert [path.name for path in folder.glob("blobs/*/*")] == [job.request]


def test_the_sink_is_told_until_it_listens_and_of_no_row(folder):
    told = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            told.append(({name.lower(): value for name, value in self.headers.items()}, json.loads(body)))
            self.send_response(500 if len(told) == 1 else 202)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    now = 1_000_000.0
    store, _ = kept(str(folder), events=True, now=lambda: now)
    job = store.submit("ann", "cf", "request", 1)
    store.finish(job.id, store.lease().fence, "done", status=200)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        sink = Sink(f"http://127.0.0.1:{server.server_port}/events")
        (event,) = store.events()
        assert not sink.post(event)
        assert store.events() == []
        now += 11
        (event,) = store.events()
        assert sink.post(event)
        store.told(event.id)
        now += 10_000
        assert store.events() == []
        sink.close()
        server.shutdown()
        thread.join()
    assert not Sink(f"http://127.0.0.1:{server.server_port}/").post(event)  # nobody is there
    store.close()
    (_, first), (headers, body) = told
    assert first == body == {
        "id": job.id, "model": "cf", "state": "done", "status": 200, "created": "1970-01-12T13:46:40.000Z"
    }  # fmt: skip
    expected = {"ce-specversion": "1.0", "ce-id": job.id, "ce-subject": job.id, "ce-source": "/v2/models/cf"}
    expected |= {
        "ce-type": "io.github.explainer-runtime.explanation.completed",
        "ce-time": "1970-01-12T13:46:40.000Z",
    }
    assert expected.items() <= headers.items()
    assert not sink.post(event._replace(model="Schuhgr\u00f6\u00dfe\n"))  # no header has such letters
    for url in (
        "ftp://somewhere",
        "http://",
        "http://a:x/",
        "http://a:99999/",
        "http://[::1/",
        "http://\u00e4/",
    ):
        with pytest.raises(InvalidSpec, match="jobs_sink"):
            Sink(url)


def test_how_the_queue_stands_is_told_and_counted(folder):
    from prometheus_client import REGISTRY

    def value(name):
        return REGISTRY.get_sample_value(f"explainer_jobs_{name}") or 0.0

    told = []

    async def do(job, beat):
        return Answer(200) if job.retries else Answer(503)

    async def act():
        async with _working(folder, do, told=lambda *stands: told.append(stands)) as (_, _, _, submit, until):
            await until(submit(b"x"), "done")
            async with asyncio.timeout(LONG):
                while not told:
                    await asyncio.sleep(0.01)

    asyncio.run(act())
    before = value("retries_total"), value("expired_total")
    metrics.jobs(Standing(3, 1, 2.5), 2, 1)
    assert (value("queued"), value("running"), value("oldest_seconds")) == (3, 1, 2.5)
    assert (value("retries_total"), value("expired_total")) == (before[0] + 2, before[1] + 1)


def test_a_damaged_database_is_said_and_left_as_it_is(folder):
    (folder / "jobs.sqlite").write_bytes(b"no database" * 1000)
    store, _ = kept(str(folder))
    for _ in range(2):
        with pytest.raises(JobsUnavailable, match="the database is damaged"):
            store.submit("ann", "m", "request", 1)
    with pytest.raises(JobsUnavailable, match="the database is damaged"):
        store.get("id", "ann")
    store.close()
    assert (folder / "jobs.sqlite").read_bytes() == b"no database" * 1000


def test_what_is_accepted_is_in_the_file_that_is_there_now(folder):
    store, _ = kept(str(folder))
    lost = store.submit("ann", "cf", "request", 1)
    for path in folder.glob("jobs.sqlite*"):
        path.unlink()
    job = store.submit("ann", "cf", "request", 1)
    other, _ = kept(str(folder))
    assert [one.listed("ann") for one in (store, other)] == [[job], [job]]
    assert store.get(lost.id, "ann") is None
    store.close()
    other.close()


def test_a_worker_outlives_a_database_that_fails_and_goes_on_when_it_is_there(folder):
    async def do(job, beat):
        return Answer(200)

    async def act():
        (folder / "jobs.sqlite").mkdir()
        async with _working(folder, do) as (worker, _, _, submit, until):
            for _ in range(20):
                worker.wake()
                await asyncio.sleep(0.01)
            with pytest.raises(JobsUnavailable, match="the database cannot be opened"):
                submit(b"x")
            (folder / "jobs.sqlite").rmdir()
            await until(submit(b"x"), "done")

    asyncio.run(act())


ON_A_DISK = """
import sys
from explainer_runtime.errors import JobsUnavailable
from explainer_runtime.jobs import kept
store, blobs = kept(sys.argv[1])
def tries(act):
    try:
        return act() and "kept"
    except JobsUnavailable as error:
        return str(error)
digest = tries(lambda: blobs.put(bytes(int(sys.argv[2]))))
print(digest)
said = "kept"
for _ in range(20_000 if sys.argv[3] == "full" else 1):
    said = tries(lambda: store.submit("ann" * 50, "m" * 50, "request" * 50, 1))
    if said != "kept":
        break
print(said)
print(tries(lambda: store.standing()))
"""


def _on(folder, mount, size, case):
    """What is said by jobs on a disk that only they see."""
    inside = f'{mount} && exec "$@"'
    words = [
        "unshare",
        "--mount",
        "sh",
        "-ec",
        inside,
        "sh",
        sys.executable,
        "-c",
        ON_A_DISK,
        folder,
        size,
        case,
    ]
    ran = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=LONG)
    if "unshare" in ran.stderr or "mount:" in ran.stderr:
        pytest.skip("needs to mount a disk of its own: root, and a kernel that allows it")
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


needs_mounts = pytest.mark.skipif(
    os.getuid() != 0 or shutil.which("unshare") is None,
    reason="needs to mount a disk of its own: root, and unshare",
)


@needs_mounts
def test_a_full_disk_is_said(folder):
    mount = f"mount -t tmpfs -o size=512k none {folder}"
    put, submitted, seen = _on(folder, mount, 2**20, "full")
    assert put == submitted == "jobs cannot be kept or read now: the disk is full"
    assert seen == "kept"  # what was kept can still be read


@needs_mounts
def test_a_disk_that_is_read_only_is_said(folder):
    store, blobs = kept(str(folder))
    store.submit("ann", "m", blobs.put(b"x"), 1)
    store.close()
    mount = f"mount --bind {folder} {folder} && mount -o remount,ro,bind {folder}"
    put, submitted, _ = _on(folder, mount, 10, "read-only")
    assert put == "jobs cannot be kept or read now: the disk is read-only"
    assert submitted.startswith("jobs cannot be kept or read now: the d")
