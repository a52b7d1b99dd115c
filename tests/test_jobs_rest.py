"""Explanations that outlive their connection, asked of a real server over REST."""

from __future__ import annotations

import io
import json
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from staged import IMAGE, Held, anchor, explainer, metrics, model, serving
from typer.testing import CliRunner

from explainer_runtime.cli import app
from explainer_runtime.hosts.door.again import Request
from explainer_runtime.hosts.door.prefer import Preference, preferred

ASYNC = {"prefer": "respond-async"}
ROWS = IMAGE.tolist()
INPUT = {"name": "image", "shape": [1, 8, 8, 1], "datatype": "FP32", "data": IMAGE.ravel().tolist()}
BODY = {"inputs": [INPUT], "id": "1"}
EXPLAIN = "/v2/models/boots/explain"
JOBS = "/v2/models/boots/explanations"
FIRST, SECOND = ({"authorization": f"Bearer {word}"} for word in ("first", "second"))
PATIENCE = 120.0


@pytest.fixture(scope="module")
def held():
    return Held()


@pytest.fixture(scope="module")
def server(held, tmp_path_factory):
    """A server with two tokens and one thread, whose model can be held."""
    folder = tmp_path_factory.mktemp("jobs")
    tokens = folder / "tokens"
    tokens.write_text("first\nsecond\n")
    with model(held) as predictor:
        models = [explainer(anchor(folder), "boots", predictor, threads=1)]
        jobs = {"where": str(folder / "jobs")}
        with serving(models, folder / "server", jobs=jobs, token_file=str(tokens)) as (server, _):
            yield server


@pytest.fixture(scope="module")
def client(server):
    with httpx.Client(base_url=server.rest(""), headers=FIRST, timeout=PATIENCE) as client:
        client.post(EXPLAIN, json=BODY)  # the model is met, which costs rows once
        yield client


@pytest.fixture(autouse=True)
def _nothing_left(client):
    """Each test leaves no job of either token."""
    yield
    until = time.monotonic() + PATIENCE
    for token in (FIRST, SECOND):
        while jobs := client.get(f"{JOBS}?limit=500", headers=token).json()["explanations"]:
            assert time.monotonic() < until, jobs
            for job in jobs:
                client.delete(job["links"]["self"], headers=token)


def ended(client, place, **headers):
    """A job when it has ended."""
    until = time.monotonic() + PATIENCE
    while (job := client.get(place, headers=headers).json())["state"] in ("queued", "running"):
        assert time.monotonic() < until, job
        time.sleep(0.02)
    return job


def submitted(client, path=EXPLAIN, body=BODY, **headers):
    answer = client.post(path, json=body, headers={**ASYNC, **headers})
    assert answer.status_code == 202, answer.text
    return answer.headers["location"]


def told(answer):
    """What was answered, but for the seconds that it took."""
    document = answer.json()
    document.get("parameters", {}).pop("predictor_seconds", None)
    return answer.status_code, answer.headers["content-type"], document


