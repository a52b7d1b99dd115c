"""HTTP/2 frames by hand (RFC 9113), for clients that no library would be."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterator

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, AWAY, WINDOW, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1


def frame(kind: int, flags: int = 0, stream: int = 0, content: bytes = b"") -> bytes:
    head = len(content).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big")
    return head + content


def fields(pairs: dict[str, str]) -> bytes:
    """Header fields, each literal and not to be remembered (RFC 7541, 6.2.2)."""
    return b"".join(b"\x00" + _text(name.encode()) + _text(value.encode()) for name, value in pairs.items())


def _text(word: bytes) -> bytes:
    if len(word) < 127:
        return bytes([len(word)]) + word
    rest, length = len(word) - 127, b"\x7f"
    while rest > 127:
        rest, length = rest >> 7, length + bytes([rest & 127 | 128])
    return length + bytes([rest]) + word


def asking(path: str, stream: int, **more: str) -> bytes:
    """The head of a gRPC call."""
    named = {name.replace("_", "-"): value for name, value in more.items()}
    pairs = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "x", "te": "trailers"}
    return frame(HEADERS, END_HEADERS, stream, fields({**pairs, "content-type": "application/grpc", **named}))


def message(content: bytes, stream: int, packed: bool = False, ends: bool = True) -> bytes:
    """A gRPC message as frames of 16 KiB."""
    content = bytes([packed]) + len(content).to_bytes(4, "big") + content
    pieces = [content[at : at + 2**14] for at in range(0, len(content), 2**14)]
    flags = [0] * (len(pieces) - 1) + [END_STREAM * ends]
    return b"".join(frame(DATA, flag, stream, one) for flag, one in zip(flags, pieces, strict=True))


@contextlib.contextmanager
def connected(port: int, timeout: float = 20) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        connection.sendall(PREFACE + frame(SETTINGS))
        yield connection


def frames(connection: socket.socket) -> Iterator[tuple[int, int, int, bytes]]:
    """Kind, flags, stream and content of each frame that comes, until the other side closes."""
    waiting = b""
    while True:
        while len(waiting) >= 9:
            size = int.from_bytes(waiting[:3], "big")
            if len(waiting) < 9 + size:
                break
            yield waiting[3], waiting[4], int.from_bytes(waiting[5:9], "big"), waiting[9 : 9 + size]
            waiting = waiting[9 + size :]
        try:
            piece = connection.recv(65536)
        except ConnectionResetError:
            return
        if not piece:
            return
        waiting += piece


def status(connection: socket.socket, stream: int) -> str:
    """How a call ended: the number of its gRPC status, or what came in its place.

    gRPC's server resets a stream that it has not read to its end, and tells its status afterwards.
    """
    for kind, flags, of, content in frames(connection):
        if of == stream and kind == HEADERS and flags & END_STREAM:
            found = re.search(rb"grpc-status.(\d+)", content, re.DOTALL)
            return found[1].decode() if found else "no status"
        if kind == AWAY:
            return "away"
    return "closed"
