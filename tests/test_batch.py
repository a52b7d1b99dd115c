"""Batches: a record is explained as it is alone, whatever its block; a run that is killed anywhere goes on,
and ends with the same bytes; what cannot be read is a row with its reason."""

import io
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oip_servers import Model, Output, RestServer
from PIL import Image
from toys import SHAPE, Counting, Linear, rowwise, weights
from typer.testing import CliRunner

pa = pytest.importorskip("pyarrow", reason="batches need the batch extra")
pq = pytest.importorskip("pyarrow.parquet")

from explainer_runtime import artifact  # noqa: E402
from explainer_runtime.artifact.provenance import digest  # noqa: E402
from explainer_runtime.batch import report, source, store, workers  # noqa: E402
from explainer_runtime.batch.records import Reader  # noqa: E402
from explainer_runtime.batch.run import COSTS, FAILED, INVALID, SCHEMA, Explains, Paced  # noqa: E402
from explainer_runtime.cli import app  # noqa: E402
from explainer_runtime.errors import (  # noqa: E402
    InvalidInput,
    InvalidOption,
    PredictorChanged,
    PredictorUnavailable,
)
from explainer_runtime.explainers import fit, prepare  # noqa: E402
from explainer_runtime.explanation import Explanation  # noqa: E402
from explainer_runtime.methods import parse_spec  # noqa: E402
from explainer_runtime.spec import Inputs  # noqa: E402

