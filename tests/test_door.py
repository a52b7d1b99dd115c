"""The door's parts by themselves: what is counted before it is parsed, and what is parsed in pieces."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import tracemalloc

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from explainer_runtime.hosts.door import documents, messages
from explainer_runtime.hosts.door.documents import Bounds
from explainer_runtime.hosts.door.interceptor import Arrivals
from explainer_runtime.hosts.door.limits import TooLarge
from explainer_runtime.hosts.door.room import NoRoom, Room
from explainer_runtime.predictors.remote import oip

WIDE = Bounds(depth=500, values=10**6, names=10**6)

# --- JSON ---------------------------------------------------------------------------------------------------

texts = st.text(alphabet='[]{}"\\a,:\n☃', max_size=60)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=60,
)


def depth(document):
    if isinstance(document, dict):
        document = list(document.values())
    return 1 + max(map(depth, document), default=0) if isinstance(document, list) else 0


def sizes(document):
    """Values and names of a document, counted by walking it."""
    if isinstance(document, dict):
        inner = [sizes(value) for value in document.values()]
        return 1 + sum(one[0] for one in inner), 1 + len(document) + sum(one[1] for one in inner)
    if isinstance(document, list):
        inner = [sizes(value) for value in document]
        return 1 + sum(one[0] for one in inner), sum(one[1] for one in inner)
    return 1, int(isinstance(document, str))


@pytest.fixture
def small_steps(monkeypatch):
    monkeypatch.setattr(documents, "_STEP", 40)


def read(body, bounds=WIDE):
    return documents.loads(body, documents.scan(body, bounds))


def listed(document):
    """The document, with lists where there are tuples."""
    if isinstance(document, dict):
        return {name: listed(value) for name, value in document.items()}
    return [*map(listed, document)] if isinstance(document, list | tuple) else document


@given(values, st.booleans(), st.sampled_from([None, 1]))
@settings(deadline=None)
def test_a_document_read_in_pieces_is_the_document(document, ascii, indent):
    body = json.dumps(document, ensure_ascii=ascii, indent=indent).encode()
    step, documents._STEP = documents._STEP, 40
    try:
        assert repr(listed(read(body))) == repr(orjson.loads(body))
    finally:
        documents._STEP = step


@given(values, st.data())
@settings(deadline=None)
def test_what_is_no_json_is_none_in_pieces_either(document, data):
    body = bytearray(json.dumps(document, ensure_ascii=False).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body)))
        body[at:at] = data.draw(
            st.sampled_from([b",", b"[", b"]", b"{", b"}", b'"', b":", b"\\", b" ", b"1"])
        )
    body = bytes(body)
    try:
        expected = repr(orjson.loads(body))
    except orjson.JSONDecodeError:
        expected = None
    step, documents._STEP = documents._STEP, 40
    try:
        found = repr(listed(read(body)))
    except ValueError:
        found = None
    finally:
        documents._STEP = step
    assert found == expected


@given(values)
def test_depth_values_and_names_are_what_walking_finds(document):
    body = json.dumps(document, ensure_ascii=False).encode()
    count, names = sizes(document)
    empty = body.count(b"[]") + body.count(b"{}")  # an empty container is counted as if it had one value
    exact = Bounds(depth(document), count + names + empty, names + body.count(b"\\"))
    documents.scan(body, exact)
    if depth(document):
        with pytest.raises(ValueError, match="levels of nesting"):
            documents.scan(body, exact._replace(depth=depth(document) - 1))
    if names > 1:
        with pytest.raises(ValueError, match=r"names, texts and objects|escapes"):
            documents.scan(body, exact._replace(names=names - 1))
    if count > 1:
        with pytest.raises(ValueError, match=r"at most .* values"):
            documents.scan(body, exact._replace(values=count - 1))


@pytest.mark.parametrize(
    "body",
    [b"", b"]]]", b'"[[[[', b"\xff[", b"[}", b"[1,2", b"[" * 9, b"[]" * 100_000, b"[1" * 99],
)
def test_what_does_not_pair_off_is_refused(body):
    with pytest.raises(ValueError, match=r"JSON|levels"):
        read(body, Bounds(120, 10**6, 10**6))


def test_counting_costs_no_more_than_it_may():
    body = b'{"inputs":[' + b"{}," * 10**6 + b"{}]}"
    tracemalloc.start()
    with pytest.raises(ValueError, match="names"):
        documents.scan(body, Bounds(32, 10**6, 10_000))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 4 * 2**20


@pytest.mark.parametrize("row", [b"[1,0.5,2]", b"[[1],[0.5]]", b"[]", b'["a",[]]', b"[1,[2,[3]]]"])
def test_rows_are_nothing_that_garbage_is_looked_for_in(row):
    document = read(b'{"data":[' + b",".join([row] * 20_000) + b"]}")
    for _ in range(3):  # a tuple is let be when those in it have been
        gc.collect()
    assert len(document["data"]) == 20_000
    assert not any(map(gc.is_tracked, document["data"]))


@given(
    st.recursive(
        st.integers(), lambda inner: st.lists(inner, max_size=99) | st.dictionaries(st.text(), inner)
    )
)
def test_of_a_scattered_document_no_long_list_is_left(document):
    documents.scatter(document)
    levels = [document]
    while levels:
        one = levels.pop()
        assert not isinstance(one, list) or len(one) < 64
        levels += one if isinstance(one, list) else one.values() if isinstance(one, dict) else ()


# --- gRPC ---------------------------------------------------------------------------------------------------


@st.composite
def requests(draw):
    request = oip.ModelInferRequest(model_name=draw(st.text(max_size=5)), id=draw(st.text(max_size=5)))
    for _ in range(draw(st.integers(0, 4))):
        tensor = request.inputs.add(name=draw(st.text(max_size=3)), datatype="FP32")
        tensor.shape.extend(draw(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5)))
        tensor.contents.fp32_contents.extend(draw(st.lists(st.floats(width=32), max_size=20)))
        tensor.contents.int64_contents.extend(draw(st.lists(st.integers(0, 2**40), max_size=20)))
        tensor.contents.bytes_contents.extend(draw(st.lists(st.binary(max_size=3), max_size=3)))
        tensor.parameters["a"].string_param = draw(st.text(max_size=5))
    for _ in range(draw(st.integers(0, 3))):
        request.outputs.add(name="found")
    request.raw_input_contents.extend(draw(st.lists(st.binary(max_size=30), max_size=3)))
    return request


@given(requests())
def test_a_request_has_no_more_than_is_counted(request):
    made = 0
    for tensor in request.inputs:
        made += 1 + len(tensor.shape) + len(tensor.parameters)
        for name in ("fp32_contents", "int64_contents", "bytes_contents"):
            made += len(getattr(tensor.contents, name))
    made += len(request.outputs) + len(request.raw_input_contents)
    counted = messages.count(request.SerializeToString(), WIDE)
    assert counted >= made
    assert counted <= 20 + 12 * made + 10 * sum(len(one.contents.int64_contents) for one in request.inputs)


@given(st.binary(max_size=200))
def test_any_bytes_are_counted_or_refused_and_what_is_counted_is_parsed_alike(message):
    try:
        counted = messages.count(message, WIDE)
    except ValueError:
        return
    assert counted <= 2 * len(message) + 1


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (b"\x2a\x00" * 20, "at most 10 fields"),
        (b"\x2a\x04\x2a\x02\x42\x00" * 20, "at most 10 fields"),
        (b"\x2a\x3a\x2a\x38\x32\x36" + bytes(54), "at most 10 values"),
        (b"\x2a\x16\x1a\x14" + b"\x01" * 20, "at most 10 values"),  # a shape
        (b"\x2a\x80", "expected a V2 request"),
        (b"\xff" * 10, "expected a V2 request"),
        (b"\x2b", "expected a V2 request"),
        (b"\x02\x00", "expected a V2 request"),
    ],
)
def test_messages_of_too_many_parts_are_refused_before_they_are_parsed(message, said):
    with pytest.raises(ValueError, match=said):
        messages.count(message, Bounds(32, 10, 10))


# --- room ---------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60)), max_size=40))
def test_room_is_never_overdrawn_and_comes_back(wishes):
    room = Room(100)
    held = [0] * 4
    for who, more in wishes:
        with room.share() as share:
            try:
                room.take(more)
                held[who] += more
            except NoRoom:
                assert room.held + more > 100
            assert share.held == 0
        assert room.held == sum(held) <= 100
    with room.share() as share, pytest.raises(TooLarge):
        share.take(101)
    room.take(-sum(held))
    assert room.held == 0


def test_shares_are_given_back_whatever_happens():
    room = Room(10)

    def fail():
        with room.share() as share:
            share.take(10)
            with pytest.raises(NoRoom), room.share() as other:
                other.take(1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert room.held == 0


def test_room_is_kept_by_threads():
    room = Room(10**6)

    def work():
        for _ in range(2000):
            with room.share() as share:
                share.take(7)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert room.held == 0


# --- messages on their way --------------------------------------------------------------------------------


def test_of_slow_messages_the_one_that_takes_longest_is_given_up(monkeypatch):
    monkeypatch.setattr("explainer_runtime.hosts.door.interceptor._SLOW", 0.01)

    async def never():
        await asyncio.Event().wait()
        yield b""

    async def at_once():
        yield b"here"

    async def three():
        arrivals = Arrivals(2)
        waiting = [asyncio.create_task(arrivals.next(never(), 60)) for _ in range(3)]
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        here = await arrivals.next(at_once(), 60)
        for task in waiting[1:]:
            task.cancel()
        return [task is waiting[0] and isinstance(task.exception(), TimeoutError) for task in done], here

    given_up, here = asyncio.run(three())
    assert given_up == [True]
    assert here == b"here"


def test_a_message_that_does_not_come_in_time_is_not_waited_for(monkeypatch):
    monkeypatch.setattr("explainer_runtime.hosts.door.interceptor._SLOW", 0.01)

    async def never():
        await asyncio.Event().wait()
        yield b""

    with pytest.raises(TimeoutError):
        asyncio.run(Arrivals(2).next(never(), 0.05))
