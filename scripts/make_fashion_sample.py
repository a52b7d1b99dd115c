"""Make explainer_runtime/data/fashion_mnist.npz, the sample that ships with the package.

It is the first 6,000 training and the first 1,000 test images of Fashion-MNIST (MIT licence, Zalando SE), so
that an index means the same image as in the full set. They come from Debian's package
`dataset-fashion-mnist`: a .deb that is already here, an installed copy, or one fetched with apt-get.

    python scripts/make_fashion_sample.py                       # apt-get download
    python scripts/make_fashion_sample.py dataset-fashion-mnist_*_all.deb
    python scripts/make_fashion_sample.py /usr/share/datasets/fashion-mnist

The same images give the same bytes (with the same zlib).
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from explainer_runtime.data import load

PACKAGE = "dataset-fashion-mnist"
TARGET = Path(__file__).parents[1] / "explainer_runtime" / "data" / "fashion_mnist.npz"
TRAIN, TEST = 6_000, 1_000
MOST_BYTES = 4_000_000


def main() -> None:
    """Write the sample, and say how large it is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", nargs="?", type=Path, help="a .deb, or a directory of IDX files")
    parser.add_argument("--out", type=Path, default=TARGET, help="file to write (default: %(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        source = arguments.source or download(Path(scratch))
        folder = source if source.is_dir() else extract(source, Path(scratch))
        write(folder, arguments.out)
    data = arguments.out.read_bytes()
    print(f"{arguments.out}: {len(data)} bytes, SHA-256 {hashlib.sha256(data).hexdigest()}")
    if len(data) > MOST_BYTES:
        raise SystemExit(f"more than {MOST_BYTES} bytes")


def download(scratch: Path) -> Path:
    """The package as a .deb in `scratch`."""
    subprocess.run(["apt-get", "download", PACKAGE], cwd=scratch, check=True)
    (deb,) = scratch.glob(f"{PACKAGE}_*.deb")
    return deb


def extract(deb: Path, scratch: Path) -> Path:
    """The directory of IDX files in a .deb."""
    subprocess.run(["dpkg-deb", "-x", deb, scratch / "root"], check=True)
    return scratch / "root" / "usr" / "share" / "datasets" / "fashion-mnist"


def write(folder: Path, out: Path) -> None:
    """Write the sample of the full set in `folder` to `out`."""
    full = load("fashion_mnist", root=folder, scale=None)
    np.savez_compressed(
        out,
        x_train=full.x_train[:TRAIN, :, :, 0],
        y_train=full.y_train[:TRAIN].astype(np.uint8),
        x_test=full.x_test[:TEST, :, :, 0],
        y_test=full.y_test[:TEST].astype(np.uint8),
    )


if __name__ == "__main__":
    main()
