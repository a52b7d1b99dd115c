"""The table of jobs, on both databases, against a model of it in Python; and the bytes beside it."""

import hashlib
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import databases
import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from explainer_runtime.errors import InvalidInput, InvalidSpec, Overloaded
from explainer_runtime.jobs import Limits, database, kept
from explainer_runtime.jobs.results import YOUNG, Damaged

SMALL = Limits(owner_jobs=3, jobs=5, bytes=400, keep=100.0, lease=10.0, attempts=3)
OPEN = ("queued", "running")
OWNERS, KEYS, REQUESTS = ("ann", "bob"), (None, None, None, "k"), ("r1", "r2")
SIZE, RESULT = 30, 20


@dataclass(frozen=True)
class Told:
    """What the model knows of a job."""

    owner: str
    request: str
    key: str | None
    created: float
    expires: float
    due: float
    state: str = "queued"
    attempt: int = 0
    retries: int = 0
    fence: int = 0
    cancel: bool = False
    fraction: float = 0.0
    best: str | None = None
    ended: float | None = None
    result: str | None = None
    status: int | None = None
    bytes: int = SIZE
    event: float | None = None
    event_tries: int = 0


FIELDS = list(Told.__dataclass_fields__)


class Queue(RuleBasedStateMachine):
    """Anybody does anything, with leases that may be old; the table says what the model says."""

    where = ""

    @initialize()
    def begin(self):
        self.now, self.jobs, self.turns, self.leases = 1000.0, {}, {}, []
        self.store, _ = kept(self.place(), SMALL, events=True, now=lambda: self.now)

    def teardown(self):
        if hasattr(self, "store"):
            self.store.close()

    @rule(seconds=st.sampled_from([3.0, 3.0, 3.0, 60.0]))
    def time_passes(self, seconds):
        self.now += seconds

    @rule(owner=st.sampled_from(OWNERS), key=st.sampled_from(KEYS), request=st.sampled_from(REQUESTS))
    def submit(self, owner, key, request):
        known = [id for id, job in self.jobs.items() if key and (job.owner, job.key) == (owner, key)]
        waiting = [job for job in self.jobs.values() if job.state in OPEN]
        expected = None
        if known:
            expected = None if self.jobs[known[0]].request == request else InvalidInput
        elif (
            sum(job.owner == owner for job in waiting) >= SMALL.owner_jobs
            or len(waiting) >= SMALL.jobs
            or sum(job.bytes for job in self.jobs.values()) + SIZE > SMALL.bytes
        ):
            expected = Overloaded
        if expected is not None:
            with pytest.raises(expected):
                self.store.submit(owner, "m", request, SIZE, key)
            return
        id = self.store.submit(owner, "m", request, SIZE, key).id
        assert id == known[0] if known else id not in self.jobs
        if not known:
            self.jobs[id] = Told(owner, request, key, self.now, self.now + SMALL.keep, self.now)
            self.turns.setdefault(owner, 0)

    @precondition(lambda self: any(job.state == "running" for job in self.jobs.values()))
    @rule()
    def leases_end_and_others_take_over(self):
        self.now += SMALL.lease
        for _ in range(2):
            self.lease()

    @precondition(lambda self: any(job.state in OPEN for job in self.jobs.values()))
    @rule()
    def lease(self):
        due = [
            (self.turns[job.owner], job.owner, id)
            for id, job in self.jobs.items()
            if job.state in OPEN and job.due <= self.now < job.expires
            if not job.cancel and job.attempt < SMALL.attempts
        ]
        job = self.store.lease()
        assert (job.id if job else None) == (min(due)[2] if due else None)
        if job:
            told = self.jobs[job.id]
            self.turns[told.owner] = max(self.turns.values()) + 1
            self.change(job.id, state="running", attempt=told.attempt + 1, fence=told.fence + 1)
            self.change(job.id, due=self.now + SMALL.lease)
            assert job.fence == told.fence + 1
            self.leases.append((job.id, job.fence))

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), fraction=st.sampled_from([None, 0.25, 0.5]), best=st.sampled_from([None, "better"]))
    def heartbeat(self, data, fraction, best):
        id, fence, job = self.draw(data)
        said = self.store.heartbeat(id, fence, fraction, best)
        assert said == ("lost" if job is None else "cancelled" if job.cancel else "held")
        if job:
            self.change(id, due=self.now + SMALL.lease, best=best or job.best)
            self.change(id, fraction=job.fraction if fraction is None else fraction)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), state=st.sampled_from(["done", "failed", "cancelled"]))
    def finish(self, data, state):
        id, fence, job = self.draw(data)
        answer = {} if state == "cancelled" else {"result": "digest", "size": RESULT, "status": 200}
        assert self.store.finish(id, fence, state, **answer) == (job is not None)
        if job:
            self.end(id, state, event=None if state == "cancelled" else self.now)
            self.change(id, fraction=1.0 if state == "done" else job.fraction)
            if answer:
                self.change(id, result="digest", status=200, bytes=job.bytes + RESULT)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), pause=st.sampled_from([0.0, 5.0]))
    def release(self, data, pause):
        id, fence, job = self.draw(data)
        assert self.store.release(id, fence, pause) == (job is not None)
        if job:
            self.change(id, state="queued", attempt=job.attempt - 1, due=self.now + pause)
            self.change(id, retries=job.retries + (pause > 0))

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), owner=st.sampled_from(OWNERS), remove=st.booleans())
    def cancel_or_remove(self, data, owner, remove):
        id = data.draw(st.sampled_from(sorted(self.jobs)))
        job = self.jobs[id]
        waits = job.state in OPEN
        if remove:
            assert self.store.remove(id, owner) == (job.owner == owner and not waits)
            if job.owner == owner and not waits:
                del self.jobs[id]
            return
        assert (self.store.cancel(id, owner) is not None) == (job.owner == owner and waits)
        if job.owner == owner and waits:
            self.change(id, cancel=True)
            if job.state == "queued":
                self.end(id, "cancelled")

    @rule()
    def sweep(self):
        expired = 0
        for id, job in list(self.jobs.items()):
            tried, late = job.attempt >= SMALL.attempts, job.expires <= self.now
            if job.state in OPEN and job.due <= self.now and (job.cancel or tried or late):
                self.end(id, "cancelled" if job.cancel else "failed", event=None if job.cancel else self.now)
                self.change(id, status=None if job.cancel else 503)
                expired += not job.cancel and not tried
        gone = [id for id, job in self.jobs.items() if job.state not in OPEN and job.expires <= self.now]
        for id in gone:
            del self.jobs[id]
        self.turns = {owner: self.turns[owner] for owner in {job.owner for job in self.jobs.values()}}
        assert self.store.sweep() == (expired, len(gone))

    @rule(told=st.booleans())
    def tell(self, told):
        due = {id for id, job in self.jobs.items() if job.event is not None and job.event <= self.now}
        assert {job.id for job in self.store.events(limit=100)} == due
        for id in due:
            tries = self.jobs[id].event_tries
            pause = 10 * 2**tries if tries < 6 else 600
            self.change(id, event=None if told else self.now + pause, event_tries=tries + 1)
            if told:
                self.store.told(id)

    @invariant()
    def the_table_is_the_model(self):
        for owner in OWNERS if hasattr(self, "store") else ():
            seen = {
                job.id: Told(**{name: getattr(job, name) for name in FIELDS})
                for job in self.store.listed(owner)
            }
            assert seen == {id: job for id, job in self.jobs.items() if job.owner == owner}
            assert [*seen] == sorted(seen, reverse=True)

    @invariant()
    def what_is_named_is_kept(self):
        if hasattr(self, "store"):
            results = {job.result for job in self.jobs.values() if job.result}
            assert self.store.named() == results | {job.request for job in self.jobs.values()}

    def draw(self, data):
        """A lease, new or old, and its job if it is still that one's; those that are late come first."""
        fences = dict(self.leases)  # the newest
        late = [(id, fence) for id, fence in self.leases if id in self.jobs and fence < fences[id]]
        id, fence = data.draw(st.sampled_from([*late, *self.leases[-4:]]))
        job = self.jobs.get(id)
        return id, fence, job if job and job.state == "running" and job.fence == fence else None

    def change(self, id, **fields):
        self.jobs[id] = replace(self.jobs[id], **fields)

    def end(self, id, state, event=None):
        self.change(id, state=state, ended=self.now, expires=self.now + SMALL.keep, event=event)


