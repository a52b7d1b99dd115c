"""`py.typed` holds: type checkers see what users use, and see what is wrong with it."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

HOME = Path(__file__).parents[1]
USES = HOME / "tests" / "typing" / "uses.py"
WRONG = [number for number, line in enumerate(USES.read_text().splitlines(), 1) if line.endswith("# wrong")]


def mypy() -> set[int]:
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "--output", "json", str(USES)]
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert {Path(one["file"]).name for one in found} == {USES.name}
    return {one["line"] for one in found if one["severity"] == "error"}


def pyright() -> set[int]:
    if find_spec("basedpyright") is None:
        pytest.skip("no basedpyright, which is pyright as a wheel; `make test` installs it")
    settings = json.dumps({"typeCheckingMode": "standard", "include": [str(USES)], "pythonVersion": "3.11"})
    (project := USES.with_name("pyrightconfig.json")).write_text(settings)
    try:
        where = ["--project", str(project), "--pythonpath", sys.executable]
        command = [sys.executable, "-m", "basedpyright", "--outputjson", *where]
        done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, check=False)
    finally:
        project.unlink()
    found = json.loads(done.stdout)["generalDiagnostics"]
    return {one["range"]["start"]["line"] + 1 for one in found if one["severity"] == "error"}


@pytest.mark.parametrize("checker", [mypy, pyright], ids=lambda checker: checker.__name__)
def test_right_uses_are_right_and_wrong_ones_are_noticed(checker):
    assert len(WRONG) == 7
    assert checker() == set(WRONG)