INPUTS = Inputs(shape=SHAPE, low=0, high=1, classes=3)
W = weights()
GRID = {"segmentation": {"kind": "grid", "rows": 2, "columns": 4}}
SPECS = {
    "counterfactual": {"tol": 0.05},
    "region": {**GRID, "fill": "constant"},
    "anchor_image": GRID,
    "attribution": GRID,
    "neighbours": {},
}
X = np.random.default_rng(3).integers(0, 256, (60, *SHAPE), np.uint8)
ROWS = X.astype(np.float32) / np.float32(255)
TOLD = [name for name in SCHEMA.names if name not in COSTS]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with an artifact of each method, and the records `x.npz`, whose ids are r0 to r59."""
    folder = tmp_path_factory.mktemp("batch")
    for kind, more in SPECS.items():
        fitted = fit(parse_spec({"kind": kind, **more}), ROWS, predictor=Linear(W), inputs=INPUTS)
        artifact.save(fitted, folder / kind)
    np.savez_compressed(folder / "x.npz", x=X, id=np.array([f"r{row}" for row in range(len(X))]))
    return folder


def records(x=X, start=0):
    return {"id": [f"r{row}" for row in range(start, start + len(x))], "x": x}


# --- one block ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SPECS)
def test_a_record_has_the_answer_that_it_has_alone_whatever_its_block(place, kind):
    model = Linear(W)
    prepared = prepare(artifact.load(place / kind), model)
    told = Explains(place / kind, model, {"seed": 1})(records(X[:6])).to_pylist()
    for row, said in enumerate(told):
        alone = prepared(ROWS[row : row + 1], {"seed": 1})
        assert said["answer_digest"] == alone.digest()
        assert said["row_digest"] == digest(ROWS[row : row + 1])
        assert (said["calls"], said["rows"]) == (alone.cost.calls, alone.cost.rows)
        assert (said["found"], said["status"]) == (alone["found"][0], alone["status"][0])


@settings(max_examples=15)
@given(cuts=st.lists(st.integers(0, 12), max_size=5), together=st.integers(1, 4))
def test_blocks_and_groups_change_no_answer_of_a_model_whose_rows_are_strangers(place, cuts, together):
    whole = Explains(place / "region", Linear(W))(records(X[:12]))
    explains = Explains(place / "region", Linear(W), together=together)
    ends = sorted({0, 12, *cuts})
    parts = [explains(records(X[a:b], a)) for a, b in itertools.pairwise(ends)]
    assert pa.concat_tables(parts).select(TOLD).equals(whole.select(TOLD))


@pytest.mark.parametrize("kind", ["counterfactual", "region"])
def test_a_row_with_its_sparse_change_is_the_answer(place, kind):
    field = {"counterfactual": "counterfactual", "region": "hidden"}[kind]
    told = Explains(place / kind, Linear(W), dense=True)(records(X[:12])).to_pylist()
    assert sum(said["found"] for said in told) > 3
    for row, said in enumerate(told):
        whole = Explanation.from_json(said["answer"])
        assert whole.digest() == said["answer_digest"]
        if not said["found"]:
            assert said["change_index"] is said["class_after"] is None
            continue
        changed = ROWS[row].ravel().copy()
        changed[said["change_index"]] = said["change_value"]
        np.testing.assert_array_equal(changed.reshape(SHAPE), whole[field][0].reshape(SHAPE))
        away = np.abs(changed - ROWS[row].ravel())
        assert said["changed"] == np.count_nonzero(away)
        assert said["distance_linf"] == away.max()
        scores = np.exp(Linear(W).log_scores(changed.reshape(1, *SHAPE)))[0]
        assert said["class_after"] == scores.argmax() != said["class_before"]
        assert said["proba_after"] == pytest.approx(scores.max(), rel=1e-5)  # float32, on two roads


def test_what_the_model_cannot_do_is_a_row_and_those_beside_it_have_their_answers(place):
    bad = ROWS[2].sum()
    linear = rowwise(W)

    def predict(x):
        scores = linear(x)
        return np.where((x.sum(axis=(1, 2, 3)) == bad)[:, None], np.nan, scores)

    told = Explains(place / "region", Counting(predict), together=4)(records(X[:4])).to_pylist()
    assert [said["status"] == FAILED for said in told] == [False, False, True, False]
    assert "finite" in told[2]["reason"]
    whole = Explains(place / "region", Counting(linear))(records(X[:4])).to_pylist()
    assert [said["answer_digest"] for said in told if said["reason"] is None] == [
        whole[row]["answer_digest"] for row in (0, 1, 3)
    ]


def test_an_answer_that_would_end_by_the_clock_is_refused(place):
    with pytest.raises(InvalidOption, match="max_rows"):
        Explains(place / "region", Linear(W), {"max_seconds": 3})


def test_what_is_kept_is_the_same_answer_and_says_so(place, tmp_path):
    first, again = (Explains(place / "region", Linear(W), kept=str(tmp_path))(records(X[:5])) for _ in "12")
    assert again.select(TOLD).equals(first.select(TOLD))
    assert (first["cached"].to_pylist(), again["cached"].to_pylist()) == ([False] * 5, [True] * 5)


def test_what_was_sent_again_is_paid_for_with_the_next_turn():
    from explainer_runtime.predictors import tally

    class Again(Counting):
        def __call__(self, x, *, timeout=None):
            tally.add(rows=len(x), calls=1)  # each message twice
            return super().__call__(x)

    turns = []
    model = Paced(Again(rowwise(W)), turns.append)
    with tally.tally() as more:
        for _ in range(3):
            model(ROWS[:4])
    assert turns == [4, 8, 8]
    assert (more.rows, more.calls) == (12, 3)


# --- records --------------------------------------------------------------------------------------------


def png(pixels):
    out = io.BytesIO()
    Image.fromarray(pixels[..., 0]).save(out, "PNG")
    return out.getvalue()


def flat(x, width):
    return pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), width)


FORMS = {
    "tensors": lambda x: pa.FixedShapeTensorArray.from_numpy_ndarray(x),
    "floats": lambda x: pa.FixedShapeTensorArray.from_numpy_ndarray(x.astype(np.float32) / np.float32(255)),
    "lists of one size": lambda x: flat(x, 16),
    "lists": lambda x: pa.array([row.ravel() for row in x]),
    "nested lists": lambda x: pa.array([row[..., 0].tolist() for row in x], pa.list_(pa.list_(pa.uint8()))),
    "pictures": lambda x: pa.array([png(row) for row in x]),
    "bytes and a path": lambda x: pa.array([{"bytes": png(row), "path": "a.png"} for row in x]),
}


@pytest.mark.parametrize("form", FORMS)
def test_rows_are_the_same_however_they_are_written(tmp_path, form):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"id": list("abcde"), "row": FORMS[form](X[:5])}), path, row_group_size=2)
    opened = source.opened(path)
    read = Reader(INPUTS, opened.id, opened.column)
    found = [one for _, block in opened.blocks(3, lambda _: False) for one in read(block)]
    assert [name for name, _ in found] == list("abcde")
    for (_, row), wanted in zip(found, ROWS, strict=False):
        np.testing.assert_array_equal(row.row if hasattr(row, "row") else row, wanted)


def test_a_folder_of_pictures_has_their_paths_for_ids(tmp_path):
    (tmp_path / "b").mkdir()
    for row, name in enumerate(["b/two.png", "one.png"]):
        (tmp_path / name).write_bytes(png(X[row]))
    (tmp_path / "torn.png").write_bytes(png(X[2])[:40])
    (tmp_path / "wide.png").write_bytes(png(np.zeros((4, 5, 1), np.uint8)))
    opened = source.opened(tmp_path)
    ((_, block),) = opened.blocks(16, lambda _: False)
    found = dict(Reader(INPUTS, opened.id, opened.column)(block))
    assert [*found] == ["b/two.png", "one.png", "torn.png", "wide.png"]
    np.testing.assert_array_equal(found["one.png"].row, ROWS[1])
    assert "cannot be read as an image" in found["torn.png"]
    assert "expected an image 4 pixels wide" in found["wide.png"]


def test_a_record_that_cannot_be_used_is_a_row_with_its_reason(place, tmp_path):
    rows = [row.ravel() for row in ROWS[:7]]
    rows[3], rows[4], rows[5] = rows[3][:15], None, np.full(16, np.nan, np.float32)
    ids = ["a", None, "a", "c", "d", "e", "f"]
    pq.write_table(pa.table({"id": ids, "x": pa.array(rows, pa.list_(pa.float32()))}), tmp_path / "1.parquet")
    (tmp_path / "2.parquet").write_bytes(b"PAR1 no more")
    opened = source.opened(tmp_path)
    explains = Explains(place / "neighbours", Linear(W), id=opened.id, column=opened.column)
    told = pa.concat_tables([explains(block) for _, block in opened.blocks(4, lambda _: False)]).to_pylist()
    assert [said["id"] for said in told] == [*ids, "2.parquet"]
    assert [said["status"] == INVALID for said in told] == [False, True, True, True, True, True, False, True]
    for row, words in {
        1: "row 1 has no id",
        2: "the id of row 2 is that of row 0, too",
        3: "expected a row of shape (4, 4, 1), got (15,)",
        4: "has no row",
        5: "expected finite values",
        7: "2.parquet: cannot be read",
    }.items():
        assert words in told[row]["reason"]


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (pa.array([{"bytes": None, "path": None}]), "has no row"),
        (pa.array([[None, [0.5] * 16]]), "a list with nulls in it"),
        (pa.array([7]), "expected a picture or numbers, got int64"),
        (pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())), "got map<string, int64>"),
        (pa.array([b"0" * 16], pa.uuid()), "got extension<arrow.uuid>"),
    ],
)
def test_a_value_that_is_no_row_is_a_row_with_its_reason(place, column, words):
    explains = Explains(place / "neighbours", Linear(W), column="x")
    told = explains(pa.table({"id": ["a"], "x": column})).to_pylist()
    assert told[0]["status"] == INVALID
    assert words in told[0]["reason"]


def test_blocks_of_which_nothing_can_be_read_are_rows_with_their_reasons(place, tmp_path):
    pq.write_table(pa.table({"id": ["a"], "x": flat(X[:1], 16)}), tmp_path / "a.parquet")
    for number in range(8):
        (tmp_path / f"b{number}.parquet").write_bytes(b"PAR1 no more")
    (tmp_path / os.fsdecode(b"c\xff.parquet")).write_bytes(b"")
    opened = source.opened(tmp_path)
    explains = Explains(place / "neighbours", Linear(W), id=opened.id, column=opened.column)
    told = pa.concat_tables([explains(block) for _, block in opened.blocks(4, lambda _: False)]).to_pylist()
    assert [said["status"] == INVALID for said in told] == [False] + [True] * 9
    assert told[9]["id"] == "c\ufffd.parquet"
    assert "not UTF-8" in told[9]["reason"]


def test_a_picture_whose_name_is_no_text_is_a_row_with_its_reason(place, tmp_path):
    for name in (b"a.png", b"b\xff.png"):
        Image.fromarray(X[1, :, :, 0]).save(tmp_path / os.fsdecode(name))
    opened = source.opened(tmp_path)
    (block,) = [block for _, block in opened.blocks(4, lambda _: False)]
    (_, one), (name, other) = Reader(INPUTS, opened.id, opened.column)(block)
    np.testing.assert_array_equal(one.row, ROWS[1])
    assert (name, other) == ("b\ufffd.png", "cannot be read: its name is not UTF-8")


def test_files_that_hold_rows_of_two_kinds_are_refused(tmp_path):
    for name, dtype in (("a", np.uint8), ("b", np.float32)):
        table = pa.table({"id": [name], "x": pa.array([ROWS[0].ravel().astype(dtype)])})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    with pytest.raises(InvalidInput, match="holds rows as list<element: float>, others as list"):
        source.opened(tmp_path)


def test_arrays_whose_ids_or_numbers_are_none_are_refused(tmp_path):
    np.savez(tmp_path / "x.npz", x=X[:2], id=np.array(["a", 1], object))
    with pytest.raises(InvalidInput, match="`id` cannot be read"):
        source.opened(tmp_path / "x.npz")
    np.savez(tmp_path / "x.npz", x=X[:2].astype(np.longdouble))
    with pytest.raises(InvalidInput, match="expected rows of numbers"):
        source.opened(tmp_path / "x.npz")


@settings(max_examples=30)
@given(done=st.sets(st.integers(0, 20)), size=st.integers(1, 9), kind=st.sampled_from(["npz", "parquet"]))
def test_blocks_that_are_left_are_those_there_would_be_without_the_others(tmp_path_factory, done, size, kind):
    folder = tmp_path_factory.mktemp("blocks")
    names = [f"r{row % 19}" for row in range(20)]  # the last is there twice
    if kind == "npz":
        np.savez(folder / "x.npz", x=X[:20], id=np.array(names))
    else:
        pq.write_table(pa.table({"id": names, "x": flat(X[:20], 16)}), folder / "x.parquet", row_group_size=6)
    opened = source.opened(folder / f"x.{kind}")
    every = dict(opened.blocks(size, lambda _: False))
    assert [*every] == [*range(-(-20 // size))]
    left = dict(opened.blocks(size, done.__contains__))
    assert [*left] == [number for number in every if number not in done]
    assert all(block.equals(every[number]) for number, block in left.items())
    assert every[19 // size]["reason"][-1].as_py() == "the id of row 19 is that of row 0, too"


def test_arrays_that_end_early_are_records_that_cannot_be_read(tmp_path):
    np.save(tmp_path / "x.npy", X[:10])
    whole = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(whole[:-20])
    opened = source.opened(tmp_path / "x.npy")
    blocks = [block for _, block in opened.blocks(4, lambda _: False)]
    reasons = [reason for block in blocks for reason in block["reason"].to_pylist()]
    assert (len(reasons), set(reasons)) == (10, {"x.npy: cannot be read: it ends too early"})
    reader = Reader(INPUTS, opened.id, opened.column)
    assert [row for block in blocks for _, row in reader(block)] == reasons


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.csv", b"", "expected .parquet"),
        ("x.npz", b"PK", "cannot be read"),
        ("x.parquet", b"PAR1", "cannot be read"),
        ("none/", b"", "neither .parquet files nor pictures"),
    ],
)
def test_a_source_of_nothing_is_refused(tmp_path, name, content, words):
    path = tmp_path / name
    path.mkdir() if name.endswith("/") else path.write_bytes(content)
    with pytest.raises(InvalidInput, match=words):
        source.opened(path)


def test_which_column_holds_the_rows_is_asked_where_several_may(tmp_path):
    table = pa.table({"id": ["a"], "one": flat(X[:1], 16), "two": flat(X[:1], 16)})
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(InvalidInput, match="one, two"):
        source.opened(tmp_path / "x.parquet")
    assert source.opened(tmp_path / "x.parquet", column="two").column == "two"
    with pytest.raises(InvalidInput, match="'name'"):
        source.opened(tmp_path / "x.parquet", id="name", column="two")


# --- what is kept ---------------------------------------------------------------------------------------


def files_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.glob("answers/*"))}


@settings(max_examples=15)
@given(order=st.permutations(range(7)), reopened=st.sets(st.integers(0, 6)), drop=st.integers(0, 6))
def test_parts_are_the_same_in_whatever_order_and_however_often_a_run_begins(
    tmp_path_factory, place, order, reopened, drop
):
    seconds = itertools.count(os.getpid())  # what differs each time
    tables = [
        pa.Table.from_pylist([{"id": f"{block}", "status": "ok", "seconds": next(seconds)}], SCHEMA)
        for block in range(7)
    ]
    plain, other = tmp_path_factory.mktemp("plain"), tmp_path_factory.mktemp("other")
    with store.opened(plain, 3) as kept:
        kept.asked({"a": 1})
        for number, table in enumerate(tables):
            kept.keep(number, table)
        kept.finish(7, {})
    for place_in_order, number in enumerate(order):
        with store.opened(other, 3) as kept:
            kept.asked({"a": 1})
            assert [one for one in range(7) if kept.done(one)] == sorted(order[:place_in_order])
            kept.keep(number, tables[number])
            if number == drop:  # killed while it wrote
                (other / "blocks" / ".00000000.arrow").write_bytes(b"torn")
    with store.opened(other, 3) as kept:
        kept.finish(7, {})
    assert files_of(other) == files_of(plain)
    assert sorted(path.name for path in other.iterdir()) == ["answers", "batch.json", "costs"]


def test_a_store_is_one_run_s_and_of_what_was_asked(tmp_path):
    with store.opened(tmp_path / "out", 3) as kept:
        kept.asked({"seed": 1, "model": {"digest": "a"}})
        with pytest.raises(InvalidInput, match="another run"), store.opened(tmp_path / "out", 3):
            pass
    with store.opened(tmp_path / "out", 3) as kept:
        kept.asked({"seed": 1, "model": {"digest": "a"}})
        with pytest.raises(InvalidInput, match="seed was 1, is 2"):
            kept.check({"seed": 2})
    (tmp_path / "mine").write_text("")
    with pytest.raises(InvalidInput, match="something else"), store.opened(tmp_path, 3):
        pass


# --- a run ----------------------------------------------------------------------------------------------


class Served:
    """A linear softmax behind V2 that calls `acts[n]` as the n-th message comes."""

    def __init__(self, **acts):
        self.count, self.acts = 0, {int(when[1:]): act for when, act in acts.items()}
        self.model = Model(self.respond, lambda: [("image", "FP32")], version="1")
        self.predict = rowwise(W)

    def respond(self, x):
        self.count += 1
        if (act := self.acts.pop(self.count, None)) is not None:
            act()
        scores = self.predict(x.reshape(len(x), *SHAPE))
        return [Output("scores", "FP32", scores.shape, scores)]


def words(place, out, url, *more):
    said = json.dumps({"kind": "v2", "url": url, "model": "toy"})
    return [
        "batch", str(place / "region"), "--data", str(place / "x.npz"), "--out", str(out),
        "--predictor", said, "--workers", "2", "--option", "seed=5", *more,
    ]  # fmt: skip


def told(done):
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def whole(place, tmp_path_factory):
    """The answers of a run that nobody disturbed, and where they are."""
    out = tmp_path_factory.mktemp("whole") / "out"
    served = Served()
    with RestServer(served.model) as server:
        said = told(CliRunner().invoke(app, [*words(place, out, server.url, "--json"), "--workers", "1"]))
    assert (said["records"], said["explained"]) == (60, 60)
    assert served.count > 120  # what is done after so many messages is done in the middle of a run
    return out


def test_a_run_tells_of_each_record_what_a_block_of_it_does(place, whole):
    table = pq.read_table(whole / "answers")
    plain = Explains(place / "region", Counting(rowwise(W)), {"seed": 5})(records())
    assert table.drop_columns("picture").equals(plain.select(TOLD).drop_columns("picture"))
    costs = pq.read_table(whole / "costs")
    assert costs["id"].equals(table["id"])
    assert costs["together"].to_pylist() == [1] * 60


def children(pid):
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_worker_and_then_the_driver_are_killed_and_the_answers_are_the_same_bytes(place, whole, tmp_path):
    out, drivers = tmp_path / "out", []
    served = Served(
        n40=lambda: os.kill(children(drivers[0].pid)[-1], signal.SIGKILL),
        n110=lambda: drivers[0].kill(),
    )
    with RestServer(served.model) as server:
        command = [sys.executable, "-m", "explainer_runtime.cli"]
        asked = words(place, out, server.url, "--rows-per-second", "1e6")
        with subprocess.Popen([*command, *asked], stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as driver:
            drivers.append(driver)
            output, _ = driver.communicate(timeout=600)
        assert driver.returncode == -signal.SIGKILL, output.decode()
        assert not (out / "batch-report.html").exists()
        said = told(CliRunner().invoke(app, words(place, out, server.url, "--json")))
    assert (said["records"], said["explained"]) == (60, 60)
    assert files_of(out) == files_of(whole)
    ids = pq.read_table(out / "answers")["id"].to_pylist()
    assert ids == [f"r{row}" for row in range(60)]
    assert json.loads((out / "batch.json").read_text()) == json.loads((whole / "batch.json").read_text())


def test_the_same_command_again_does_nothing_and_another_is_refused(place, whole):
    before = files_of(whole)
    served = Served()
    with RestServer(served.model) as server:
        told(CliRunner().invoke(app, words(place, whole, server.url, "--json")))
        asked, served.count = served.count, 0
        refused = CliRunner().invoke(app, words(place, whole, server.url, "--option", "target_class=1"))
    assert asked == 1  # whether it is the model that it was
    assert (refused.exit_code, served.count) == (2, 0)
    assert 'options was {"seed": 5}, is {"seed": 5, "target_class": 1}' in refused.output
    assert files_of(whole) == before


def test_another_model_in_the_middle_of_a_run_ends_it(place, tmp_path):
    served = Served()
    served.acts[60] = lambda: setattr(served.model, "version", "2")
    opened = source.opened(place / "x.npz")
    with (
        RestServer(served.model) as server,
        store.opened(tmp_path / "out", 4) as kept,
        pytest.raises(PredictorChanged),
    ):
        workers.run(plan(place, server.url), opened, kept)
    answers = [pq.read_table(path) for path in (tmp_path / "out" / "answers").glob("*")]
    assert sum(map(len, answers)) + 16 * len([*(tmp_path / "out" / "blocks").glob("*.arrow")]) < 60


def plan(place, url, **more):
    explains = {
        "artifact": str(place / "region"),
        "model": {"kind": "v2", "url": url, "model": "toy"},
        "id": "id",
        "column": "x",
    }
    return workers.Plan(explains, {"seed": 0}, 16, 1, **{"patience": 0.0, **more})


def test_a_model_that_is_down_ends_a_run_that_can_go_on(place, tmp_path):
    with RestServer(Served().model) as server:
        url = server.url
    with store.opened(tmp_path / "out", 4) as kept, pytest.raises(PredictorUnavailable):
        workers.run(plan(place, url), source.opened(place / "x.npz"), kept)


def test_a_strict_run_ends_at_the_first_record_that_cannot_be_explained(place, tmp_path):
    rows = [row.ravel() for row in ROWS]
    rows[45], rows[50] = rows[45][:3], rows[50][:4]
    names = [f"r{row}" for row in range(60)]
    pq.write_table(pa.table({"id": names, "x": pa.array(rows)}), tmp_path / "x.parquet")
    with RestServer(Served().model) as server:
        asked = words(place, tmp_path / "out", server.url, "--strict")
        asked[asked.index("--data") + 1] = str(tmp_path / "x.parquet")
        strict = CliRunner().invoke(app, asked)
        lenient = told(CliRunner().invoke(app, [*(one for one in asked if one != "--strict"), "--json"]))
        again = CliRunner().invoke(app, asked)  # all is done, but no better for it
    for run in (strict, again):
        assert run.exit_code == 2
        assert "r45: expected a row of shape (4, 4, 1), got (3,)" in run.output
    assert lenient["statuses"]["invalid"] == 2


def test_answers_among_the_records_are_refused(place, tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "pictures")
    Image.fromarray(X[1, :, :, 0]).save(tmp_path / "pictures" / "a.png")
    asked = words(place, tmp_path / "link" / "out", "http://127.0.0.1:9")
    asked[asked.index("--data") + 1] = str(tmp_path / "pictures")
    refused = CliRunner().invoke(app, asked)
    assert refused.exit_code == 2
    assert "its answers would be records" in " ".join(refused.output.split())


def test_rows_per_second_are_for_a_model_that_others_ask(place, tmp_path):
    asked = ["batch", str(place / "region"), "--data", str(place / "x.npz"), "--out", str(tmp_path / "out")]
    (tmp_path / "m.onnx").write_bytes(b"")
    done = CliRunner().invoke(app, [*asked, "--model", str(tmp_path / "m.onnx"), "--rows-per-second", "3"])
    assert done.exit_code == 2


# --- the page -------------------------------------------------------------------------------------------


def test_the_page_counts_what_the_parts_hold(whole):
    table, outcome = pq.read_table(whole / "answers"), report.read(whole)
    found = [row for row in table.to_pylist() if row["found"]]
    assert outcome.found.total() == len(found) == sum(outcome.pairs.values())
    for (own, other), many in outcome.pairs.items():
        assert many == sum((row["class_before"], row["class_after"]) == (own, other) for row in found)
    costs = pq.read_table(whole / "costs")
    assert outcome.rows == sum(costs["rows"].to_pylist())
    assert outcome.slowest[0][0] == max(costs["seconds"].to_pylist())
    assert len(outcome.pictures) == 10


def test_the_page_fetches_nothing_and_escapes_what_came_from_outside(whole):
    outcome = report.read(whole)
    outcome.reasons["<script>alert(1)</script>"] = [3, "<b>"]
    page = report.html(outcome, store.read(whole), INPUTS)
    assert page.count("<script") == 1  # ours, which moves sliders
    assert "alert(1)</script>" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("data:image/png") == 10
    assert "&lt;b&gt;" in page