def _check(place, examples):
    machine = type("Machine", (Queue,), {"place": staticmethod(place)})
    profile = settings(settings.get_profile(settings.get_current_profile_name()))
    machine.TestCase.settings = settings(
        profile, max_examples=examples, stateful_step_count=40, suppress_health_check=[HealthCheck.too_slow]
    )
    machine.TestCase("runTest").runTest()


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """A machine that is loaded is no database that fails."""
    monkeypatch.setattr(database, "WAIT", 60.0)


@pytest.fixture(scope="module")
def memory():
    with tempfile.TemporaryDirectory(prefix="er-jobs-", dir=databases.memory()) as folder:
        yield Path(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request, memory):
    """Where jobs are kept, empty."""
    if request.param == "sqlite":
        return tempfile.mkdtemp(dir=memory)
    return databases.fresh(request.getfixturevalue("postgresql"))


def test_the_table_is_what_a_model_says_on_sqlite(memory):
    _check(lambda: tempfile.mkdtemp(dir=memory), 60)


def test_the_table_is_what_a_model_says_on_postgresql(postgresql):
    _check(lambda: databases.fresh(postgresql), 25)


def test_many_who_lease_at_once_never_have_the_same_job(place):
    store, _ = kept(place, Limits(lease=3600.0))
    ids = {store.submit(f"owner {n % 3}", "m", "request", 1).id for n in range(120)}

    def leases(_):
        return list(iter(store.lease, None))

    with ThreadPoolExecutor(6) as threads:
        leased = [job for jobs in threads.map(leases, range(6)) for job in jobs]
        # With others at the same rows a lease may find none free for a moment; then it finds them now.
        leased += leases(0)
    store.close()
    assert sorted(job.id for job in leased) == sorted(ids)
    assert {(job.fence, job.attempt) for job in leased} == {(1, 1)}


