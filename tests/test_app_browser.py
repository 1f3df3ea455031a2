"""The page in a real browser: Chromium, driven by Selenium.

Skipped where there is none; with DDFM_BROWSER=required, as in CI, that is a failure.
"""

import io
import os
import shutil
import time
import zipfile

import numpy as np
import pytest
from PIL import Image

import ddfm
from ddfm import samples
from served import serving

gradio = pytest.importorskip("gradio")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


def missing():
    """Why there is no browser, "" if there is one."""
    if not CHROMIUM or not DRIVER:
        return "no chromium or chromedriver on the path (Debian: chromium, chromium-driver)"
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "no selenium"
    return ""


def test_there_is_a_browser_where_one_is_required():
    if os.environ.get("DDFM_BROWSER") == "required":
        assert not missing()


pytestmark = []
if missing() and os.environ.get("DDFM_BROWSER") != "required":
    pytestmark = [pytest.mark.skip(reason=missing())]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("tmp"), "--max-mb", "2", "--max-mp", "1") as served:
        yield served


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    scene = samples.street((96, 128), 0)
    for name, data in (("ir", scene.infrared), ("vis", scene.visible)):
        Image.fromarray(np.rint(data * 255).astype(np.uint8)).save(folder / f"{name}.png")
    (folder / "wrong.png").write_bytes(b"this is no picture")
    Image.new("L", (1200, 1000)).save(folder / "huge.png")
    (folder / "heavy.png").write_bytes((folder / "ir.png").read_bytes() + b"\0" * (3 << 20))
    for name in ("ir", "vis"):
        with zipfile.ZipFile(folder / f"{name}.zip", "w") as archive:
            for k in (1, 2):
                archive.write(folder / f"{name}.png", f"{k}_{name}.png")
    return folder


class Page:
    """A tab that is open at the page."""

    def __init__(self, address, size=(1280, 900), downloads=None):
        from selenium import webdriver

        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", f"--window-size={size[0]},{size[1]}"):
            options.add_argument(word)
        if downloads:
            options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
        if size[0] < 500:
            width, height = size
            screen = {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": True}
            self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        self.open(address)

    def open(self, address):
        self.driver.get(address)
        self.until(lambda: self.all("#fuse"))
        time.sleep(0.5)  # until its events are bound

    def all(self, selector):
        from selenium.webdriver.common.by import By

        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector):
        self.until(lambda: self.all(selector))
        return self.all(selector)[0]

    def text(self, selector):
        return " ".join(element.text for element in self.all(selector))

    def until(self, ready, seconds=60):
        from selenium.common.exceptions import StaleElementReferenceException

        end = time.monotonic() + seconds
        while True:
            try:
                if found := ready():
                    return found
            except StaleElementReferenceException:
                pass
            assert time.monotonic() < end, f"waited in vain; status: {self.text('[role=status], [role=alert]')}"
            time.sleep(0.1)

    def says(self, selector, words, seconds=60):
        self.until(lambda: words in self.text(selector), seconds)

    def click(self, selector):
        element = self.one(selector)
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def tab(self, words):
        next(tab for tab in self.all("button[role=tab]") if words in tab.text).click()

    def drop(self, where, *paths):
        self.one(f"{where} input[type=file]").send_keys("\n".join(map(str, paths)))

    def drop_both(self, files):
        self.drop("#file-infrared", files / "ir.png")
        self.drop("#file-visible", files / "vis.png")
        self.says("#look-infrared", "ir.png: 128 x 96")
        self.says("#look-visible", "vis.png: 128 x 96")

    def details(self, name, value):
        if not self.all(f"#{name} input, #{name} textarea"):
            self.click("#details button")
        field = self.one(f"#{name} input, #{name} textarea")
        field.clear()
        field.send_keys(value)

    def picture(self, selector):
        """What an img shows, as an array (H, W, 3)."""
        script = """const image = arguments[0], done = arguments[1];
        const draw = () => { const c = document.createElement('canvas'); c.width = image.naturalWidth;
          c.height = image.naturalHeight; c.getContext('2d').drawImage(image, 0, 0); done(c.toDataURL()); };
        image.complete ? draw() : image.onload = draw;"""
        import base64

        url = self.driver.execute_async_script(script, self.one(selector))
        with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as image:
            return np.asarray(image.convert("RGB"))

    def close(self):
        self.driver.quit()


@pytest.fixture
def page(server, tmp_path):
    opened = Page(server.address, downloads=tmp_path)
    yield opened
    severe = [e["message"] for e in opened.driver.get_log("browser") if e["level"] == "SEVERE"]
    opened.close()
    expected = ("413", "aborted", "Connection errored out")  # what too large a file and leaving the page bring
    assert not [message for message in severe if not any(word in message for word in expected)]


