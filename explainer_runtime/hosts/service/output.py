"""One voice for a process: whatever anything in it prints becomes a line of the log.

Libraries in C++ write to descriptor 2 when and how they like, and others print; whoever reads the log as JSON
stumbles over each of these lines. So both descriptors become a pipe that is read here, and only the log
itself has what was stderr, and audit records what was stdout.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator

from explainer_runtime.hosts.service import audit, logs

_log = logging.getLogger("explainer_runtime.printed")
_LONGEST = 1000
_CHATTER = re.compile(r"I\d{4} |WARNING: All log messages before absl::InitializeLog")
"""What TensorFlow says at every start, whatever level it is told."""


@contextlib.contextmanager
def one_voice() -> Iterator[None]:
    """Within, stdout and stderr are the log's; at the end they are what they were."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    reader, writer = os.pipe()
    os.dup2(writer, 1)
    os.dup2(writer, 2)
    os.close(writer)
    with os.fdopen(kept[1], "w", buffering=1, closefd=False, errors="backslashreplace") as out:
        logs.write_to(out)
        audit.write_to(kept[0])
        faulthandler.enable(out)  # of a crash nobody is left to read the pipe
        listening = threading.Thread(target=_listen, args=(reader,), name="printed", daemon=True)
        listening.start()
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            faulthandler.disable()
            os.dup2(kept[0], 1)
            os.dup2(kept[1], 2)
            # Ends at once, unless a process that this one has started still holds the other end.
            listening.join(timeout=1)
            logs.write_to(None)
            audit.write_to(1)
    os.close(kept[0])
    os.close(kept[1])


def _listen(reader: int) -> None:
    with os.fdopen(reader, errors="backslashreplace") as lines:
        for line in lines:
            if line.strip() and not _CHATTER.match(line):
                _log.info("%s", line.strip()[:_LONGEST])
