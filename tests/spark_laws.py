"""A column of Spark, on two executors of this machine: `make test-spark`, in an environment of its own.

It needs Java 17. The suite does not run it: what Spark takes to start is for a busy machine to say.
"""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest
from oip_servers import Model, Output, RestServer
from pyspark.sql import SparkSession
from toys import SHAPE, rowwise, weights

from explainer_runtime import artifact
from explainer_runtime.batch.run import COSTS, Explains
from explainer_runtime.batch.spark import spark_udf
from explainer_runtime.errors import InvalidOption
from explainer_runtime.explainers import fit
from explainer_runtime.spec import Counterfactual, Inputs

MODEL = rowwise(weights())
X = np.random.default_rng(0).uniform(-1, 1, (60, *SHAPE)).astype(np.float32)
IDS = [f"row {number}" for number in range(60)]


@pytest.fixture(scope="module")
def session():
    os.environ["PYSPARK_PYTHON"] = sys.executable
    made = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    made = made.config("spark.driver.bindAddress", "127.0.0.1").config("spark.driver.host", "127.0.0.1")
    started = made.config("spark.sql.execution.arrow.maxRecordsPerBatch", "8").getOrCreate()
    yield started
    gateway = started.sparkContext._gateway
    started.stop()
    gateway.shutdown()
    gateway.proc.communicate()  # Java ends with its stdin, which stays open as long as Python


@pytest.fixture(scope="module")
def model():
    answering = Model(respond=lambda x: [Output("scores", "FP32", (len(x), 3), MODEL(x))])
    with RestServer(answering) as served:
        yield f"http://127.0.0.1:{served.port}/cnn"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    inputs = Inputs(shape=SHAPE, low=-1, high=1, classes=3)
    path = tmp_path_factory.mktemp("saved") / "one"
    return str(
        artifact.save(fit(Counterfactual(tol=0.1, max_iter=10), X, predictor=MODEL, inputs=inputs), path)
    )


def said(row) -> dict:
    """What a row says, without what it cost."""
    return {name: value for name, value in row.items() if name not in COSTS}


def test_each_row_has_the_answer_that_it_has_without_spark(session, model, saved):
    rows = [x.ravel().tolist() for x in X]
    rows[17] = rows[17][:5]
    rows[18] = None
    frame = session.createDataFrame(
        list(zip(IDS, rows, strict=True)), "id string, x array<float>"
    ).repartition(4)
    explain = spark_udf(saved, model, {"seed": 1})
    came = frame.select(explain("id", "x").alias("said")).select("said.*").collect()
    found = {row["id"]: said(row.asDict()) for row in came}
    assert len(came) == len(found) == 60
    alone = Explains(saved, model, {"seed": 1})({"id": IDS, "x": rows}).to_pylist()
    assert found == {row["id"]: said(row) for row in alone}
    assert "expected a row of shape (4, 4, 1)" in found["row 17"]["reason"]
    assert found["row 18"]["status"] == "invalid"
    assert sum(row["found"] is True for row in found.values()) > 30


def test_what_is_wrong_is_said_before_a_job_begins(model, saved):
    with pytest.raises(InvalidOption, match="sesame"):
        spark_udf(saved, model, {"sesame": 1})
