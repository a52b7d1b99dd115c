"""What every test needs: the toys beside it, and TensorFlow without its banner.

The suite leaves nothing behind: at its end there is no process that a test has started, no port that this one
listens on, and no scratch directory of ours. What is there all the same fails the run, by name.
"""

import os
import shutil
import tempfile
import uuid
from pathlib import Path

import databases
import leftovers
import pytest
from hypothesis import settings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

# Nothing depends on the clock, nor on chance: every run has the same examples. `make explore` draws others.
settings.register_profile("ours", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("EXPLAINER_RUNTIME_EXAMPLES", "ours"))

MARK = f"EXPLAINER_RUNTIME_SUITE={uuid.uuid4()}"
"""What every process that a test starts has in its environment, whoever its parent is by then."""
os.environ.update([MARK.split("=")])
# A directory of our own: others work on this machine, too, and may be testing the same. Short, since the path
# of a socket may have a hundred letters.
SCRATCH = Path(tempfile.mkdtemp(prefix="er-"))
os.environ["TMPDIR"] = tempfile.tempdir = str(SCRATCH)


_left: list[str] = []
"""What was left behind: here, and by the processes that share the tests where there are some."""


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    _left.extend(getattr(node, "workeroutput", {}).get("left", ()))


def pytest_sessionfinish(session):
    _left.extend(leftovers.processes(MARK))
    _left.extend(leftovers.ports())
    _left.extend(str(path) for path in SCRATCH.glob("explainer-runtime-*"))
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left"] = _left
    elif _left:
        print("\nleft behind:", *_left, sep="\n  ")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    if session.exitstatus == pytest.ExitCode.OK or not any(SCRATCH.iterdir()):
        shutil.rmtree(SCRATCH, ignore_errors=True)
    else:
        print(f"\nlogs and files of the tests: {SCRATCH}")


@pytest.fixture(scope="session")
def postgresql():
    """URL of a real PostgreSQL; a test that asks for it is skipped where there is none."""
    with databases.postgresql() as url:
        if url is None:
            pytest.skip(databases.MISSING)
        yield url