def requested(page):
    """Addresses that the browser asked for."""
    import json

    for entry in page.driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            yield message["params"]["request"]["url"]


def test_upload_fuse_slide_download(page, server, files, tmp_path):
    from selenium.webdriver.common.keys import Keys

    page.drop_both(files)
    page.click("#fuse")
    page.says("#status", "Done in")
    expected = ddfm.fuse(files / "ir.png", files / "vis.png", device="cpu")
    assert np.array_equal(page.picture("#result .dd-over"), np.asarray(expected.to_pil()))
    with Image.open(files / "vis.png") as source:
        shown = page.picture("#result .dd-compare:nth-of-type(2) .dd-stack img")
        assert np.array_equal(shown, np.asarray(source))
    slider = page.one("#result input[type=range]")
    before = page.driver.execute_script("return getComputedStyle(arguments[0]).clipPath", page.one(".dd-over"))
    slider.send_keys(Keys.ARROW_LEFT * 10)  # with the keyboard alone
    after = page.driver.execute_script("return getComputedStyle(arguments[0]).clipPath", page.one(".dd-over"))
    assert "50%" in before and "60%" in after
    width = page.one(".dd-stack").size["width"]
    page.all("#result .dd-compare")[0].find_elements("css selector", "input[type=range]")[1].send_keys(
        Keys.ARROW_RIGHT * 4
    )
    assert page.one(".dd-stack").size["width"] == pytest.approx(3 * width, rel=0.02)
    assert "edges" in page.text("#values") and "minRetention" in page.text("#values")
    for name, end in (("png", "fused.png"), ("tif", "fused-16bit.tif"), ("json", "settings.json")):
        page.click(f"#get-{name}")
        page.until(lambda end=end: (tmp_path / end).is_file())
    assert (tmp_path / "fused.png").read_bytes() == expected.encode(".png")
    elsewhere = [url for url in requested(page) if not url.startswith((server.address, "data:", "blob:", "chrome"))]
    assert not elsewhere


def test_an_example_needs_three_clicks(page):
    page.until(lambda: [b for b in page.all("button") if "CT and MRI" in b.text])[0].click()
    page.says("#look-infrared", "256 x 256")
    page.says("#look-visible", "256 x 256")
    page.click("#fuse")
    page.says("#status", "medical@")


def test_cancel_in_the_middle(page, files):
    page.drop_both(files)
    page.click("#preset label:nth-of-type(5)")  # the paper's: a hundred evaluations
    page.click("#fuse")
    page.says("#status", "step")
    page.click("#cancel")
    page.says("#status", "Stopped", 15)
    assert not page.all("#result .dd-compare")
    page.click("#preset label:nth-of-type(1)")
    page.click("#fuse")
    page.says("#status", "Done in")


@pytest.mark.parametrize(("name", "words"), [("wrong.png", "PNG, JPEG, TIFF"), ("huge.png", "1200 x 1000 pixels")])
def test_a_wrong_or_oversized_picture(page, files, name, words):
    page.drop("#file-infrared", files / name)
    page.says("#look-infrared", words)
    page.drop("#file-visible", files / "vis.png")
    page.says("#look-visible", "vis.png")
    page.click("#fuse")
    page.says("#status", words)
    assert "ddfm-app" not in page.text("body") and "/tmp" not in page.text("body")


def test_too_many_bytes_are_refused(page, files):
    page.drop("#file-infrared", files / "heavy.png")
    page.until(lambda: "exceed" in page.text("body").lower() or "too large" in page.text("body").lower())


def test_a_missing_picture_is_told(page, files):
    page.click("#fuse")
    page.says("#status", "no thermal and no visible")
    page.drop_both(files)
    page.click("#fuse")
    page.says("#status", "Done in")
    page.click("#file-visible button[aria-label*=lear], #file-visible .icon-button-wrapper button")
    page.until(lambda: not page.text("#look-visible"))
    page.click("#fuse")
    page.says("#status", "no visible one")
    assert not page.all("#result .dd-compare") and not page.text("#values")  # of the run before


def test_cancelling_what_waits_takes_it_out_of_the_queue(server, files):
    first, second = Page(server.address), Page(server.address)
    try:
        for page in (first, second):
            page.drop_both(files)
        first.click("#preset label:nth-of-type(5)")
        first.click("#fuse")
        first.says("#status", "step")
        second.click("#fuse")
        second.says("#status", "Waiting for its turn")
        second.click("#cancel")
        second.says("#status", "Stopped", 10)
        first.click("#cancel")
        first.says("#status", "Stopped", 15)
        time.sleep(3)
        assert "Done" not in second.text("#status") and not second.all("#result .dd-compare")
    finally:
        first.close()
        second.close()


