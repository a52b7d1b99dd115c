"""Kept answers: the same answer to the same question, and never one model's for another."""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import numpy as np
import pytest
from oip_servers import Model, Output, RestServer
from servers import free_ports, running, start, v2_input
from toys import SHAPE, graph, rowwise, weights
from verified import CONTRACT, METHODS

from explainer_runtime import artifact
from explainer_runtime.cache import Cache, of
from explainer_runtime.errors import InvalidInput, InvalidOption, InvalidSpec
from explainer_runtime.explainers import fit, prepare
from explainer_runtime.explanation import Cost
from explainer_runtime.hosts.service.audit import result_of
from explainer_runtime.predictors import CallablePredictor
from explainer_runtime.spec import Attribution, Grid, Limits, ModelContract, Neighbours, Region

MODEL, OTHER = rowwise(weights()), rowwise(weights(7))
X = np.random.default_rng(0).uniform(-1, 1, (60, *SHAPE)).astype(np.float32)
CELLS = Grid(rows=2, columns=2)
SPECS = {
    **METHODS,
    "neighbours": Neighbours(),
    "attribution": Attribution(segmentation=CELLS),
    "region": Region(segmentation=CELLS, quality=True, also=("attribution", "neighbours")),
}


class Exchanged:
    """A model that may become another one under the same address, and counts what it is asked."""

    def __init__(self, now=MODEL) -> None:
        self.now, self.rows, self.calls = now, 0, 0

    def __call__(self, x):
        self.rows, self.calls = self.rows + len(x), self.calls + 1
        return self.now(x)


def fitted(spec=METHODS["anchor_image"], predictor=MODEL):
    return fit(spec, X, predictor=predictor, inputs=CONTRACT)


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "kept")


@pytest.fixture
def model():
    return Exchanged()


@pytest.fixture
def explain(cache, model):
    """Asks the cache, before an anchor."""
    prepared = prepare(fitted(), model)

    def ask(x=X[:1], options=None, artifact="0" * 64, **how):
        return cache.explain(prepared, artifact, x, options, **how)

    return ask


def cached(answer) -> bool:
    return answer.meta.get("cached", False)


def document(response) -> dict:
    """The explanation in a V2 answer."""
    (text,) = (one["data"][0] for one in response.json()["outputs"] if one["name"] == "explanation")
    return json.loads(text)