def test_one_key_is_one_job_however_many_ask_at_once(place):
    store, _ = kept(place)
    with ThreadPoolExecutor(6) as threads:
        jobs = list(threads.map(lambda _: store.submit("ann", "m", "request", 1, key="k"), range(24)))
    other = store.submit("bob", "m", "request", 1, key="k")
    store.close()
    assert len({job.id for job in jobs}) == 1
    assert other.id != jobs[0].id


def test_limits_hold_however_many_ask_at_once(place):
    store, _ = kept(place, Limits(owner_jobs=5))

    def taken(_):
        try:
            return bool(store.submit("ann", "m", "request", 1))
        except Overloaded:
            return False

    with ThreadPoolExecutor(6) as threads:
        assert sum(threads.map(taken, range(24))) == 5
    store.close()


def test_many_jobs_of_one_owner_do_not_delay_anothers(place):
    store, _ = kept(place)
    for _ in range(200):
        store.submit("ann", "m", "request", 1)
    store.submit("bob", "m", "request", 1)
    first, second = store.lease(), store.lease()
    store.close()
    assert {first.owner, second.owner} == {"ann", "bob"}


def test_what_is_late_is_not_begun_and_what_runs_is_not_swept(place):
    now = SimpleNamespace(value=1000.0)
    store, _ = kept(place, Limits(keep=50.0, lease=100.0), now=lambda: now.value)
    first = store.submit("ann", "m", "request", 1)
    held = store.lease()
    second = store.submit("ann", "m", "request", 1)
    now.value += 60
    assert store.lease() is None
    assert store.sweep() == (1, 0)
    assert store.get(second.id, "ann").state == "failed"
    assert "expired" in store.get(second.id, "ann").error
    assert store.get(first.id, "ann").state == "running"
    assert store.finish(first.id, held.fence, "done")
    now.value += 60
    assert store.sweep() == (0, 2)
    store.close()