def test_a_job_is_accepted_with_its_place(client):
    answer = client.post(EXPLAIN, json=BODY, headers=ASYNC)
    job, place = answer.json(), answer.headers["location"]
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, "respond-async")
    assert int(answer.headers["retry-after"]) > 0
    assert (job["links"]["self"], job["links"]["result"]) == (place, f"{place}/result")
    assert (job["state"], job["model"], place) == ("queued", "boots", f"{JOBS}/{job['id']}")
    done = ended(client, place)
    assert (done["state"], done["fraction"], done["status"], done["attempts"]) == ("done", 1.0, 200, 1)
    assert done["created"] <= done["ended"] < done["expires"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (EXPLAIN, BODY),
        ("/v2/models/boots/infer", {**BODY, "outputs": [{"name": "anchor"}]}),
        ("/v1/models/boots:explain", {"instances": ROWS, "parameters": {"seed": 3}}),
        ("/explain", {"data": {"ndarray": ROWS}}),
        ("/api/v1.0/explain", BODY),
    ],
)
def test_a_job_gives_what_waiting_gives(client, path, body):
    waited = client.post(path, json=body)
    result = client.get(f"{ended(client, submitted(client, path, body))['links']['self']}/result")
    assert waited.status_code == 200
    assert told(result) == told(waited)
    assert result.headers["x-seldon-alibi-method"] == waited.headers["x-seldon-alibi-method"]
    if "parameters" not in waited.json():  # nothing in it depends on the clock
        assert result.content == waited.content


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": []},
        {"inputs": [{**INPUT, "shape": [1, 8, 9, 1]}]},
        {"inputs": [{**INPUT, "data": [2.0] * 64}]},
        {**BODY, "parameters": {"explain_parameters": {"threshold": 7}}},
        {**BODY, "parameters": {"explain_parameters": {"sed": 7}}},
        {**BODY, "outputs": [{"name": "nothing"}]},
        {**BODY, "id": 5},
    ],
)
def test_bad_input_is_refused_at_once_by_the_words_of_the_synchronous_call(client, body):
    waited, refused = client.post(EXPLAIN, json=body), client.post(EXPLAIN, json=body, headers=ASYNC)
    assert (refused.status_code, refused.content) == (waited.status_code, waited.content)
    assert refused.status_code == 422
    assert "preference-applied" not in refused.headers
    assert client.get(JOBS).json() == {"explanations": []}


def test_who_waits_long_enough_gets_the_answer_itself(client):
    answer = client.post(EXPLAIN, json=BODY, headers={"prefer": "Respond-Async, wait=60"})
    assert answer.headers["preference-applied"] == "respond-async, wait=60"
    assert told(answer) == told(client.post(EXPLAIN, json=BODY))


def test_who_does_not_wait_long_enough_gets_a_place(client, held):
    with held.hold():
        answer = client.post(EXPLAIN, json=BODY, headers={"prefer": "respond-async;wait=9, wait=1"})
        assert answer.status_code == 202
        assert answer.headers["preference-applied"] == "respond-async, wait=1"
        result = client.get(f"{answer.headers['location']}/result")
        assert result.status_code == 404
        assert result.json()["error"].startswith("the explanation is ")
    assert ended(client, answer.headers["location"])["state"] == "done"


def test_other_preferences_change_nothing(client):
    answer = client.post(EXPLAIN, json=BODY, headers={"prefer": "return=minimal, wait=5"})
    assert answer.status_code == 200
    assert "preference-applied" not in answer.headers


def test_a_waiting_job_and_a_running_one_can_be_cancelled(client, held):
    with held.hold():
        running = submitted(client)
        assert held.entered.acquire(timeout=PATIENCE)
        waiting = submitted(client, body={**BODY, "id": "2"})
        for place in (waiting, running):
            assert client.delete(place).status_code == 204
            assert ended(client, place)["state"] == "cancelled"
    for place in (waiting, running):
        error = {"error": "the explanation is cancelled, and has no result"}
        assert client.get(f"{place}/result").json() == error
        assert client.delete(place).status_code == 204
        assert client.get(place).status_code == 404


def test_a_job_is_not_there_for_another_token(client):
    place = submitted(client)
    ended(client, place)
    for ask in (client.get(place, headers=SECOND), client.get(f"{place}/result", headers=SECOND)):
        assert ask.status_code == 404
    assert client.delete(place, headers=SECOND).status_code == 404
    assert client.get(JOBS, headers=SECOND).json() == {"explanations": []}
    assert client.get(place, headers={"authorization": "Bearer third"}).status_code == 401
    assert client.get(place.replace("boots", "shoes")).status_code == 404
    assert client.get(place).json()["state"] == "done"


def test_one_key_is_one_job(client):
    key = {"idempotency-key": "k"}
    first = submitted(client, **key)
    assert submitted(client, **key) == first
    assert submitted(client, **key, **SECOND) != first
    other = client.post(EXPLAIN, json={**BODY, "id": "2"}, headers={**ASYNC, **key})
    assert other.status_code == 422
    assert "idempotency-key" in other.json()["error"]
    assert len(client.get(JOBS).json()["explanations"]) == 1