def files(cache) -> list:
    return [path for path in cache.folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("kind", SPECS)
def test_a_kept_answer_is_the_first_in_every_byte_but_its_cost(cache, kind):
    prepared = prepare(fitted(SPECS[kind]), MODEL)
    plain = prepared(X[:2])
    first, again = (cache.explain(prepared, "a", X[:2]) for _ in range(2))
    assert not cached(first)
    assert again.meta["cached"] is True
    for name, array in first.arrays.items():
        assert (again[name].dtype, again[name].shape) == (array.dtype, array.shape)
    bare = replace(
        again, meta={name: one for name, one in again.meta.items() if name != "cached"}, cost=Cost()
    )
    assert bare.to_json() == replace(first, cost=Cost()).to_json() == replace(plain, cost=Cost()).to_json()
    assert bare.to_json(short=True) == replace(first, cost=Cost()).to_json(short=True)
    assert result_of(again) == result_of(plain)


def test_a_model_in_this_process_is_asked_nothing_again(cache):
    prepared = prepare(fitted(predictor=graph(weights())), graph(weights()))
    assert cache.explain(prepared, "a", X[:1]).cost.rows
    again = cache.explain(prepared, "a", X[:1])
    assert cached(again)
    assert again.cost == Cost()
    other = prepare(prepared.fitted, graph(weights(7)))
    assert not cached(cache.explain(other, "a", X[:1]))


def test_any_other_is_asked_once_about_these_rows_and_those_that_were_kept(explain, model):
    model.rows = model.calls = 0
    first = explain(X[:3])
    assert first.cost.rows == model.rows
    before = model.rows, model.calls
    again = explain(X[:3])
    assert (model.rows - before[0], model.calls - before[1]) == (again.cost.rows, again.cost.calls) == (7, 1)


def test_a_question_that_differs_in_anything_is_another(explain):
    explain()
    nudged = X[:1].copy()
    nudged[0, 0, 0] = np.nextafter(nudged[0, 0, 0], 2)
    assert not cached(explain(nudged))
    assert not cached(explain(X[:2]))
    assert not cached(explain(X[1:2]))
    assert not cached(explain(options={"seed": 1}))
    assert not cached(explain(options={"threshold": 0.9}))
    assert not cached(explain(artifact="1" * 64))
    assert cached(explain())
    assert cached(explain(options={"seed": 0, "max_seconds": 20.0}, limits=Limits(max_rows=5000)))


def test_another_model_under_the_same_address_gives_its_own_answers(explain, model):
    one = explain()
    model.now = OTHER
    other = explain()
    assert not cached(other)
    assert not np.array_equal(one["original_proba"], other["original_proba"])
    assert cached(explain())
    model.now = MODEL
    back = explain()
    assert cached(back)
    np.testing.assert_array_equal(back["original_proba"], one["original_proba"])


def test_a_model_that_differs_by_one_bit_of_one_row_is_another(explain, model):
    explain()

    def nudged(x):
        scores = MODEL(x)
        scores[0] = np.nextafter(scores[0], 1)
        return scores

    model.now = nudged
    assert not cached(explain())


def test_behind_one_address_an_answer_of_a_second_model_is_not_kept_as_the_firsts(cache, model):
    prepared = prepare(fitted(Neighbours()), model)
    turn = []

    def replicas(x):  # the first call of each explanation goes to one, the others to another
        turn.append(len(x))
        return (MODEL if len(turn) == 1 else OTHER)(x)

    model.now = replicas
    answer = cache.explain(prepared, "a", X[:1])
    np.testing.assert_allclose(answer["original_proba"], OTHER(X[:1]), atol=1e-6)
    assert not files(cache)
    model.now = MODEL
    assert not cached(cache.explain(prepared, "a", X[:1]))


@pytest.mark.parametrize(
    "contract",
    [ModelContract(canary=None), ModelContract(output="labels", classes=3)],
    ids=["by chance", "labels"],
)
def test_models_that_cannot_be_told_apart_are_asked_each_time(cache, contract):
    def rule(x):
        return MODEL(x).argmax(axis=1) if contract.output == "labels" else MODEL(x)

    predictor = CallablePredictor(rule, contract)
    prepared = prepare(fitted(predictor=predictor), predictor)
    for _ in range(2):
        assert not cached(cache.explain(prepared, "a", X[:1]))
    assert not files(cache)


def test_of_an_explainer_that_knows_no_model_nothing_is_kept(cache, model):
    prepared = prepare(fitted(predictor=None), model)
    for _ in range(2):
        assert not cached(cache.explain(prepared, "a", X[:1]))
    assert not files(cache)


@pytest.mark.parametrize("kind", SPECS)
def test_what_a_limit_has_cut_is_not_kept(cache, kind):
    prepared = prepare(fitted(SPECS[kind]), MODEL)
    spent = prepared(X[:1]).cost.rows
    for rows in range(6, 6 + spent, max(1, spent // 8)):
        answer = cache.explain(prepared, "a", X[:1], {"max_rows": rows})
        assert (len(files(cache)) > 0) == (not answer.cost.cut), rows
        if not answer.cost.cut:
            break
    whole = prepared(X[:1])
    assert not whole.cost.cut
    assert result_of(cache.explain(prepared, "a", X[:1])) == result_of(whole)


def test_questions_that_are_wrong_are_refused_before_the_model_is_asked(explain, model):
    model.rows = 0
    with pytest.raises(InvalidInput):
        explain(X[0])
    with pytest.raises(InvalidOption):
        explain(options={"sesame": 1})
    assert model.rows == 0


def test_a_damaged_file_is_as_if_it_were_not_there(explain, cache):
    first = explain()
    (path,) = files(cache)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [b"", whole[:31], whole[:-1], whole + b"\0", whole[32:]]
    places = [*range(40), *rng.integers(0, len(whole), 40).tolist()]
    damaged += [whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :] for place in places]
    for data in damaged:
        path.write_bytes(data)
        answer = explain()
        assert not cached(answer)
        assert result_of(answer) == result_of(first)
        assert path.read_bytes() == whole


def test_an_answer_under_the_name_of_another_is_not_given(explain, cache):
    explain()
    (one,) = files(cache)
    explain(X[1:2])
    (two,) = set(files(cache)) - {one}
    two.write_bytes(one.read_bytes())
    assert not cached(explain(X[1:2]))


def test_the_folder_keeps_its_size_and_what_was_used_last(tmp_path, model):
    prepared = prepare(fitted(), model)
    probe = Cache(tmp_path / "probe")
    probe.explain(prepared, "a", X[:1])
    size = files(probe)[0].stat().st_size
    cache = Cache(tmp_path / "kept", 40 * size)
    order = []
    for turn in range(60):
        cache.explain(prepared, "a", X[turn, None])
        (new,) = set(files(cache)) - set(order)
        order.append(new)
        os.utime(new, (turn, turn))  # clocks of file systems are coarse
        os.utime(order[0], (turn, turn))
        assert sum(path.stat().st_size for path in files(cache)) <= cache.most
    left = [turn for turn, path in enumerate(order) if path.exists()]
    assert left[0] == 0
    assert left[1:] == list(range(60 - len(left) + 1, 60))
    assert len(left) >= 30
    assert cached(cache.explain(prepared, "a", X[:1]))
    assert order[0].stat().st_mtime > 60  # it was used now


def test_what_is_no_answer_stays_in_the_folder(tmp_path, model):
    prepared, theirs = prepare(fitted(), model), tmp_path / "kept" / "letters"
    theirs.mkdir(parents=True)
    for path in (theirs / "one", theirs.parent / ("a" * 64)):
        path.write_bytes(b"1" * 10**6)
        os.utime(path, (1, 1))
    cache = Cache(theirs.parent, 5 * 10**5)
    for turn in range(3):
        cache.explain(prepared, "a", X[turn, None])
    assert {path.stat().st_size for path in (theirs / "one", theirs.parent / ("a" * 64))} == {10**6}
    assert len(files(cache)) == 5


def test_many_at_once_share_a_folder(cache, explain):
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda turn: explain(X[turn % 4, None]), range(40)))
    for turn, answer in enumerate(answers):
        assert result_of(answer) == result_of(answers[turn % 4])
    assert len(files(cache)) == 4


