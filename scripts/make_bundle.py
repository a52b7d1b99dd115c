"""Everything that a site without a network needs, in one directory.

make bundle          # or: python scripts/make_bundle.py dist/bundle mlserver

wheels/              of the package and of all that the target pins, for this machine's Python and platform
requirements.txt     the pins, with digests, and the package itself with that of its wheel
sbom.cdx.json        the same as a bill of materials (CycloneDX 1.5)
charts/*.tgz         the chart
image/               Dockerfile and what it copies
SHA256SUMS           of every file

pip install --no-index --find-links wheels --no-deps --require-hashes -r requirements.txt
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]


def build(to: Path, target: str, lock: Path | None = None, helm: Path = ROOT / ".tools" / "helm3") -> None:
    """Write the bundle of one target.

    Args:
        to: A directory that is replaced.
        target: Of the Dockerfile.
        lock: Pins to take in place of the target's.
        helm: The program that packs the chart; without it the chart is copied as it is.
    """
    lock = lock or ROOT / "deploy" / "image" / "requirements" / f"{target}.txt"
    shutil.rmtree(to, ignore_errors=True)
    wheels = to / "wheels"
    wheels.mkdir(parents=True)
    subprocess.run([*PIP, "wheel", "--no-deps", "--wheel-dir", wheels, ROOT], check=True)
    (own,) = wheels.glob("*.whl")
    words = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--dest", wheels, "-r", lock]
    subprocess.run([*PIP, "download", *words], check=True)
    name, version = own.name.split("-")[:2]
    pin = f"{name.replace('_', '-')}=={version} --hash=sha256:{digest(own)}\n"
    (to / "requirements.txt").write_text(lock.read_text() + pin)
    (to / "sbom.cdx.json").write_text(json.dumps(bill(wheels, target), indent=1) + "\n")
    pack_chart(to / "charts", helm)
    for path in ("Dockerfile", ".dockerignore", "pyproject.toml", "README.md", "LICENSE"):
        (to / "image").mkdir(exist_ok=True)
        shutil.copy(ROOT / path, to / "image" / path)
    ignore = shutil.ignore_patterns("__pycache__")
    for path in ("explainer_runtime", "deploy/image"):
        shutil.copytree(ROOT / path, to / "image" / path, ignore=ignore)
    sums = [f"{digest(path)}  {path.relative_to(to)}\n" for path in files(to)]
    (to / "SHA256SUMS").write_text("".join(sums))


def pack_chart(to: Path, helm: Path) -> None:
    """The chart as Helm installs it."""
    to.mkdir()
    chart = ROOT / "charts" / "explainer-runtime"
    if helm.exists():
        subprocess.run([helm, "package", chart, "--destination", to], check=True, stdout=subprocess.DEVNULL)
    else:
        shutil.copytree(chart, to / chart.name)


def bill(wheels: Path, target: str) -> dict[str, Any]:
    """The wheels as a CycloneDX document, without time or serial number: the same wheels give the same."""
    components = []
    for wheel in sorted(wheels.glob("*.whl")):
        said = metadata(wheel)
        name = re.sub(r"[-_.]+", "-", said["Name"]).lower()
        component = {
            "type": "library",
            "name": name,
            "version": said["Version"],
            "purl": f"pkg:pypi/{name}@{said['Version']}",
            "bom-ref": f"pkg:pypi/{name}@{said['Version']}",
            "hashes": [{"alg": "SHA-256", "content": digest(wheel)}],
        }
        if licence := said["License-Expression"]:
            component["licenses"] = [{"expression": licence}]
        elif (licence := said["License"]) and "\n" not in licence:
            component["licenses"] = [{"license": {"name": licence}}]
        components.append(component)
    about = {"type": "application", "name": f"explainer-runtime ({target})"}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": about},
        "components": components,
    }


def metadata(wheel: Path) -> Any:
    """What a wheel says about itself."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (one for one in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", one))
        return HeaderParser().parsestr(archive.read(name).decode())


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def files(folder: Path) -> Iterator[Path]:
    """Every file below a folder, in order."""
    return iter(sorted(path for path in folder.rglob("*") if path.is_file()))


if __name__ == "__main__":
    build(Path(sys.argv[1]), sys.argv[2])
