"""A run on Ray Data: many machines, and no checkpoints of our own.

Parquet goes in and comes out. Beside what it has written Ray keeps the ids of the records in it: their list
is renamed into place once the answers are there (`ray.data.checkpoint`, of Ray 2.60). A run that was killed
is begun anew with the same words, and explains what is not there; an actor that was killed is Ray's to
replace. For that ids have to be unique, and nobody looks whether they are.

All actors ask one for their turn, so the model sees the rows a second that were said, however many they are.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # before Ray reads it

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.data.checkpoint import CheckpointConfig
from ray.exceptions import RayError

from explainer_runtime.batch.run import Explains
from explainer_runtime.batch.store import ANSWERS, Store
from explainer_runtime.errors import ExplainerError, PredictorChanged
from explainer_runtime.predictors.remote.pace import Pace

LOCAL = "local"
"""In place of an address: Ray is started on this machine, and stopped in the end."""
_BLOCK = 256
"""Records whose answers are one file, at most: what a run that is killed has to do again, for each actor."""
_SHARED = 512 * 2**20
"""Bytes of memory through which rows go where Ray is started here."""
_IDS = "ids"


def run(
    explains: Mapping[str, Any],
    asked: Mapping[str, Any],
    data: Path,
    store: Store,
    *,
    address: str = LOCAL,
    workers: int | None = None,
    rows_per_second: float | None = None,
) -> None:
    """Explain what is not in the store yet.

    Args:
        explains: Arguments of `run.Explains`, as words.
        asked: What tells this run from others.
        data: Parquet, a file or a folder, which every machine must see, as it must artifact and store.
        store: Its folder takes the answers, in the schema of `run.SCHEMA`.
        address: Of the cluster of which this machine is one, `auto` or host:port; or `local`.
        workers: Actors at most, each with one processor; None is as many as there are here, or fit there.
        rows_per_second: Of all actors together, towards a served model; None is no limit.

    Raises:
        InvalidInput: The store holds the answers to something else.
        PredictorChanged: Another model answers than when the run began.
        ExplainerError: As an actor met it; or the cluster failed.
    """
    model = Explains(**explains).model  # what is wrong is said before a cluster has begun
    store.asked({**asked, "engine": "ray", "model": model})
    _start(address, count := workers or (len(os.sched_getaffinity(0)) if address == LOCAL else None))
    try:
        context = DataContext.get_current()
        context.use_datasource_v2 = False  # which starts processes to read footers with
        context.checkpoint_config = CheckpointConfig(
            explains["id"], str(store.folder.absolute() / _IDS), delete_checkpoint_on_success=False
        )
        turns = ray.remote(Pace).options(num_cpus=0, max_restarts=-1).remote(1, rows_per_second)
        columns = [explains["id"], explains["column"]]
        ray.data.read_parquet(str(data.absolute()), columns=columns).repartition(
            target_num_rows_per_block=_BLOCK
        ).map_batches(
            Actor,
            fn_constructor_args=(dict(explains), model, turns if rows_per_second else None),
            batch_size=None,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(min_size=1, max_size=count),
            num_cpus=1,
        ).write_parquet(str(store.folder.absolute() / ANSWERS))
    except RayError as error:
        raise _cause(error) from error
    finally:
        ray.shutdown()


class Actor:
    """`Explains` in a process of Ray's, which gives it one thread.

    Args:
        explains: Its arguments.
        model: Who has to answer.
        turns: Who says when rows may go; None lets them go.
    """

    def __init__(self, explains: Mapping[str, Any], model: Mapping[str, str], turns: Any = None) -> None:
        os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
        self._explain = Explains(**explains, turn=None if turns is None else partial(_turn, turns))
        self._model = model

    def __call__(self, records: pa.Table) -> pa.Table:
        """See `Explains`.

        Raises:
            PredictorChanged: Another model answers.
        """
        answers = self._explain(records)
        if (now := self._explain.model) != self._model:
            raise PredictorChanged(f"another model answers now, {now}; the run began with {self._model}")
        return answers


def _turn(turns: Any, rows: int) -> None:
    """Wait until so many rows may go."""
    time.sleep(ray.get(turns.reserve.remote(rows)))


def _start(address: str, workers: int | None) -> None:
    if address != LOCAL:
        ray.init(address)
        return
    ray.init(
        num_cpus=(workers or 1) + 1,  # reading and writing want a place beside the actors
        include_dashboard=False,
        object_store_memory=_SHARED,
        log_to_driver=False,
        logging_level="warning",
    )


def _cause(error: BaseException) -> ExplainerError:
    """What an actor has met, or what became of the cluster, in a line."""
    at: BaseException | None = error
    while at is not None:
        if isinstance(at, ExplainerError):
            return at
        at = getattr(at, "cause", None) or at.__cause__
    return ExplainerError(f"the cluster failed: {str(error).strip().rpartition(chr(10))[2]}")