def test_what_cannot_be_kept_is_answered_all_the_same(explain, cache, caplog):
    cache.folder.joinpath("in the way").write_text("")
    first = explain()
    (path,) = {path for path in files(cache) if path.name != "in the way"}
    path.unlink()
    path.parent.rmdir()
    path.parent.write_text("a file where a folder should be")
    assert result_of(explain()) == result_of(first)
    assert "an answer is not kept" in caplog.text


@pytest.mark.parametrize("place", ["", ":", "/tmp/x:", "/tmp/x:many", "/tmp/x:0", "/tmp/x:-1GB", "/dev/null"])
def test_a_place_that_cannot_be_is_refused(place):
    with pytest.raises(InvalidSpec, match="cache: "):
        of(place)


def test_a_place_may_say_its_size(tmp_path):
    assert of(None) is None
    assert of(str(tmp_path / "a")).most == 10**9
    assert of(f"{tmp_path}/b:20GB").most == 20 * 10**9
    assert of(f"{tmp_path}/c:1.5k").most == 1500
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o700


def test_a_server_says_what_it_has_kept(tmp_path):
    path = artifact.save(fitted(), tmp_path / "one")
    answering = Model(respond=lambda x: [Output("scores", "FP32", (len(x), 3), MODEL(x))])
    with RestServer(answering) as model:
        url, ports = f"http://127.0.0.1:{model.port}/cnn", free_ports()
        words = [path, "--name", "m", "--predictor", url, "--cache", f"{tmp_path / 'kept'}:1MB"]
        words += ["--http-port", ports.http, "--grpc-port", ports.grpc, "--metrics-port", ports.metrics]
        words += ["--audit", tmp_path / "audit.jsonl"]
        command = [sys.executable, "-m", "explainer_runtime.cli", "serve", *map(str, words)]
        with running(start(command, tmp_path / "server.log"), ports, tmp_path / "server.log") as server:

            def ask(verb: str) -> httpx.Response:
                body = {"inputs": [v2_input(X[:1])]}
                return httpx.post(server.rest(f"/v2/models/m/{verb}"), json=body, timeout=60)

            first, second, third = ask("explain"), ask("explain"), ask("infer")
            answering.respond = lambda x: [Output("scores", "FP32", (len(x), 3), OTHER(x))]
            fourth = ask("explain")
            counted = httpx.get(f"http://127.0.0.1:{ports.metrics}/metrics", timeout=60).text
    marks = [one.headers.get("x-explanation-cache") for one in (first, second, third, fourth)]
    assert marks == [None, "hit", "hit", None]
    said = [document(one) for one in (first, second)]
    assert said[1]["meta"].pop("cached") is True
    assert said[1]["meta"].pop("cost") == {"calls": 1, "rows": 5, "steps": 0}
    del said[0]["meta"]["cost"]
    assert said[0] == said[1]
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [line["cached"] for line in lines] == [False, True, True, False]
    assert lines[0]["result"] == lines[1]["result"] == lines[2]["result"] != lines[3]["result"]
    assert 'explainer_cached_total{method="anchor_image",model="m"} 2.0' in counted
