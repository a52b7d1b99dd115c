"""Makes the picture of the served page that README shows, of what `explainer-runtime demo` has left.

    python scripts/screenshot.py [demo] [docs/page.png]

It serves three of the demo's explainers with `--page`, asks about the demo's ankle boot, and looks.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import orjson
from PIL import Image
from playwright.sync_api import sync_playwright

from explainer_runtime.demo.servers import free_ports, serving
from explainer_runtime.spec import Inputs

SERVED = ("fashion-cf", "fashion-anchor", "fashion-attribution")
WINDOW = {"width": 1240, "height": 900}
MOST = 200_000
"""Bytes of the file."""
PATIENCE = 120_000
"""Milliseconds."""


def boot(demo: Path) -> bytes:
    """The picture in the demo's request, as a PNG file."""
    tensor = orjson.loads((demo / "request.json").read_bytes())["inputs"][0]
    row = np.array(tensor["data"], np.float32).reshape(tensor["shape"])[0]
    inputs = Inputs(**orjson.loads((demo / SERVED[0] / "explainer.json").read_bytes())["inputs"])
    pixels = (255 * (row[..., 0] - inputs.low) / (inputs.high - inputs.low)).round().astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def looked_at(url: str, picture: bytes) -> bytes:
    """The page with one answer, as a PNG file."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.getuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        page = browser.new_page(viewport=WINDOW, color_scheme="light")
        page.set_default_timeout(PATIENCE)
        page.goto(url)
        page.get_by_role("button", name=f"Explain with {SERVED[0]}", exact=True).wait_for()
        page.set_input_files("#file", {"name": "boot.png", "mimeType": "image/png", "buffer": picture})
        page.locator("#model").wait_for()
        page.get_by_role("button", name=f"Explain with {SERVED[0]}", exact=True).click()
        page.locator(".answer").wait_for()
        page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
        seen = page.screenshot(full_page=True)
        browser.close()
    return seen


def main(demo: str = "demo", out: str = "docs/page.png") -> None:
    """Write the picture."""
    folder = Path(demo).resolve()
    served = [str(folder / name) for name in SERVED]
    with tempfile.TemporaryDirectory() as scratch:
        arguments = [*served, "--model", str(folder / "fashion-cnn.keras"), "--page", "--page-samples"]
        with serving([(Path(scratch) / "log", arguments)], free_ports(3)) as (server,):
            seen = Image.open(io.BytesIO(looked_at(server.url("/page/"), boot(folder))))
    # By coverage: among the most frequent colours the red and blue of a few changed pixels are brown.
    few = seen.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(out, optimize=True)
    size = Path(out).stat().st_size
    print(f"{out}: {seen.width} by {seen.height} pixels, {size:,} bytes")
    if size > MOST:
        sys.exit(f"expected at most {MOST:,} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
