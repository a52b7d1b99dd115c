"""Models on servers that we did not write: KServe's ModelServer, and Triton's.

Each runs in an environment of its own, which `make test` builds. Triton's server comes in a wheel
(nvidia-pytriton) and runs Python models with the system's libpython.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
import pytest
from servers import Server, free_ports, running, start
from toys import rowwise, weights
from verified import CONTRACT, IMAGE, METHODS, verify

from explainer_runtime import fit, prepare
from explainer_runtime.errors import PredictorError, PredictorUnavailable
from explainer_runtime.predictors.remote.client import RemotePredictor
from explainer_runtime.spec import Limits, parse_predictor

HERE = Path(__file__).parent
KSERVE = HERE.parent / ".venv-kserve"
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
PACKAGES = HERE.parent / ".venv-triton" / "lib" / PYTHON / "site-packages"
TRITON = PACKAGES / "pytriton" / "tritonserver"
WEIGHTS = weights() / 3
EXACT = rowwise(WEIGHTS)
ROWS = np.random.default_rng(1).uniform(-1, 1, (300, *CONTRACT.shape)).astype(np.float32)
LIMITS = Limits(max_rows=3000, max_calls=60)


class Foreign(NamedTuple):
    """A server, and what its model answers."""

    server: Server
    model: Callable[[np.ndarray], np.ndarray]


@pytest.fixture(scope="module")
def kserve(tmp_path_factory):
    if not KSERVE.is_dir():
        pytest.skip("no .venv-kserve; `make test` builds it")
    ports, log = free_ports(), tmp_path_factory.mktemp("kserve") / "server.log"
    words = [KSERVE / "bin" / "python", HERE / "kserve_model.py", ports.http, ports.grpc]
    command = [str(word) for word in words]
    with running(start(command, log), ports, log) as server:
        yield Foreign(server, rowwise(weights()))


@pytest.fixture(scope="module")
def triton(tmp_path_factory):
    with triton_process(tmp_path_factory.mktemp("triton")) as (server, _):
        yield Foreign(server, EXACT)


@contextlib.contextmanager
def triton_process(folder):
    if not TRITON.is_dir():
        pytest.skip("no .venv-triton; `make test` builds it")
    try:
        ctypes.CDLL(f"lib{PYTHON}.so.1.0")
    except OSError:
        pytest.skip(f"Triton runs Python models with the system's lib{PYTHON}, which is not installed")
    ports, log = free_ports(), folder / "server.log"
    process = start(triton_command(folder, ports), log, session=True, PACKAGES=str(PACKAGES))
    try:
        with running(process, ports, log) as server:
            yield server, process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # a stub of its Python backend may outlive it


def triton_command(folder, ports):
    """Triton with one model; its backend wants the stub for this Python beside it."""
    backend, model = folder / "backends" / "python", folder / "models" / "linear"
    shutil.copytree(TRITON / "backends" / "python", backend)
    for file in (TRITON / "python_backend_stubs" / PYTHON.removeprefix("python")).iterdir():
        (backend / file.name).symlink_to(file)  # a link: it finds its libraries from where it lies
    (model / "1").mkdir(parents=True)
    shutil.copy(HERE / "triton" / "config.pbtxt", model)
    shutil.copy(HERE / "triton" / "model.py", model / "1")
    np.save(model / "1" / "weights.npy", WEIGHTS)
    flags = {
        "model-repository": folder / "models",
        "backend-directory": folder / "backends",
        "http-address": "127.0.0.1",
        "http-port": ports.http,
        "grpc-address": "127.0.0.1",
        "grpc-port": ports.grpc,
        "allow-metrics": "false",
    }
    return [str(TRITON / "bin" / "tritonserver"), *(f"--{name}={value}" for name, value in flags.items())]


@pytest.fixture(params=["kserve", "triton"])
def foreign(request):
    return request.getfixturevalue(request.param)


ROADS = {
    "gRPC": "grpc://127.0.0.1:{ports.grpc}/linear",
    "REST": "http://127.0.0.1:{ports.http}/v2/models/linear/infer",
    "V1": "v1+http://127.0.0.1:{ports.http}/linear",
}


@contextlib.contextmanager
def asking(foreign, road="gRPC", **settings):
    endpoint = parse_predictor(ROADS[road].format(ports=foreign.server.ports))
    predictor = RemotePredictor(endpoint.model_copy(update=settings))
    try:
        yield predictor
    finally:
        predictor.close()


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(
    ("foreign", "road"),
    [(kind, road) for kind in ("kserve", "triton") for road in ROADS if (kind, road) != ("triton", "V1")],
    indirect=["foreign"],
)
def test_every_road_to_a_foreign_server_gives_the_models_scores(foreign, road, binary):
    for count in (1, 7, 300):
        with asking(foreign, road, binary=binary) as predictor:
            # Float32 scores of float64 sums.
            np.testing.assert_allclose(predictor(ROWS[:count]), foreign.model(ROWS[:count]), atol=1e-6)


def test_triton_announces_that_it_reads_bytes_and_kserve_does_not(triton, kserve):
    # Where it is announced bytes are sent unasked (test_transports); for KServe the operator has to say so.
    announced = [httpx.get(one.server.rest("/v2")).json()["extensions"] for one in (triton, kserve)]
    assert ["binary_tensor_data" in extensions for extensions in announced] == [True, False]
    with asking(triton, "REST") as predictor:
        np.testing.assert_allclose(predictor(ROWS), EXACT(ROWS), atol=1e-6)


def test_many_messages_are_answered_like_one(foreign):
    with asking(foreign, max_message=4096) as predictor:
        assert predictor.rows_per_call(CONTRACT.shape) < 60
        np.testing.assert_allclose(predictor(ROWS), foreign.model(ROWS), atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("road", ["gRPC", "REST"])
def test_every_method_explains_a_foreign_model_and_its_answer_is_verified(foreign, road, method):
    pytest.importorskip("tensorflow")
    with asking(foreign, road) as predictor:
        answer = prepare(fit(METHODS[method], inputs=CONTRACT), predictor)(IMAGE, limits=LIMITS)
    verify(method, answer, foreign.model)
    assert answer.cost.calls > 0


@pytest.mark.parametrize("road", ["gRPC", "REST"])
@pytest.mark.parametrize("settings", [{"model": "nobody"}, {"input_name": "x"}, {"version": "99"}])
def test_what_a_foreign_server_refuses_is_a_typed_error(triton, road, settings):
    with asking(triton, road, **settings) as predictor, pytest.raises(PredictorError):
        predictor(ROWS)


def test_rows_of_another_shape_are_a_typed_error(triton):
    with asking(triton) as predictor, pytest.raises(PredictorError):
        predictor(np.zeros((2, 5), np.float32))


@pytest.mark.parametrize("road", ["gRPC", "REST"])
def test_a_foreign_server_that_is_killed_is_unavailable(tmp_path, road):
    with (
        triton_process(tmp_path) as (server, process),
        asking(Foreign(server, EXACT), road) as predictor,
    ):
        predictor(ROWS)
        process.kill()
        process.wait()
        with pytest.raises(PredictorUnavailable):
            predictor(ROWS)
