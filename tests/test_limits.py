"""What is refused before anything is parsed, who is admitted, and in which order."""

from __future__ import annotations

import gzip
import threading
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from staged import bomb

from explainer_runtime.errors import InvalidSpec, Overloaded
from explainer_runtime.hosts.door.limits import TooLarge, inflate
from explainer_runtime.hosts.door.tokens import Tokens
from explainer_runtime.hosts.service.admission import Admission

# --- bodies -------------------------------------------------------------------------------------------


@given(st.binary(max_size=2000))
def test_inflating_undoes_gzip_up_to_the_limit(body):
    packed = gzip.compress(body)
    assert inflate(packed, len(body)) == body
    if body:
        with pytest.raises(TooLarge):
            inflate(packed, len(body) - 1)


def test_inflating_a_bomb_costs_no_memory():
    small = bomb(2**26)
    tracemalloc.start()
    with pytest.raises(TooLarge):
        inflate(small, 2**24)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 2**20  # the bomb itself, 65 kB, is copied as it is eaten up


GZIPPED = gzip.compress(b"x" * 99, mtime=0)  # no time: processes that share the tests name them alike


@pytest.mark.parametrize("broken", [b"not gzip", GZIPPED[:-9], GZIPPED * 2])
def test_what_is_not_one_whole_gzip_stream_is_refused(broken):
    with pytest.raises(ValueError, match="gzip"):
        inflate(broken, 1000)


# --- tokens -------------------------------------------------------------------------------------------


def test_tokens_admit_whoever_carries_one_and_follow_the_file(tmp_path):
    path = tmp_path / "tokens"
    path.write_text("first\n\nsecond\n")
    tokens = Tokens(path)
    assert tokens.admits("Bearer first")
    assert tokens.admits(b"bearer second")
    for stranger in (
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic first",
        "first",
        "Bearer firs",
        "Bearer first second",
    ):
        assert not tokens.admits(stranger)
    replacement = tmp_path / "new"  # as a cluster does it: another file takes the name
    replacement.write_text("third!")
    replacement.replace(path)
    assert tokens.admits("Bearer third!")
    assert not tokens.admits("Bearer first")
    path.unlink()
    assert not tokens.admits("Bearer third!")


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        (None, None, "No such file"),
        ("one\ntwo words\n", 0o600, "line 2 is no token"),
        ("# rotated by ops\n", 0o600, "line 1 is no token"),
        ("t\u00f6k\n", 0o600, "line 1 is no token"),
        ("fine\n", 0o622, "others may write to it"),
        ("fine\n", 0o660, "others may write to it"),
        ("x" * 2**20 + "\n", 0o600, "more than"),
    ],
)
def test_a_token_file_that_cannot_be_meant_is_refused_at_start(tmp_path, content, mode, said):
    path = tmp_path / "tokens"
    if content is not None:
        path.write_text(content)
        path.chmod(mode)
    with pytest.raises(InvalidSpec, match=f"token_file.*{said}"):
        Tokens(path)


def test_an_empty_token_file_refuses_everyone_until_it_has_a_token(tmp_path, caplog):
    path = tmp_path / "tokens"
    path.write_text("\n \n")
    tokens = Tokens(path)
    assert "everyone is refused" in caplog.text
    for stranger in (None, "Bearer", "Bearer ", "Bearer \n"):
        assert not tokens.admits(stranger)
    path.write_text("late\n")
    assert tokens.admits("Bearer late")


def test_who_may_write_to_the_file_is_looked_at_while_the_server_runs(tmp_path):
    path = tmp_path / "tokens"
    path.write_text("one\n")
    path.chmod(0o600)
    tokens = Tokens(path)
    assert tokens.admits("Bearer one")
    path.chmod(0o666)
    assert not tokens.admits("Bearer one")


def test_a_file_rewritten_in_place_is_read_again_at_once(tmp_path):
    path = tmp_path / "tokens"
    path.write_text("aaa\n")
    tokens = Tokens(path)
    for _ in range(50):  # of one size, within one tick of the clock of the file system
        path.write_text("bbb\n")
        assert not tokens.admits("Bearer aaa")
        path.write_text("aaa\n")
        assert not tokens.admits("Bearer bbb")


# --- admission ----------------------------------------------------------------------------------------


class Stage:
    """An admission of one thread that is busy until `open` is called, and the order of what came after."""

    def __init__(self, places=100, weight=1e9, patience=1e9):
        self.admission = Admission(1, places, weight, patience)
        self.done, self.futures = [], []
        self._free, started = threading.Event(), threading.Event()

        def occupy(waited):
            started.set()
            self._free.wait(timeout=60)

        self.futures.append(self.admission.submit(occupy, 1.0, "first"))
        assert started.wait(timeout=60)

    def ask(self, client, weight=1.0):
        self.futures.append(self.admission.submit(lambda waited: self.done.append(client), weight, client))
        return self.futures[-1]

    def open(self):
        self._free.set()
        for future in self.futures:
            if not future.cancelled():
                future.result(timeout=60)
        self.admission.close()
        return self.done


