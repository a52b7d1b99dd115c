"""Real servers in processes of their own: started, waited for, and always stopped."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from explainer_runtime.errors import ExplainerError

_PATIENCE = 180.0
"""Seconds until a server must be ready; on two busy cores TensorFlow alone can take twenty."""


@dataclass(frozen=True)
class Server:
    """One `explainer-runtime serve` on loopback.

    Attributes:
        process: It.
        http: Port of REST.
        grpc: Port of gRPC.
        log: File that has everything it wrote.
    """

    process: subprocess.Popen[bytes]
    http: int
    grpc: int
    log: Path

    def url(self, path: str) -> str:
        """Address of a REST path."""
        return f"http://127.0.0.1:{self.http}{path}"

    @property
    def target(self) -> str:
        """Address for a gRPC channel."""
        return f"127.0.0.1:{self.grpc}"


@contextmanager
def serving(commands: Sequence[tuple[Path, Sequence[str]]], ports: Sequence[int]) -> Iterator[list[Server]]:
    """Servers that are ready, stopped when the block is left, however it is left.

    Args:
        commands: For each server its log file and the arguments of `serve`, without ports.
        ports: Three free ports for each: REST, gRPC, metrics.

    Raises:
        ExplainerError: One of them did not come up; with the end of its log.
    """
    with ExitStack() as stack:
        servers = []
        for index, (log, arguments) in enumerate(commands):
            own = ports[3 * index : 3 * index + 3]
            process = stack.enter_context(_process(arguments, own, log))
            servers.append(Server(process, own[0], own[1], log))
        try:
            for server in servers:
                _wait_until_ready(server)
            yield servers
        finally:
            for server in servers:  # all at once; each is waited for as the stack unwinds
                server.process.terminate()


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def tail(log: Path, lines: int = 20) -> str:
    """The end of a log."""
    with suppress(OSError):
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    return ""


@contextmanager
def _process(arguments: Sequence[str], ports: Sequence[int], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    names = ("--http-port", "--grpc-port", "--metrics-port")
    flags = [word for name, port in zip(names, ports, strict=True) for word in (name, str(port))]
    command = [sys.executable, "-m", "explainer_runtime.cli", "serve", *arguments, *flags]
    with log.open("wb") as output:
        # In a session of its own: Ctrl-C reaches us, and we stop it in order.
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)  # noqa: S603
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(server: Server) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and server.process.poll() is None:
        with suppress(httpx.TransportError):
            if httpx.get(server.url("/v2/health/ready")).status_code == 200:
                return
        with suppress(subprocess.TimeoutExpired):
            server.process.wait(timeout=0.2)
    status = server.process.poll()
    what = "is not ready in time" if status is None else f"stopped with status {status}"
    raise ExplainerError(f"the server that logs to {server.log} {what}:\n{tail(server.log)}")
