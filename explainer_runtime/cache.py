"""Answers that are kept, so that the same question is not explained twice.

An explanation is a function of the artifact, the release, the rows, the spec in force, and the model. All but
the last are known; of that only what answers at this moment is. So the model is asked first: one in this
process, which cannot change, once; any other with every question, in one call about the rows in question and
those that `fit` kept. What it says of itself and every bit of what it answers is part of the name of an
answer, and an answer is kept only if the model that it is about said the same of these rows. Another model
under the same address has other names.

Nothing is kept where that would not do: of explainers that were fitted without a model, of models that answer
with labels or may answer by chance, of what a limit has cut short, of methods of others, whose code has no
release that is known here.

An answer is a file, named by the digest of what was asked. It begins with the digest of its name and of the
rest: what was damaged, or has another's name, is not there. The folder belongs to whoever serves: who can
write in it can answer in their place.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import re
import stat
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import orjson

from explainer_runtime import methods
from explainer_runtime.artifact import tensors
from explainer_runtime.artifact.provenance import digest
from explainer_runtime.artifact.replace import put
from explainer_runtime.errors import ExplainerError, InvalidSpec
from explainer_runtime.explainers import Prepared, check
from explainer_runtime.explanation import Cost, Explanation, jsonable
from explainer_runtime.predictors import fingerprint
from explainer_runtime.predictors.base import LocalPredictor, told
from explainer_runtime.predictors.tally import tally
from explainer_runtime.spec import Limits

PLACE = "EXPLAINER_RUNTIME_CACHE"
"""Variable with a folder, and behind a colon how large it may become; nothing is kept without it."""
SIZE = 10**9
"""Bytes that are kept where nothing else is said."""
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_DOCUMENT = "document"
_NEWS = 20
"""One part in so many of its size may be written before a folder is looked through again."""

_OURS = re.compile(r"[0-9a-f]{2}/[0-9a-f]{64}|\.[0-9a-f]{2}\.[0-9a-f]{12}")
"""Files in a folder that are answers, and those that somebody writes who may have ended. Others stay."""

_log = logging.getLogger("explainer_runtime.cache")


class Model(NamedTuple):
    """Who answers now, None if that is not to be told; what it said of the rows `(N, K)`, None of one
    that cannot change; what it took to ask."""

    name: str | None
    scores: np.ndarray | None
    cost: Cost


def of(place: str | None) -> Cache | None:
    """The cache that an operator asks for, as `DIR` or `DIR:SIZE`, such as `/var/cache/answers:20GB`.

    Raises:
        InvalidSpec: The folder cannot be written in, or the size is none.
    """
    if place is None:
        return None
    folder, _, said = place.rpartition(":") if ":" in place else (place, "", f"{SIZE}")
    size = re.fullmatch(r"(\d+(?:\.\d+)?)([kMGT]?)B?", said)
    if not folder or size is None or not (most := int(float(size[1]) * _UNITS[size[2]])):
        raise InvalidSpec(f"cache: expected DIR or DIR:SIZE, such as /var/cache/answers:20GB, got {place!r}")
    try:
        return Cache(Path(folder), most)
    except OSError as error:
        raise InvalidSpec(f"cache: {folder}: {error.strerror}") from None


class Cache:
    """Kept answers in a folder. Safe to share by threads, and the folder by processes.

    Args:
        folder: Made if it is not there, for its owner alone.
        most: Bytes of all files together; those not used for longest go first. Of several processes each
            looks after every twentieth part that it writes itself.

    Raises:
        OSError: The folder cannot be written in.
    """

    def __init__(self, folder: Path, most: int = SIZE) -> None:
        self.folder, self.most = folder.resolve(), most
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not os.access(self.folder, os.W_OK | os.X_OK):
            raise PermissionError(13, "cannot be written in")
        self._models: WeakKeyDictionary[Prepared, str] = WeakKeyDictionary()
        self._fresh = math.inf
        self._lock = threading.Lock()

    def explain(
        self,
        prepared: Prepared,
        artifact: str,
        x: Any,
        options: Mapping[str, Any] | None = None,
        *,
        limits: Limits | None = None,
        **how: Any,
    ) -> Explanation:
        """What `prepared` answers, which is as it was the first time, but for its cost; `meta.cached` is true
        then.

        Args:
            prepared: What explains.
            artifact: Digest of what it was prepared from.
            x, options, limits, how: As for `Prepared`. What it takes to ask who the model is counts.

        Raises:
            ExplainerError: As `Prepared`.
        """
        begun = time.monotonic()
        rows, spec, budget = check(prepared.fitted, x, options, limits or Limits())
        price = len(prepared.fitted.arrays.get(fingerprint.ROWS, ())) + len(rows)
        if not _named(prepared) or budget.rows <= price or budget.calls <= 1:
            return prepared(x, options, limits=limits, **how)
        model = self._model(prepared, rows, budget.seconds)
        own = [prepared.road, spec.model_dump(mode="json")]
        name = model.name and _digest([_release(), artifact, model.name, digest(rows), *own])
        if name and (kept := self._read(name)) is not None:
            return replace(kept, meta={**kept.meta, "cached": True}, cost=model.cost)
        left = Limits(
            max_batch=len(rows),
            max_rows=budget.rows - model.cost.rows,
            max_calls=budget.calls - model.cost.calls,
            max_seconds=max(1e-3, budget.seconds - (time.monotonic() - begun)),
        )
        answer = prepared(x, options, limits=left, **how)
        if name and not answer.cost.cut and _about(answer, model, prepared):
            self._write(name, answer)
        return replace(answer, cost=answer.cost + model.cost)

    def _model(self, prepared: Prepared, rows: np.ndarray, seconds: float) -> Model:
        local = isinstance(prepared.predictor, LocalPredictor)
        if local and prepared in self._models:
            return Model(self._models[prepared], None, Cost())
        asked = rows[:0] if local else rows
        arrays = prepared.fitted.arrays
        with tally() as more:
            name, scores = fingerprint.current(prepared.predictor, arrays, asked, seconds)
        cost = Cost(1 + more.calls, len(arrays[fingerprint.ROWS]) + len(asked) + more.rows)
        if local and name:
            self._models[prepared] = name
        return Model(name, None if local else scores, cost)

    def _read(self, name: str) -> Explanation | None:
        path = self._path(name)
        try:
            data = path.read_bytes()
            if data[:32] != hashlib.sha256(name.encode() + data[32:]).digest():
                return None
            os.utime(path)  # used now
            return _unpacked(data[32:])
        except (OSError, ValueError, KeyError, ExplainerError):
            return None

    def _write(self, name: str, answer: Explanation) -> None:
        path = self._path(name)
        try:
            body = _packed(answer)
            if (size := 32 + len(body)) > self.most // _NEWS:
                return
            with self._lock:
                if (self._fresh + size) * _NEWS > self.most:
                    self._tidy()
                self._fresh += size
            path.parent.mkdir(exist_ok=True, mode=0o700)
            put(path, hashlib.sha256(name.encode() + body).digest() + body)
        except (OSError, ExplainerError) as error:
            _log.warning("an answer is not kept: %s", error)

    def _tidy(self) -> None:
        """Remove what was not used for longest, until two parts in `_NEWS` are free: one is for others."""
        found = []
        for path in self.folder.rglob("*"):
            with suppress(FileNotFoundError):  # another process tidies as well
                status = path.lstat()
                name = path.relative_to(self.folder).as_posix()
                if _OURS.fullmatch(name) and stat.S_ISREG(status.st_mode):
                    found.append((status.st_mtime_ns, status.st_size, path))
        held, room = sum(one[1] for one in found), self.most - 2 * self.most // _NEWS
        for _, own, path in sorted(found):
            if held <= room:
                break
            path.unlink(missing_ok=True)
            held -= own
        self._fresh = 0

    def _path(self, name: str) -> Path:
        return self.folder / name[:2] / name


def _named(prepared: Prepared) -> bool:
    """Whether what answers can be told from everything else that might."""
    own = methods.METHODS[prepared.fitted.spec.kind].startswith("explainer_runtime.")
    return own and prepared.segment is None and fingerprint.ROWS in prepared.fitted.arrays


def _about(answer: Explanation, model: Model, prepared: Prepared) -> bool:
    """Whether an answer is about the model that was asked who it is: behind one address may be several."""
    if model.scores is None:
        return True
    said, tolerance = answer.arrays.get("original_proba"), told(prepared.predictor).canary
    if said is None or tolerance is None or said.shape != model.scores.shape:
        return False
    return bool(np.abs(said - model.scores).max() <= tolerance)


def _release() -> str:
    from explainer_runtime import __version__

    return __version__


def _digest(value: Any) -> str:
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _packed(answer: Explanation) -> bytes:
    """An answer as one safetensors file: its numbers, and all else as a document in JSON."""
    arrays: dict[str, np.ndarray] = {}

    def out(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: out(one) for name, one in value.items()}
        if isinstance(value, list | tuple):
            return [out(one) for one in value]
        if isinstance(value, np.ndarray | np.generic):
            array = np.asarray(value)
            if array.dtype.kind == "U":
                return {"$words": array.tolist(), "width": array.dtype.str}
            arrays[str(len(arrays))] = array
            return {"$numbers": str(len(arrays) - 1)}
        return value

    said = {
        "kind": answer.kind,
        "arrays": out(answer.arrays),
        "raw": out(answer.raw),
        "meta": out(answer.meta),
    }
    document = np.frombuffer(orjson.dumps(said, default=jsonable), np.uint8)
    return tensors.dump({**arrays, _DOCUMENT: document}, "answer")


def _unpacked(body: bytes) -> Explanation:
    arrays = tensors.parse(body, "answer")

    def read(value: Any) -> Any:
        if isinstance(value, list):
            return [read(one) for one in value]
        if not isinstance(value, dict):
            return value
        if "$numbers" in value:
            return arrays[value["$numbers"]][()]
        if "$words" in value:
            return np.array(value["$words"], value["width"])
        return {name: read(one) for name, one in value.items()}

    said = read(orjson.loads(arrays[_DOCUMENT].tobytes()))
    return Explanation(said["kind"], said["arrays"], tuple(said["raw"]), said["meta"])