def test_clients_take_turns_however_much_they_ask():
    stage = Stage()
    for client in ["greedy"] * 6 + ["a", "b"]:
        stage.ask(client)
    assert stage.open()[:4].count("greedy") <= 2


def test_turns_are_weighed_by_cost():
    stage = Stage()
    for _ in range(4):
        stage.ask("dear", weight=10.0)
    for _ in range(20):
        stage.ask("cheap", weight=1.0)
    done = stage.open()
    assert abs(done[:11].count("cheap") - 10) <= 1


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.1, 10)), max_size=12))
def test_each_client_is_served_in_its_own_order_and_nothing_is_lost(asked):
    stage = Stage()
    seen = []
    for index, (client, weight) in enumerate(asked):
        work = lambda waited, index=index: seen.append(index)  # noqa: E731
        stage.futures.append(stage.admission.submit(work, weight, client))
    stage.open()
    assert sorted(seen) == list(range(len(asked)))
    for client in "abc":
        own = [index for index in seen if asked[index][0] == client]
        assert own == sorted(own)


def test_one_client_takes_half_of_the_places_and_leaves_the_others():
    stage = Stage(places=6)
    for _ in range(3):
        stage.ask("greedy")
    with pytest.raises(Overloaded):
        stage.ask("greedy")
    for _ in range(3):
        stage.ask("modest")
    with pytest.raises(Overloaded, match="too many"):
        stage.ask("late")
    assert sorted(stage.open()) == ["greedy"] * 3 + ["modest"] * 3


def test_weight_bounds_what_is_pending_but_never_refuses_the_first():
    stage = Stage(weight=10.0)
    stage.ask("a", weight=9.0)
    with pytest.raises(Overloaded, match="too much"):
        stage.ask("b", weight=0.1)
    stage.open()
    alone = Admission(1, 1, 10.0, 1e9)
    assert alone.submit(lambda waited: "done", 99.0).result(timeout=60) == "done"
    alone.close()


def test_what_would_wait_too_long_is_refused_with_a_time_to_come_back():
    stage = Stage(patience=1.0)
    stage.admission._learn(2.0)
    with pytest.raises(Overloaded, match="wait 2") as refusal:
        stage.ask("a")
    assert refusal.value.retry_after == 1
    stage.open()


def test_whoever_has_waited_as_long_as_promised_is_next():
    stage = Stage(patience=0.0)
    for client in ["a", "a", "b"]:
        stage.ask(client, weight=5.0)
    assert stage.open() == ["a", "a", "b"]


def test_whoever_leaves_the_queue_frees_its_place():
    stage = Stage(places=2)
    assert stage.ask("a").cancel()
    stage.ask("a")
    assert (stage.admission.running, stage.admission.waiting) == (1, 1)
    assert stage.open() == ["a"]


def test_failures_reach_whoever_asked():
    admission = Admission(1, 1, 1.0, 1.0)

    def fail(waited):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        admission.submit(fail).result(timeout=60)
    assert admission.run(lambda: 1).result(timeout=60) == 1
    admission.close()


def test_names_do_not_pile_up():
    admission = Admission(1, 10, 1e9, 1e9)
    for name in range(200):
        admission.submit(lambda waited: None, 1.0, str(name)).result(timeout=60)
    admission.close()
    admission._pool.shutdown()
    assert not admission._taken


def test_a_job_takes_a_free_thread_or_none():
    admission, go = Admission(2, 10, 1e9, 1e9), threading.Event()
    running = [admission.submit(lambda waited: go.wait(timeout=60), give_way=go.set) for _ in range(2)]
    with pytest.raises(Overloaded, match="all threads"):
        admission.submit(lambda waited: None, give_way=go.set)
    assert admission.free == 0
    assert admission.demand == 2  # whoever is refused nothing that they wait for needs no replica
    go.set()
    for future in running:
        future.result(timeout=60)
    admission.close()


def test_whoever_waits_makes_the_youngest_job_give_way_and_no_more_than_it_needs():
    admission = Admission(2, 0, 1e9, 1e9)
    left = [threading.Event(), threading.Event()]
    jobs = [admission.submit(lambda waited, e=e: e.wait(timeout=60), give_way=e.set) for e in left]
    assert admission.submit(lambda waited: "answered").result(timeout=60) == "answered"
    assert jobs[1].result(timeout=60)
    assert not left[0].is_set()
    left[0].set()
    jobs[0].result(timeout=60)
    admission.close()


def test_a_job_does_not_give_way_while_a_thread_is_free():
    admission, end = Admission(2, 0, 1e9, 1e9), threading.Event()
    job = admission.submit(lambda waited: end.wait(timeout=60), give_way=end.set)
    assert admission.submit(lambda waited: "answered").result(timeout=60) == "answered"
    assert not end.is_set()
    end.set()
    job.result(timeout=60)
    admission.close()
