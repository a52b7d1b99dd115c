"""A process that explains blocks: one thread, words in, tables out.

Messages are two lengths, a line of JSON, and what goes with it, which is a table as Arrow streams it. They
come on stdin and go to what was stdout; whatever else is printed goes to stderr. When stdin ends, so does the
process, whatever it is doing: nobody is there to take its answers.
"""

from __future__ import annotations

import json
import os
import queue
import struct
import threading
import time
from collections.abc import Mapping
from functools import partial
from typing import IO, Any

_LENGTHS = struct.Struct(">IQ")
_FIRST, _LONGEST = 1.0, 30.0
"""Seconds between two tries at a model that cannot be reached: the first time, and at most."""


def send(stream: IO[bytes], said: Mapping[str, Any], body: bytes | memoryview = b"") -> None:
    """Write one message to an unbuffered stream."""
    line = json.dumps(said).encode()
    data = memoryview(b"".join((_LENGTHS.pack(len(line), len(body)), line, body)))
    while data:
        data = data[stream.write(data) :]


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], bytes] | None:
    """The next message of an unbuffered stream; None where it has ended, or ends within one."""
    if (lengths := _exactly(stream, _LENGTHS.size)) is None:
        return None
    line, body = (_exactly(stream, length) for length in _LENGTHS.unpack(lengths))
    return None if line is None or body is None else (json.loads(line), body)


def _exactly(stream: IO[bytes], length: int) -> bytes | None:
    held = bytearray()
    while len(held) < length:
        if not (more := stream.read(length - len(held))):
            return None
        held += more
    return bytes(held)


def main() -> None:
    """Explain what comes until nothing does."""
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    blocks: queue.Queue[tuple[dict[str, Any], bytes]] = queue.Queue()
    grants: queue.Queue[float] = queue.Queue()

    given = os.fdopen(0, "rb", buffering=0, closefd=False)

    def listen() -> None:
        while (message := receive(given)) is not None:
            if message[0]["kind"] == "grant":
                grants.put(message[0]["seconds"])
            else:
                blocks.put(message)
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    asked, _ = blocks.get()

    def turn(rows: int) -> None:
        send(out, {"kind": "turn", "rows": rows})
        time.sleep(grants.get())

    from explainer_runtime.errors import ExplainerError

    try:
        _work(asked, blocks, out, turn if asked["paced"] else None)
    except ExplainerError as error:
        field = getattr(error, "field", None)
        send(out, {"kind": "error", "type": type(error).__name__, "message": str(error), "field": field})
        threading.Event().wait()  # until stdin ends: whoever reads this has read it then


def _work(asked: Mapping[str, Any], blocks: Any, out: IO[bytes], turn: Any) -> None:
    import pyarrow as pa

    from explainer_runtime.batch.run import Explains
    from explainer_runtime.errors import PredictorTimeout, PredictorUnavailable

    def patiently(work: Any) -> Any:
        end, wait = time.monotonic() + asked["patience"], _FIRST
        while True:
            try:
                return work()
            except (PredictorUnavailable, PredictorTimeout):
                if time.monotonic() + wait > end:
                    raise
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST)

    explains = patiently(lambda: Explains(**asked["explains"], turn=turn))
    send(out, {"kind": "ready", "model": explains.model, "dear": explains.prepared.dear})
    while True:
        said, body = blocks.get()
        records = pa.ipc.open_stream(body).read_all()
        answers = patiently(partial(explains, records, said["draw"]))
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, answers.schema) as writer:
            writer.write_table(answers)
        done = {"kind": "done", "block": said["block"], "model": explains.model}
        send(out, done, memoryview(sink.getvalue()))


if __name__ == "__main__":
    main()
