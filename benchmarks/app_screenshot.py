"""The pictures of docs/app.md and the README: the page with the rendered street fused, in Chromium, desktop and phone.

python benchmarks/app_screenshot.py [--folder docs/img]
"""

from __future__ import annotations

import argparse
import base64
import io
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from served import serving
from test_app_browser import Page


def shot(page: Page, height: int, width: int) -> Image.Image:
    """The page from its top, so many CSS pixels."""
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    answer = page.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    with Image.open(io.BytesIO(base64.b64decode(answer["data"]))) as image:
        return image.convert("RGB")


def fuse_street(page: Page) -> None:
    page.until(lambda: [b for b in page.all("button") if "Street" in b.text])[0].click()
    page.says("#look-visible", "640 x 480")
    page.click("#fuse")
    page.says("#status", "Done in")
    time.sleep(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("docs/img"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, serving(folder) as server:
        for name, size, height in (("app", (1180, 900), 1620), ("app-phone", (390, 844), 2050)):
            page = Page(server.address, size)
            fuse_street(page)
            width = page.driver.execute_script("return document.documentElement.clientWidth")
            image = shot(page, height, width)
            page.close()
            image.thumbnail((900, 1600) if name == "app" else (390, 2100), Image.Resampling.LANCZOS)
            image.quantize(256, dither=Image.Dither.NONE).save(options.folder / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