def test_two_users_at_once(server, files):
    """Each sees its own result and nobody else's, and one's cancelling does not stop the other."""
    first, second = Page(server.address), Page(server.address)
    try:
        for page in (first, second):
            page.drop_both(files)
        first.details("steps", "40")
        first.details("noise", "0")
        second.details("seed", "7")
        first.click("#fuse")
        first.says("#status", "step")
        second.click("#fuse")
        second.click("#cancel")  # what it waits for is the other's work
        second.click("#fuse")
        first.says("#status", "Done in")
        second.says("#status", "Done in")
        shown = [page.picture("#result .dd-over") for page in (first, second)]
        options = {"device": "cpu", "preset": "balanced"}
        both = (files / "ir.png", files / "vis.png")
        assert np.array_equal(shown[0], np.asarray(ddfm.fuse(*both, steps=40, noise_std="0", **options).to_pil()))
        assert np.array_equal(shown[1], np.asarray(ddfm.fuse(*both, seed=7, **options).to_pil()))
    finally:
        first.close()
        second.close()


def test_refresh_in_the_middle(page, server, files):
    page.drop_both(files)
    page.click("#preset label:nth-of-type(5)")
    page.click("#fuse")
    page.says("#status", "step")
    page.driver.refresh()
    page.until(lambda: page.all("#fuse"))
    time.sleep(1)
    assert "preset=paper" in page.driver.current_url  # the settings are in the address
    assert page.one("#preset label:nth-of-type(5) input").is_selected()
    page.click("#preset label:nth-of-type(1)")
    page.drop_both(files)
    page.click("#fuse")
    page.says("#status", "Done in", 30)  # the work that was left no longer holds the queue


def test_the_link_restores_the_settings(page, server):
    page.details("seed", "42")
    page.details("noise", "0.05")
    page.until(lambda: "seed=42" in page.driver.current_url and "noise=0.05" in page.driver.current_url)
    link = page.driver.current_url
    page.open(link)
    page.click("#details button")
    page.until(lambda: page.one("#seed input").get_attribute("value") == "42")
    assert page.one("#noise input, #noise textarea").get_attribute("value") == "0.05"
    page.open(f"{server.address}/?preset=nonsense")
    page.says("#link-said", "not used")


def test_how_it_came_about(page, files):
    page.drop_both(files)
    page.tab("How it came about")
    page.click("#explain")
    page.says("#explain-status", "Done", 120)
    page.driver.switch_to.frame(page.one("#report iframe"))
    page.says("body", "How this picture came about")
    assert page.all("input[type=range]") and page.all("img")
    assert page.driver.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    page.driver.switch_to.default_content()


def test_many_pairs(page, files, tmp_path):
    page.tab("Many pairs")
    page.drop("#many-ir", files / "ir.zip")
    page.drop("#many-vis", files / "vis.zip")
    time.sleep(2)
    page.click("#many-fuse")
    page.says("#many-status", "2 of 2 fused")
    assert "1.png" in page.text("#many-rows") and "2.png" in page.text("#many-rows")


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone(server, files, dark):
    page = Page(server.address, (390, 844))
    try:
        if dark:
            features = [{"name": "prefers-color-scheme", "value": "dark"}]
            page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
            page.open(server.address)
        page.drop_both(files)
        page.click("#fuse")
        page.says("#status", "Done in")
        width = page.driver.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
        assert width[0] <= width[1]
        script = "return getComputedStyle(document.body).backgroundColor.match(/[0-9.]+/g).slice(0, 3).map(Number)"
        grey = sum(page.driver.execute_script(script)) / 3
        assert (grey < 80) == dark
    finally:
        page.close()


def test_everything_is_reached_with_the_tab_key(page, files):
    from selenium.webdriver.common.keys import Keys

    page.drop_both(files)
    page.click("#fuse")
    page.says("#status", "Done in")
    page.driver.execute_script("document.activeElement.blur(); window.scrollTo(0, 0)")
    reached = set()
    script = """const e = document.activeElement; const box = e.closest('[id]');
    return (e.id || '') + '|' + (box ? box.id : '') + '|' + (e.type || e.tagName)"""
    for _ in range(70):
        page.driver.switch_to.active_element.send_keys(Keys.TAB)
        reached.add(page.driver.execute_script(script))
    words = " ".join(reached)
    for wanted in ("fuse", "cancel", "get-png", "get-json", "range", "preset"):
        assert wanted in words, (wanted, reached)