def test_what_ends_every_server_is_given_up(place):
    now = SimpleNamespace(value=1000.0)
    store, _ = kept(place, Limits(attempts=2, lease=10.0), now=lambda: now.value)
    id = store.submit("ann", "m", "request", 1).id
    for attempt in (1, 2):
        assert store.lease().attempt == attempt
        assert store.sweep() == (0, 0)
        now.value += 11
    assert store.lease() is None
    store.sweep()
    job = store.get(id, "ann")
    store.close()
    assert (job.state, job.status) == ("failed", 503)
    assert job.error == "given up after 2 attempts: each time its server fell silent"


def test_only_jobs_of_models_that_are_served_are_leased(place):
    store, _ = kept(place)
    ids = [store.submit("ann", model, "request", 1).id for model in ("cf-2", "cf", "c%", "anchors")]
    assert store.lease(["f", "c_", "cf-", "ca"]) is None
    assert store.lease([]) is None
    assert store.lease(["anchors", "cf"]).id == ids[1]
    assert store.lease(["anchors", "cf"]).id == ids[3]
    assert store.lease().id == ids[0]
    store.close()


def test_pages_of_a_list_are_the_list(place):
    store, _ = kept(place)
    for n in range(7):
        store.submit("ann", "cf" if n % 2 else "anchors", "request", 1)
    pages, after = [], None
    while page := store.listed("ann", limit=3, after=after):
        pages += page
        after = page[-1].id
    whole, anchors = store.listed("ann"), store.listed("ann", model="anchors", state="queued")
    assert store.listed("ann", state="done") == store.listed("bob") == []
    store.close()
    assert pages == whole
    assert anchors == [job for job in whole if job.model == "anchors"]
    assert len(anchors) == 4


def test_what_is_put_is_what_is_got(place):
    store, blobs = kept(place)
    for data in (b"", b"\0\xff", os.urandom(100_000)):
        assert blobs.put(data) == blobs.put(data) == hashlib.sha256(data).hexdigest()
        assert blobs.get(hashlib.sha256(data).hexdigest()) == data
    with pytest.raises(Damaged, match="gone"):
        blobs.get("0" * 64)
    store.close()


def test_a_sweep_of_bytes_leaves_what_is_named_and_what_is_young(place):
    now = SimpleNamespace(value=1e9)
    store, blobs = kept(place, now=lambda: now.value)
    named, left = blobs.put(b"named"), blobs.put(b"nobody's")
    store.submit("ann", "m", named, 5)
    now.value += YOUNG + 1
    _age(place)
    young = blobs.put(b"young")
    again = blobs.put(b"named")
    blobs.sweep(store)
    assert blobs.get(named) == blobs.get(again) == b"named"
    assert blobs.get(young) == b"young"
    with pytest.raises(Damaged, match="gone"):
        blobs.get(left)
    store.close()


def test_a_file_that_changed_on_the_disk_is_no_result_and_is_healed(memory):
    folder = Path(tempfile.mkdtemp(dir=memory))
    _, blobs = kept(str(folder))
    digest = blobs.put(b"the answer")
    path = folder / "blobs" / digest[:2] / digest
    path.write_bytes(b"another one")
    with pytest.raises(Damaged, match="damaged"):
        blobs.get(digest)
    blobs.put(b"the answer")
    assert blobs.get(digest) == b"the answer"


def test_a_url_that_cannot_be_read_is_refused_at_once():
    pytest.importorskip("psycopg")
    with pytest.raises(InvalidSpec, match="jobs: expected a URL"):
        kept("postgresql://host:a port/")


def _age(place):
    for path in Path(place).glob("blobs/*/*") if "://" not in place else ():
        os.utime(path, (0, 0))
