"""The image's requirements, each release pinned with its digests: deploy/image/requirements/*.txt.

    make lock            # or: python scripts/write_locks.py

Two builds of a commit then hold the same packages. What serving never imports is left out. That was measured:
a server answered REST, gRPC, a stream, a picture, metrics and its documentation, with every segmentation, and
`sys.modules` was read at its end. A build imports what serving does, so a release that begins to need one of
them fails there.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
TO = ROOT / "deploy" / "image" / "requirements"

UNUSED = {
    # MLServer's batch client, which asks other servers.
    "tritonclient": "its client", "python-rapidjson": "of tritonclient", "aiohttp": "of tritonclient",
    "aiohappyeyeballs": "of aiohttp", "aiosignal": "of aiohttp", "multidict": "of aiohttp",
    "yarl": "of aiohttp", "frozenlist": "of aiohttp", "propcache": "of aiohttp", "attrs": "of aiohttp",
    "gevent": "of tritonclient", "greenlet": "of gevent", "geventhttpclient": "of tritonclient",
    "zope-event": "of gevent", "zope-interface": "of gevent", "brotli": "of geventhttpclient",
    "pycparser": "of cffi", "urllib3": "of geventhttpclient",
    # scikit-image's graphs and files.
    "networkx": "of scikit-image", "imageio": "of scikit-image", "tifffile": "of scikit-image",
}  # fmt: skip
"""Packages that no server imports, and whose they are."""
TENSORFLOW_UNUSED = {"libclang": "of TensorFlow's build", "wheel": "of astunparse's build"}

TARGETS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    # extras, other requirements, what is left out
    "build": ((), ("pip>=25", "hatchling>=1.25"), ()),
    "mlserver": (("mlserver", "superpixels", "sign", "postgres"), (), (*UNUSED, "ml-dtypes")),
    # The same TensorFlow without what only its GPUs need, a third smaller.
    "mlserver-tensorflow": (
        ("mlserver", "superpixels", "sign", "postgres"),
        ("tensorflow-cpu>=2.21,<2.22", "keras>=3.15,<4"),
        (*(UNUSED.keys() - {"urllib3"}), *TENSORFLOW_UNUSED),  # Keras asks for it, by requests
    ),
    "kserve": (("kserve", "superpixels", "sign", "postgres"), (), ("networkx", "imageio", "tifffile")),
}


def compile_(name: str) -> str:
    """The lock of one target."""
    extras, others, without = TARGETS[name]
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"
    words = [uv, "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes"]
    words += ["--no-header", "--no-annotate"]
    words += [word for one in without for word in ("--no-emit-package", one)]
    with tempfile.NamedTemporaryFile("w", suffix=".in") as more:
        more.write("\n".join(others))
        more.flush()
        words += [word for extra in extras for word in ("--extra", extra)]
        sources = ["pyproject.toml"] if extras else []
        sources += [more.name] if others else []
        done = subprocess.run([*words, *sources], cwd=ROOT, capture_output=True, text=True, check=True)
    return f"# Of the target {name}; written by scripts/write_locks.py.\n{done.stdout}"


def main() -> None:
    """Write all of them."""
    TO.mkdir(exist_ok=True)
    for name in TARGETS:
        (TO / f"{name}.txt").write_text(compile_(name))


if __name__ == "__main__":
    main()
