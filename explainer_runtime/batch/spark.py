"""Explanations as a column of Spark: `df.select("id", udf("id", "image").alias("e"))`.

A function of Arrow's columns, and not `pyspark.ml.functions.predict_batch_udf`: that knows no truths and no
nothing in what it returns, and one row of another shape would fail the whole job. Here it is a row with its
reason. It needs Spark 4.1 or later. Spark sends functions to its executors as pickles, which is its own
affair: in this one are words only, and each executor prepares an explainer from them once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import pyarrow as pa
from pyspark.sql import Column
from pyspark.sql.functions import arrow_udf
from pyspark.sql.pandas.types import from_arrow_schema

from explainer_runtime.batch.run import SCHEMA, Explains, check_options
from explainer_runtime.batch.source import ID


def spark_udf(
    artifact: str, model: str, options: Mapping[str, Any] | None = None, **how: Any
) -> Callable[[Any, Any], Column]:
    """A function of a column of ids and one of rows: what `Explains` says of each record, as a struct.

    Rows are numbers, an array a row, or the bytes of encoded pictures. Ids are told and nothing else: two of
    them alike are not looked for.

    Args:
        artifact: Directory of a fitted explainer, which every executor must see.
        model: The model, as every executor reaches it: an address, or a file.
        options: As of a request, the same for every row.
        how: Whatever else `Explains` takes that JSON can say: `digest`, `resize`, `together`, `dense`,
            `pictures`.

    Raises:
        InvalidArtifact, InvalidOption: As for `Explains`; the driver sees the artifact, too.
    """
    from explainer_runtime import artifact as artifacts

    how = {"digest": artifacts.verify(artifact).digest, **how}
    check_options(artifacts.load(artifact, digest=how["digest"]).spec, options)
    words = json.dumps({"artifact": str(artifact), "model": model, "options": dict(options or {}), **how})

    def explained(blocks: Iterator[tuple[pa.Array, pa.Array]]) -> Iterator[pa.Array]:
        explain = _explains(words)
        for ids, rows in blocks:
            answers = explain(pa.table({ID: ids, "row": rows}))
            yield answers.to_struct_array().combine_chunks()

    return arrow_udf(explained, from_arrow_schema(SCHEMA))


@lru_cache(maxsize=2)
def _explains(words: str) -> Explains:
    """What explains in this process, for as long as Spark keeps it."""
    return Explains(**json.loads(words))
