"""What a suite leaves behind is seen."""

import os
import socket
import subprocess
import sys

import leftovers

ORPHAN = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'input()'])"


def test_a_process_is_known_by_its_environment_though_its_parent_has_ended():
    reads, writes = os.pipe()
    try:
        env = {**os.environ, "LEFT": "behind"}
        subprocess.run([sys.executable, "-c", ORPHAN], stdin=reads, env=env, check=True)
        (said,) = leftovers.processes("LEFT=behind", grace=0)
        assert "input()" in said
    finally:
        os.close(writes)  # it reads the end, and ends
        os.close(reads)
    assert not list(leftovers.processes("LEFT=behind"))


def test_a_port_is_seen_while_it_is_listened_on():
    before = set(leftovers.ports())
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert set(leftovers.ports()) - before == {f"port {server.getsockname()[1]}"}
    assert set(leftovers.ports()) == before