def test_a_list_comes_in_pages_the_newest_first(client):
    places = [submitted(client, body={**BODY, "id": str(index)}) for index in range(5)]
    for place in places:
        ended(client, place)
    seen, page = [], f"{JOBS}?limit=2&state=done"
    while page:
        document = client.get(page).json()
        seen.append([job["links"]["self"] for job in document["explanations"]])
        page = document.get("next")
    assert seen == [places[:2:-1], places[2:0:-1], places[:1]]
    assert client.get(f"{JOBS}?state=failed").json() == {"explanations": []}


@pytest.mark.parametrize(
    "query", ["state=gone", "limit=0", "limit=501", "limit=x", "limit=-1", "limit=0000000011", "after=x"]
)
def test_a_list_that_is_none_is_refused(client, query):
    answer = client.get(f"{JOBS}?{query}")
    assert answer.status_code == 422
    assert answer.json()["error"].startswith(f"{query.partition('=')[0]}: expected ")


def test_a_result_has_a_tag_by_which_it_is_not_sent_twice(client):
    place = submitted(client)
    ended(client, place)
    result = client.get(f"{place}/result", headers={"accept-encoding": "identity"})
    tag = result.headers["etag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = client.get(f"{place}/result", headers={"if-none-match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert client.get(f"{place}/result", headers={"if-none-match": '"other"'}).content == result.content
    packed = client.get(f"{place}/result", headers={"accept-encoding": "gzip"})
    assert packed.headers["etag"] == f"W/{tag}"
    assert packed.content == result.content


@pytest.mark.parametrize(
    ("method", "path"), [("POST", f"{JOBS}/x"), ("DELETE", JOBS), ("PUT", f"{JOBS}/x/result")]
)
def test_a_method_that_a_place_has_not_is_refused(client, method, path):
    answer = client.request(method, path)
    assert answer.status_code == 405
    assert "GET" in answer.headers["allow"]


def test_results_that_are_read_slowly_are_held_to_what_all_may_hold(client, server):
    place = submitted(client)
    ended(client, place)
    with sqlite3.connect(server.log.parent.parent / "jobs" / "jobs.sqlite", timeout=PATIENCE) as database:
        database.execute("update explanations set bytes = 1000000000")
    result = client.get(f"{place}/result")
    assert result.status_code == 422
    assert "expected what takes at most 268435456 bytes" in result.json()["error"]


@pytest.mark.parametrize(
    ("path", "body"), [(EXPLAIN, BODY), ("/v2/models/boots/infer", BODY), ("/explain", {"instances": ROWS})]
)
def test_a_result_is_drawn_for_who_likes_pictures_better(client, path, body):
    picture = client.post(path.replace("infer", "explain"), json=body, headers={"accept": "image/png"})
    place = submitted(client, path, body)
    ended(client, place)
    document = client.get(f"{place}/result")
    drawn = client.get(f"{place}/result", headers={"accept": "image/png"})
    assert (drawn.status_code, drawn.headers["content-type"]) == (200, "image/png")
    assert drawn.content == picture.content
    assert drawn.headers["etag"] != document.headers["etag"]
    again = {"accept": "image/png", "if-none-match": drawn.headers["etag"]}
    assert client.get(f"{place}/result", headers=again).status_code == 304
    page = client.get(f"{place}/result", headers={"accept": "text/html,*/*;q=0.8"})
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.text.startswith("<!doctype html>")
    for other in ("image/gif", "text/event-stream"):
        refused = client.get(f"{place}/result", headers={"accept": other})
        assert refused.status_code == 406
        assert "application/json" in refused.json()["error"]


def test_a_picture_is_a_job_and_its_result_what_was_accepted(client):
    file = io.BytesIO()
    Image.fromarray((IMAGE[0, ..., 0] * 255).round().astype(np.uint8)).save(file, "png")
    headers = {"content-type": "image/png", "accept": "image/png"}

    def post(query, **more):
        return client.post(f"{EXPLAIN}?{query}", content=file.getvalue(), headers={**headers, **more})

    accepted = post("seed=3", **ASYNC)
    assert accepted.status_code == 202, accepted.text
    place = accepted.headers["location"]
    assert ended(client, place)["state"] == "done"
    result = client.get(f"{place}/result")
    assert (result.headers["content-type"], result.content) == ("image/png", post("seed=3").content)
    assert client.get(f"{place}/result", headers={"accept": "application/json"}).status_code == 406
    refused, waited = post("sed=3", **ASYNC), post("sed=3")
    assert (refused.status_code, refused.content) == (422, waited.content)


def test_an_answer_that_leaves_something_out_is_not_drawn(client):
    place = submitted(client, body={**BODY, "outputs": [{"name": "anchor"}]})
    ended(client, place)
    assert client.get(f"{place}/result", headers={"accept": "image/png"}).status_code == 406


def test_an_answer_of_another_artifact_is_not_drawn_by_this_one(client, server):
    place = submitted(client)
    ended(client, place)
    with sqlite3.connect(server.log.parent.parent / "jobs" / "jobs.sqlite", timeout=PATIENCE) as database:
        said = ('":artifact","', '":artifact","0')
        database.execute("update explanations set headers = replace(headers, ?, ?)", said)
    result = client.get(f"{place}/result")
    assert (result.status_code, ":artifact" in result.headers) == (200, False)
    assert client.get(f"{place}/result", headers={"accept": "text/html"}).status_code == 406


def test_the_openapi_document_knows_the_places_of_jobs(client):
    document = client.get("/v2/docs/dataplane.json").json()
    place = JOBS.replace("boots", "{model_name}")
    known = {
        path: sorted(set(item) - {"parameters"}) for path, item in document["paths"].items() if place in path
    }
    assert known == {place: ["get"], f"{place}/{{id}}": ["delete", "get"], f"{place}/{{id}}/result": ["get"]}


def test_events_tell_of_a_job_until_it_has_ended(client, held):
    with held.hold():
        place = submitted(client)
        assert held.entered.acquire(timeout=PATIENCE)
        with client.stream("GET", place, headers={"accept": "text/event-stream"}) as stream:
            assert stream.headers["content-type"] == "text/event-stream"
            lines = stream.iter_lines()
            first = json.loads(next(lines).removeprefix("data: "))
            held.release()
            events = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    assert first["state"] in ("queued", "running")
    assert events[-1] == client.get(place).json()
    assert [event["fraction"] for event in events] == sorted(event["fraction"] for event in events)
    with client.stream("GET", place, headers={"accept": "text/event-stream"}) as stream:
        assert [json.loads(line[6:]) for line in stream.iter_lines() if line] == [events[-1]]


def test_a_job_gives_way_to_who_waits_and_is_done_after(client, server, held):
    gave_way = 'explainer_requests_total{code="499",method="anchor_image",model="boots"}'
    before = metrics(server).get(gave_way, 0)
    with ThreadPoolExecutor(1) as pool, held.hold():
        place = submitted(client)
        assert held.entered.acquire(timeout=PATIENCE)
        # There is one thread, and the job has it: who waits gets it all the same.
        waiting = pool.submit(client.post, EXPLAIN, json={**BODY, "id": "2"})
        until = time.monotonic() + PATIENCE
        while not metrics(server)['explainer_waiting{model="boots"}']:
            assert time.monotonic() < until
        held.release()
        assert waiting.result().status_code == 200
    assert metrics(server)[gave_way] > before
    job = ended(client, place)
    assert (job["state"], job["attempts"]) == ("done", 1)


def test_what_has_expired_is_forgotten(client, server):
    place = submitted(client)
    ended(client, place)
    with sqlite3.connect(server.log.parent.parent / "jobs" / "jobs.sqlite", timeout=PATIENCE) as database:
        database.execute("update explanations set expires = 0")
    until = time.monotonic() + PATIENCE
    while client.get(place).status_code != 404:
        assert time.monotonic() < until
        time.sleep(0.1)
    assert client.get(f"{place}/result").status_code == 404


def test_preferences_are_read_as_rfc_7240_says():
    assert preferred([]) == Preference()
    assert preferred(["respond-async"]) == Preference(True)
    assert preferred(["RESPOND-ASYNC, WAIT=10"]) == Preference(True, 10)
    assert preferred(["foo; bar", 'wait="7"', 'Respond-Async; x="a, b"; y']) == Preference(True, 7)
    assert preferred(["wait = 3,respond-async", "wait=5"]) == Preference(True, 3)  # the first counts
    assert preferred(["return=minimal; wait=3"]) == Preference()
    assert preferred(["respond-async, wait=-1"]) == preferred(["respond-async, wait=²"]) == Preference(True)
    assert preferred(["respond-async, wait=86400"]).wait == 60  # a connection is not kept for a day


@given(st.lists(st.text('respond-async,wait="; \\5', max_size=30), max_size=3))
def test_no_preference_is_an_error(values):
    preferred(values)


headers = st.lists(st.tuples(st.sampled_from(["accept", "content-type"]), st.text(alphabet="abc/;=,* ")))


@given(st.text(), st.text(alphabet="abc=&%"), headers, st.binary())
def test_what_is_written_down_is_read_again(path, query, headers, body):
    request = Request(path, query, headers, body)
    assert Request.loads(request.dumps()) == request


def test_the_command_line_asks_for_a_job_and_waits_for_it(client, server, tmp_path, monkeypatch):
    monkeypatch.setenv("EXPLAINER_RUNTIME_TOKEN", "first")
    address, folder = server.rest("/boots"), server.log.parent.parent
    np.save(tmp_path / "x.npy", IMAGE)

    def run(*words, status=0):
        done = CliRunner().invoke(app, [*words, "--server", address, "--json"])
        assert done.exit_code == status, done.output
        return json.loads(done.stdout)

    asking = ["explain", str(folder / "anchor"), "--input", str(tmp_path / "x.npy"), "--async"]
    job = run(*asking, "--option", "seed=3")
    assert job["state"] == "queued"
    out = tmp_path / "answer.json"
    assert run("jobs", "wait", job["id"], "--out", str(out))["state"] == "done"
    assert out.read_bytes() == client.get(job["links"]["result"]).content
    assert json.loads(json.loads(out.read_bytes())["outputs"][0]["data"][0])["meta"]["spec"]["seed"] == 3
    assert run("jobs", "show", job["id"])["state"] == "done"
    assert [one["id"] for one in run("jobs", "list", "--state", "done")["explanations"]] == [job["id"]]
    assert run("jobs", "cancel", job["id"]) == {"id": job["id"]}
    assert "no explanation" in run("jobs", "show", job["id"], status=2)["error"]
    job = run(*asking)
    for command in (["list"], ["show", job["id"]]):  # an id has to be copied, and a terminal has 80 columns
        words = CliRunner(env={"COLUMNS": "80"}).invoke(app, ["jobs", *command, "--server", address])
        assert words.exit_code == 0, words.output
        assert job["id"] in words.output.split()


@pytest.mark.parametrize("more", [[], ["--server", "http://h/boots", "--out", "x.json"]])
def test_what_does_not_go_with_a_job_is_refused(server, tmp_path, more):
    np.save(tmp_path / "x.npy", IMAGE)
    words = [
        "explain",
        str(server.log.parent.parent / "anchor"),
        "--input",
        str(tmp_path / "x.npy"),
        "--async",
    ]
    done = CliRunner().invoke(app, [*words, *more])
    assert done.exit_code == 2
    assert "async: expected " in done.output
