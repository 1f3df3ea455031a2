"""The web page without a browser: limits, folders, runs, links, batches, endpoints, and what strangers try."""

import dataclasses
import io
import json
import os
import struct
import time
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import requests
import tifffile
from PIL import Image

import ddfm
from ddfm import samples
from ddfm._checks import DDFMError
from ddfm.app import pieces
from ddfm.app.batches import fuse_batch
from ddfm.app.choices import PRESET_WORDS, Choices
from ddfm.app.fence import MOST_BYTES, Fence
from ddfm.app.folders import Folders
from ddfm.app.limits import Limits, check_upload, told
from ddfm.app.runs import Desk, Run, Stopped
from ddfm.app.studio import PLAIN_WORDS, Studio, Upload, safe_name
from ddfm.cli.app import parse_auth
from ddfm.metrics.table import DEFAULT
from ddfm.presets import PRESETS
from served import serving

gradio = pytest.importorskip("gradio")


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    return Studio(Limits(), Folders(60, tmp_path_factory.mktemp("root")), device="cpu")


@pytest.fixture(scope="module")
def scene():
    return samples.street((64, 80), 0)


@pytest.fixture
def uploads(tmp_path, scene):
    """The street, as uploaded below a folder that nobody is to hear of."""
    found = []
    for name, data in (("ir", scene.infrared), ("vis", scene.visible)):
        path = tmp_path / "hidden" / name / f"{name}.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(np.rint(data * 255).astype(np.uint8)).save(path)
        found.append(Upload(path, path.name))
    return found


def silent(*_):
    """No one looks."""


# ---- what is fused --------------------------------------------------------------------------------


def test_the_page_gives_what_the_library_gives(studio, uploads, tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    fusion = studio.fuse(uploads, Choices(), folder, silent)
    expected = ddfm.fuse(*(upload.path for upload in uploads), device="cpu")
    assert fusion.fused.read_bytes() == expected.encode(".png")
    deep = tifffile.imread(fusion.tiff)
    assert deep.dtype == np.uint16 and np.array_equal(deep, np.rint(expected.data * 65535))
    for upload, source in zip(uploads, fusion.sources, strict=True):
        assert np.array_equal(Image.open(source), Image.open(upload.path))
    stored = json.loads(fusion.settings.read_text())
    assert Choices(**stored["choices"]) == Choices()
    assert [entry["path"] for entry in stored["report"]["inputs"]] == ["ir.png", "vis.png"]
    assert str(tmp_path) not in fusion.settings.read_text()
    values = ddfm.metrics.evaluate(*_greys(fusion.fused, *(u.path for u in uploads)))
    assert {row[0]: row[2] for row in fusion.rows} == {k: f"{float(v):.3f}" for k, v in values.items()}


def _greys(*paths):
    from ddfm.evaluation import read_grey

    return [read_grey(path) for path in paths]


def test_sixteen_bits_align_and_settings_reach_the_fusion(studio, scene, tmp_path):
    counts = np.rint(20000 + 5000 * scene.infrared).astype(np.uint16)
    tifffile.imwrite(tmp_path / "ir.tif", counts[:32])  # half the height: another size
    Image.fromarray(np.rint(scene.visible * 255).astype(np.uint8)).save(tmp_path / "vis.png")
    both = [Upload(tmp_path / name, name) for name in ("ir.tif", "vis.png")]
    (tmp_path / "work").mkdir()
    choices = Choices(align="resize", range="20000:25000", tone="minmax", noise="0", steps=1, seed=3)
    fusion = studio.fuse(both, choices, tmp_path / "work", silent)
    assert fusion.report["align"]["kind"] == "resize"
    assert fusion.report["size"] == [64, 80] and fusion.report["seed"] == 3
    assert fusion.report["settings"]["steps"] == 1 and fusion.report["tone"] == "minmax"
    assert fusion.report["inputs"][0]["range"]["offset"] == 20000
    assert any("stretched" in note for note in fusion.notes)
    assert not any(str(tmp_path) in note for note in fusion.notes)


def test_an_explanation_is_one_file_without_a_path(studio, uploads, tmp_path):
    (tmp_path / "work").mkdir()
    seen = []
    paths = studio.explain(uploads, Choices(), 2, tmp_path / "work", lambda *at: seen.append(at))
    text = paths["html"].read_text()
    assert "ir.png" in text and str(tmp_path) not in text
    with Image.open(paths["gif"]) as film:
        assert film.n_frames > 2
    assert seen and max(done for done, _, _ in seen) > 3
    with pytest.raises(DDFMError, match="seeds"):
        studio.explain(uploads, Choices(), 1000, tmp_path / "work", silent)


def test_every_default_metric_and_preset_has_plain_words():
    assert set(PLAIN_WORDS) == set(DEFAULT)
    assert set(PRESET_WORDS) == set(PRESETS)


# ---- links ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "choices",
    [
        Choices(),
        Choices("medical", steps=2, seed=-5, noise="0.06,0.02", tone="percentile"),
        Choices("stack", align="affine", range="p1:p99", clahe=True),
    ],
)
def test_a_link_brings_the_settings_back(choices):
    query = {name: str(int(v) if isinstance(v, bool) else v) for name, v in dataclasses.asdict(choices).items()}
    assert Choices.from_query(query) == choices


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ({"preset": "balancd"}, "balanced"),
        ({"steps": "many"}, "whole number"),
        ({"steps": "1000"}, "100"),
        ({"noise": "loud"}, "noise_std"),
        ({"align": "magic"}, "affine"),
        ({"range": "5:1"}, "range"),
        ({"tone": "<script>"}, "minmax"),
    ],
)
def test_a_bad_link_is_told(query, word):
    with pytest.raises(DDFMError, match=word):
        Choices.from_query(query)
    assert Choices.from_query({"fbclid": "x"}) == Choices()  # what others add to links


def test_empty_numbers_of_the_page_are_the_defaults():
    assert Choices.of_page("fast", None, None, "", "", "none", "", False) == Choices("fast")
    assert Choices.of_page("fast", 2.0, 7, " ", "", "none", "", False).steps == 2
    with pytest.raises(DDFMError, match="whole"):
        Choices.of_page("fast", 2.5, 0, "", "", "none", "", False)


# ---- what may come in -----------------------------------------------------------------------------


def png_head(width, height):
    """A PNG that says it is so large, and has next to nothing in it."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"\0")),
        (b"IEND", b""),
    ]
    packed = [struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".bmp", ".webp"])
def test_pixels_are_counted_before_any_is_decoded(tmp_path, suffix, monkeypatch):
    path = tmp_path / f"x{suffix}"
    Image.new("L", (60, 50)).save(path)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("decoded"))
    monkeypatch.setattr("tifffile.TiffPage.asarray", lambda *_: pytest.fail("decoded"))
    assert check_upload(path, "x", Limits(megapixels=0.003)) == (50, 60)
    with pytest.raises(DDFMError, match=r"60 x 50 pixels, expected at most 0\.0029 megapixels"):
        check_upload(path, "x", Limits(megapixels=0.0029))


def test_a_bomb_is_refused_by_its_head(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_head(60_000, 60_000))
    with pytest.raises(DDFMError, match="60000 x 60000"):
        check_upload(path, "bomb.png", Limits())


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (b"#!/bin/sh\nrm -rf /", "PNG, JPEG"),
        (b"\x89PNG\r\n\x1a\n", "cut short or damaged"),
        (b"II*\0\x08\0\0\0", "cut short or damaged"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "PNG, JPEG"),
    ],
)
def test_the_content_counts_not_the_name(tmp_path, content, word):
    path = tmp_path / "secret-folder" / "x.png"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(DDFMError, match=word) as error:
        check_upload(path, "x.png", Limits())
    assert "secret-folder" not in str(error.value) and str(error.value).startswith("x.png")


def test_too_many_bytes(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(png_head(20, 20) + b"\0" * 3000)
    with pytest.raises(DDFMError, match="MB"):
        check_upload(path, "x.png", Limits(megabytes=0.002))


def test_messages_name_no_folder(tmp_path):
    path = tmp_path / "a" / "ir.png"
    text = str(told(ValueError(f"{path}: got {path.parent}/other.png in {path.parent}"), {path: "one.png"}))
    assert text == "one.png: got other.png in the uploads"
    text = str(told(ValueError("a/tmp/x.png is in /tmp/b"), {path: "one.png"}))
    assert text == "a/tmp/x.png is in /tmp/b"  # what a user calls so stays


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("../../etc/passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        (".bashrc", "bashrc"),
        ("a<b>\"'&.png", "a_b____.png"),
        ("\u202egnp.exe", "_gnp.exe"),
        ("", "picture"),
        ("W\u00e4rme 1.png", "W\u00e4rme 1.png"),
    ],
)
def test_names_are_made_safe(name, safe):
    assert safe_name(name) == safe


def test_everything_from_outside_is_escaped(tmp_path):
    evil = "<script>alert(1)</script>"
    text = pieces.alert(evil) + pieces.notes([evil]) + pieces.table([evil], [[evil]], evil) + pieces.said(evil)
    text += pieces.compare(tmp_path / "a'b\"<.png", tmp_path / "c.png", evil, evil, 10)
    assert "<script" not in text and "a'b\"<" not in text
    framed = pieces.framed(f'"{evil}')
    assert "<script" not in framed and framed.count('"') % 2 == 0


# ---- folders and runs -----------------------------------------------------------------------------


def test_folders_of_a_session_go_with_it(tmp_path):
    folders = Folders(60, tmp_path / "root")
    mine, yours = folders.make("me"), folders.make("you")
    assert mine.name != yours.name and mine.stat().st_mode & 0o077 == 0
    (mine / "x").write_text("x")
    (folders.inside(mine) / "y").write_text("y")
    folders.forget("me")
    assert not mine.exists() and yours.exists()
    assert not list((folders.root / "inside").glob("*/y"))
    folders.close()
    assert not folders.root.exists()


def test_an_upload_goes_when_all_who_use_it_have_left(tmp_path):
    folders = Folders(60, tmp_path / "root")
    upload = folders.uploads / "abc" / "x.png"
    upload.parent.mkdir()
    upload.write_bytes(b"x")
    for session in ("me", "you"):
        folders.use(session, upload)
    folders.use("me", folders.examples / "street.png")  # nobody's own
    folders.forget("me")
    assert upload.exists()
    folders.forget("you")
    assert not upload.parent.exists() and folders.examples.exists()


def test_what_is_old_is_swept_also_when_nobody_comes(tmp_path):
    folders = Folders(0.01, tmp_path)  # 0.6 s
    folders.watch()
    old = folders.make("me")
    upload = folders.uploads / "abc"
    upload.mkdir()
    (folders.uploads / "tmp1").write_bytes(b"")
    deadline = time.monotonic() + 20
    while (old.exists() or upload.exists()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not old.exists() and not list(folders.uploads.iterdir())
    folders.close()


def test_copies_of_results_go_before_uploads(tmp_path):
    folders = Folders(60, tmp_path)
    long_ago = time.time() - 700
    for name in ("fused.png", "mine.png"):
        path = folders.uploads / name.partition(".")[0] / name
        path.parent.mkdir()
        path.write_bytes(b"x")
        os.utime(path, (long_ago, long_ago))
    folders.sweep()
    assert [path.name for path in folders.uploads.glob("*/*")] == ["mine.png"]


@pytest.fixture
def worker():
    with ThreadPoolExecutor(1) as pool:
        yield pool


def steps(run_for, seen):
    """Work of many short steps."""

    def work(on_step):
        for k in range(run_for):
            on_step(k, run_for, "x")
            seen.append(k)
            time.sleep(0.005)
        return "made"

    return work


def test_a_run_tells_and_gives(worker):
    seen = []
    run = Run(steps(60, seen), worker)
    told_of = [at.done for at in run.updates(0.02)]
    assert told_of == sorted(told_of) and len(told_of) > 2
    assert run.result() == "made" and len(seen) == 60


def test_a_run_stops_at_its_next_step(worker):
    seen = []
    run = Run(steps(10_000, seen), worker)
    time.sleep(0.05)
    run.stop()
    with pytest.raises(Stopped):
        run.result()
    assert len(seen) < 10_000


def test_a_caller_that_goes_away_ends_the_work(worker):
    seen = []
    run = Run(steps(10_000, seen), worker)
    updates = run.updates(0.01)
    next(updates)
    updates.close()
    with pytest.raises(Stopped):
        run.result()


def test_one_run_a_session():
    desk, seen = Desk(), []
    first, other = desk.begin("me", steps(10_000, seen)), desk.begin("you", steps(20, []))
    second = desk.begin("me", steps(5, []))
    with pytest.raises(Stopped):
        first.result()
    assert second.result() == other.result() == "made"
    desk.end("me", second)
    assert not desk.stop("me") and not desk.stop("nobody")


def test_what_the_work_raises_is_raised(worker):
    def work(on_step):
        raise DDFMError("so it is")

    run = Run(work, worker)
    list(run.updates(0.01))
    with pytest.raises(DDFMError, match="so it is"):
        run.result()


# ---- batches --------------------------------------------------------------------------------------


def packed(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return Upload(path, path.name)


def content(seed, color=False, size=(24, 20)):
    rng = np.random.default_rng(seed)
    file = io.BytesIO()
    shape = (size[1], size[0], 3) if color else (size[1], size[0])
    Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def fuser(studio):
    return studio.fuser(Choices())


def batch(tmp_path, fuser, ir, vis, limits=None):
    folder = tmp_path / "batch"
    folder.mkdir()
    return fuse_batch(ir, vis, fuser, folder, limits or Limits(), silent)


def test_two_zips(tmp_path, fuser):
    """One lies in a folder of its zip; names end in the camera; system files are passed over."""
    ir = packed(
        tmp_path / "a.zip", {"ir/1_ir.png": content(1), "ir/n/2_ir.png": content(2), "__MACOSX/ir/1_ir.png": b"x"}
    )
    vis = packed(tmp_path / "b.zip", {"1_vis.png": content(3, True), "n/2_VIS.png": content(4, True), "read.txt": b"x"})
    made = batch(tmp_path, fuser, [ir], [vis])
    assert [row[:2] for row in made.rows] == [("1.png", "fused"), ("n/2.png", "fused")]
    with zipfile.ZipFile(made.results) as archive:
        assert sorted(archive.namelist()) == ["1.png", "fused.csv", "n/2.png"]
        found = archive.read("n/2.png")
    for name, data in (("ir.png", content(2)), ("vis.png", content(4, True))):
        (tmp_path / name).write_bytes(data)
    assert found == ddfm.fuse(tmp_path / "ir.png", tmp_path / "vis.png", device="cpu").encode(".png")
    assert made.table.read_text().splitlines()[0] == "name,outcome,seconds,to know"


def test_two_lists_and_a_pair_that_fails(tmp_path, fuser):
    sides = []
    for side, size in (("ir", (24, 20)), ("vis", (24, 22))):
        uploads = []
        for k in (1, 2):
            path = tmp_path / side / str(k) / f"{k}_{side}.png"
            path.parent.mkdir(parents=True)
            path.write_bytes(content(k, side == "vis", size if k == 2 else (24, 20)))
            uploads.append(Upload(path, path.name))
        sides.append(uploads)
    made = batch(tmp_path, fuser, *sides)
    assert [row[1] for row in made.rows] == ["fused", "failed"]
    assert "one size" in made.rows[1][3] and str(tmp_path) not in made.table.read_text()


@pytest.mark.parametrize("name", ["../../evil.png", "/etc/evil.png", "..\\evil.png", "a/../../evil.png"])
def test_names_in_a_zip_lead_nowhere_else(tmp_path, fuser, name):
    ir, vis = (packed(tmp_path / f"{k}.zip", {name: content(k, k == 2)}) for k in (1, 2))
    before = set(tmp_path.rglob("*"))
    made = batch(tmp_path, fuser, [ir], [vis])
    assert len(made.rows) == 1 and made.rows[0][1] == "fused"
    assert all(tmp_path / "batch" in p.parents or p == tmp_path / "batch" for p in set(tmp_path.rglob("*")) - before)


def test_a_zip_that_unpacks_to_too_much(tmp_path, fuser):
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        for k in range(40):
            archive.writestr(f"{k}.png", content(k) + b"\0" * 200_000)
    assert bomb.stat().st_size < 200_000
    limits = Limits(megabytes=0.25, unpacked=8)
    with pytest.raises(DDFMError, match=r"bomb.zip: got more when unpacked, expected at most 0.25 MB each and 2 MB"):
        batch(tmp_path, fuser, [Upload(bomb, bomb.name)], [Upload(bomb, bomb.name)], limits)


def test_what_is_no_pair_is_a_row_and_the_others_are_fused(tmp_path, fuser):
    good = {f"{k}.png": content(k) for k in range(3)}
    more = {"1.png": b"no picture", "7.png": content(7), "8_ir.png": content(8), "8_thermal.png": content(8)}
    long = {"/".join("ab" * 1500) + ".png": content(1), "x" * 190 + "_ir.png": content(6), "5.png": content(5)}
    ir = packed(tmp_path / "a.zip", {**good, **more, **long})
    odd = {"2.png": png_head(60_000, 60_000), "8.png": content(8), "5.png": content(5, size=(30, 30))}
    odd["x" * 190 + "_vis.png"] = content(6, True)
    vis = packed(tmp_path / "b.zip", {k: content(9, True) for k in good} | odd)
    rows = {row[0]: row for row in batch(tmp_path, fuser, [ir], [vis]).rows}
    assert rows["0.png"][1] == "fused"
    assert rows["x" * 190 + ".png"][1] == "fused"
    assert rows["8"][1] == "left out" and "not the only one" in rows["8"][3]
    assert any("cannot be a file here" in row[3] for row in rows.values())
    assert "thermal 5.png is 24x20, visible 5.png is 30x30" in rows["5.png"][3] and "--" not in rows["5.png"][3]
    assert rows["1"][1] == "left out" and "thermal: 1.png: got content" in rows["1"][3]
    assert rows["2"][1] == "left out" and "60000 x 60000" in rows["2"][3]
    assert rows["7"][1] == "left out" and "no visible picture of this name" in rows["7"][3]


@pytest.mark.parametrize(
    ("files", "word"),
    [
        ({"1.png": b"no picture"}, "no pair"),
        ({"a.png": png_head(60_000, 60_000)}, "60000 x 60000"),
        ({"read.txt": b"x"}, "no pictures"),
        ({f"{k}.png": b"x" for k in range(4)}, "at most 3"),
        ({"1_ir.png": content(1), "1_thermal.png": content(2)}, "not the only one of that name"),
    ],
)
def test_zips_that_are_refused(tmp_path, fuser, files, word):
    ir, vis = packed(tmp_path / "a.zip", files), packed(tmp_path / "b.zip", {"1.png": content(2)})
    with pytest.raises(DDFMError, match=word) as error:
        batch(tmp_path, fuser, [ir], [vis], Limits(pairs=3))
    assert str(tmp_path) not in str(error.value)


def test_a_broken_zip_and_an_encrypted_one(tmp_path, fuser):
    whole = packed(tmp_path / "a.zip", {"1.png": content(1)})
    raw = whole.path.read_bytes()
    at = raw.index(content(1)[:20]) + 60
    (tmp_path / "cut.zip").write_bytes(raw[:at] + bytes(20) + raw[at + 20 :])
    with pytest.raises(DDFMError, match=r"cut\.zip: got a zip that cannot be read"):
        batch(tmp_path, fuser, [Upload(tmp_path / "cut.zip", "cut.zip")], [whole])


def test_a_table_holds_no_formula(tmp_path, fuser):
    ir, vis = (packed(tmp_path / f"{k}.zip", {"=1+1.png": content(k, k == 2)}) for k in (1, 2))
    made = batch(tmp_path, fuser, [ir], [vis])
    assert "\n'_1_1.png" in made.table.read_text() or "\n_1_1.png" in made.table.read_text()


# ---- the fence ------------------------------------------------------------------------------------


def through(
    body=b"{}",
    hosts=(),
    allow=(),
    full=False,
    path="/gradio_api/call/fuse",
    method="POST",
    kind=b"text/html",
    **headers,
):
    """What comes of a request: status, headers, and what the server behind the fence was given."""
    import asyncio

    answered, passed = [], []
    parts = [body[:7], body[7:]]

    async def app(scope, receive, send):
        passed.append((await receive())["body"])
        head = [(b"content-type", kind), (b"content-disposition", b"inline")]
        await send({"type": "http.response.start", "status": 200, "headers": head})

    async def receive():
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def send(message):
        answered.append(message)

    named = [(key.replace("_", "-").encode(), value.encode()) for key, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "headers": named}
    asyncio.run(Fence(app, hosts, 1000, lambda: full, allow)(scope, receive, send))
    return answered[0]["status"], dict(answered[0]["headers"]), passed


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"data": [{"path": "/tmp/x"}]}', 200),
        (b'{"data": ["see http://example.org"]}', 200),
        (b'{"data": [[{"a": {"path": "http://example.org/x"}}]]}', 400),
        (b'{"data": [{"path": "\\u0068ttp://example.org/x"}]}', 400),
        (b'{"data": [{"path": " FTP://example.org/x"}]}', 400),
        (b"[" * 5000, 200),  # the server's parser refuses it
        (b'"' + b"x" * MOST_BYTES + b'"', 413),
    ],
)
def test_nothing_is_fetched_for_a_request(body, status):
    for headers in ({"content_type": "application/json"}, {"content_type": "multipart/x"}, {}):
        answer, _, passed = through(body, **headers)
        assert answer == status and passed == ([body] if status == 200 else [])


def test_hosts_origins_and_room():
    local = ("127.0.0.1", "localhost", "::1")
    assert through(hosts=local, host="localhost:7860")[0] == 200
    assert through(hosts=local, host="[::1]:7860")[0] == 200
    assert through(hosts=local, host="evil.example:7860")[0] == 421
    assert through(hosts=local, method="GET", host="evil.example")[0] == 421
    assert through(host="any.example")[0] == 200
    assert through(host="here:1", origin="http://here:1")[0] == 200
    assert through(host="here:1", origin="http://evil.example")[0] == 403
    assert through(host="here:1", origin="null")[0] == 403
    assert through(allow=("fuse.example",), host="here:1", origin="https://fuse.example")[0] == 200
    assert through(path="/gradio_api/run/fuse")[0] == through(path="/gradio_api/api/upload")[0] == 404
    body = b'{"data": [{"path": "http://example.org/x"}]}'
    assert through(body, path="/gradio_api/call/upload")[0] == 400
    upload = {"path": "/gradio_api/upload", "host": "here", "content_length": "900"}
    assert through(**upload)[0] == 200
    assert through(**{**upload, "content_length": "1001"})[0] == 413
    assert through(full=True, **upload)[0] == 507


@pytest.mark.parametrize(
    ("kind", "disposition"),
    [(b"image/png", b"inline"), (b"image/svg+xml", b"attachment"), (b"text/html; charset=utf-8", b"attachment")],
)
def test_a_file_is_never_a_page(kind, disposition):
    _, headers, _ = through(method="GET", path="/gradio_api/file=/x/y", kind=kind)
    assert headers[b"content-disposition"] == disposition
    assert headers[b"x-content-type-options"] == b"nosniff" and b"sandbox" in headers[b"content-security-policy"]


# ---- the server -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("tmp"), "--max-mb", "2", "--max-mp", "1") as served:
        yield served


def test_what_the_page_is_sends_for_nothing_elsewhere(server):
    page = requests.get(server.address, timeout=30).text
    assert "Fuse two pictures of one scene" in page and "Not a medical device" in page
    assert "fonts.googleapis" not in page and "cdnjs" not in page and "huggingface.co" not in page
    assert '"analytics_enabled":false' in page.replace(" ", "") or "analytics_enabled" not in page


@pytest.mark.parametrize(
    "tail",
    [
        "file=/etc/passwd",
        "file=../../../../etc/passwd",
        "file=%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "file=/proc/self/environ",
        "file=http://127.0.0.1:1/x",
        "file=C:\\boot.ini",
        "static/../../../../etc/passwd",
    ],
)
def test_no_file_of_this_machine_can_be_read(server, tail):
    prepared = requests.Request("GET", server.address).prepare()
    prepared.url = f"{server.address}/gradio_api/{tail}"
    answer = requests.Session().send(prepared, timeout=30)
    assert answer.status_code in (400, 403, 404) and "root:" not in answer.text


@pytest.mark.parametrize("path", ["/etc/passwd", "../../etc/passwd", "http://127.0.0.1:1/x", 3, None])
@pytest.mark.parametrize("endpoint", ["fuse", "explain", "batch"])
def test_no_endpoint_reads_one_either(server, path, endpoint):
    for given in ({"path": path, "meta": {"_type": "gradio.FileData"}}, {"path": path}, path):
        answer = server.call(endpoint, given, given)
        assert "root:" not in answer and "complete" not in answer
    assert requests.get(server.address, timeout=30).ok


def test_an_upload_that_is_a_page_runs_nowhere(server, tmp_path):
    for name in ("x.html", "x.svg"):
        path = tmp_path / name
        path.write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")
        (upload,) = server.upload(path)
        answer = requests.get(f"{server.address}/gradio_api/file={upload['path']}", timeout=30)
        shown = answer.headers.get("content-disposition", "")
        assert answer.status_code == 403 or (
            shown == "attachment" and "sandbox" in answer.headers["content-security-policy"]
        )


def test_other_hosts_and_origins_are_refused(server):
    assert requests.get(server.address, headers={"Host": "evil.example"}, timeout=30).status_code == 421
    headers = {"Origin": "http://evil.example"}
    answer = requests.post(f"{server.address}/gradio_api/upload", headers=headers, files={"files": b"x"}, timeout=30)
    assert answer.status_code == 403


def test_a_cancelled_request_ends(server, uploads, tmp_path):
    """What others wait for is not held up by it: 100 evaluations in 32 runs would take half an hour."""
    from gradio_client import handle_file

    client = client_of(server, tmp_path / "down")
    files = [handle_file(str(upload.path)) for upload in uploads]
    long = client.submit(*files, preset="paper", seeds=32, api_name="/explain")
    time.sleep(3)
    long.cancel()
    assert client.predict(*files, api_name="/fuse")[3]


def client_of(server, folder):
    client = pytest.importorskip("gradio_client")
    return client.Client(server.address, verbose=False, download_files=str(folder))


def test_the_endpoint_gives_what_the_library_gives(server, uploads, tmp_path):
    from gradio_client import handle_file

    client = client_of(server, tmp_path / "down")
    files = [handle_file(str(upload.path)) for upload in uploads]
    fused, tiff, settings, values = client.predict(*files, preset="balanced", steps=1, api_name="/fuse")
    expected = ddfm.fuse(*(upload.path for upload in uploads), steps=1, device="cpu")
    assert np.array_equal(Image.open(fused), expected.to_pil())
    assert tifffile.imread(tiff).dtype == np.uint16 and set(values) == set(DEFAULT)
    text = Path(settings).read_text()
    assert "/tmp" not in text and str(tmp_path) not in text
    report = client.predict(*files, seeds=0, api_name="/explain")
    assert "<title>" in Path(report).read_text("utf-8")


def test_endpoints_say_what_is_wrong(server, uploads, tmp_path):
    from gradio_client import handle_file
    from gradio_client.exceptions import AppError

    client = client_of(server, tmp_path / "down")
    good = handle_file(str(uploads[0].path))
    (tmp_path / "no.png").write_bytes(b"hello")
    (tmp_path / "huge.png").write_bytes(png_head(9000, 9000))
    for path, word in ((tmp_path / "no.png", "PNG, JPEG"), (tmp_path / "huge.png", "9000 x 9000")):
        with pytest.raises(AppError, match=word) as error:
            client.predict(good, handle_file(str(path)), api_name="/fuse")
        assert "ddfm-app" not in str(error.value)
    for words, say in (
        ({"preset": "balancd"}, "balanced"),
        ({"steps": "ten"}, "whole number"),
        ({"align": "x"}, "affine"),
    ):
        with pytest.raises(AppError, match=say):
            client.predict(good, good, **words, api_name="/fuse")
    small = tmp_path / "small.png"
    Image.new("L", (30, 30)).save(small)
    with pytest.raises(AppError, match=r"got ir\.png is 80x64, small\.png is 30x30.*'Bring onto one grid' to") as error:
        client.predict(good, handle_file(str(small)), api_name="/fuse")
    assert "request-" not in str(error.value)
    with pytest.raises(AppError) as error:
        client.predict(good, good, noise="x" * 3000, api_name="/fuse")
    assert len(str(error.value)) < 700
    (tmp_path / "big.png").write_bytes(uploads[0].path.read_bytes() + b"\0" * (3 << 20))
    with (tmp_path / "big.png").open("rb") as big:
        assert requests.post(f"{server.address}/gradio_api/upload", files={"files": big}, timeout=30).status_code == 413


def test_many_at_once_are_all_answered_in_order(server, uploads, tmp_path):
    """Each gets its own picture, and those that came first are done first."""
    files = server.upload(*(upload.path for upload in uploads))
    events = [server.begin("fuse", *files, "balanced", 1, seed, "", "", "none", "", False) for seed in range(12)]
    answers = [server.end("fuse", event) for event in events]
    made = [Path(server.path_of(answer, 0)).stat().st_mtime_ns for answer in answers]
    assert made == sorted(made)
    for seed, answer in enumerate(answers):
        settings = requests.get(server.url_of(answer, 2), timeout=30).json()
        assert settings["report"]["seed"] == seed


def test_nothing_is_left_when_it_ends(tmp_path, uploads):
    from gradio_client import handle_file

    with serving(tmp_path / "tmp" if (tmp_path / "tmp").mkdir() is None else tmp_path) as served:
        client = client_of(served, tmp_path / "down")
        client.predict(*(handle_file(str(u.path)) for u in uploads), api_name="/fuse")
        assert list((tmp_path / "tmp").glob("ddfm-app-*/requests/request-*"))
        long = client.submit(*(handle_file(str(u.path)) for u in uploads), preset="paper", api_name="/fuse")
        time.sleep(2)  # in the middle of it
        assert served.stop() == 130 and long
        assert "Traceback" not in served.said
    assert not list((tmp_path / "tmp").glob("ddfm-app-*"))


def test_a_password_is_asked_for(tmp_path):
    (tmp_path / "tmp").mkdir()
    with serving(tmp_path / "tmp", "--auth", "eve:s3cret") as served:
        assert "s3cret" not in served.said
        assert requests.get(f"{served.address}/config", timeout=30).status_code == 401
        assert requests.post(f"{served.address}/gradio_api/call/fuse", json={"data": []}, timeout=30).status_code == 401
        session = requests.Session()
        bad = session.post(f"{served.address}/login", data={"username": "eve", "password": "x"}, timeout=30)
        assert bad.status_code == 400
        assert session.post(f"{served.address}/login", data={"username": "eve", "password": "s3cret"}, timeout=30).ok
        assert session.get(f"{served.address}/config", timeout=30).ok


# ---- the command ----------------------------------------------------------------------------------


def test_auth_is_read_and_never_shown():
    assert parse_auth(None) == ()
    assert parse_auth("a:b:c,d:e") == (("a", "b:c"), ("d", "e"))
    for text in ("justname", ":x", "x:", ""):
        with pytest.raises(DDFMError) as error:
            parse_auth(text)
        assert not text or text not in str(error.value)


def test_without_the_extra_it_is_named(command_line, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "gradio", None)
    code, text = command_line("app", "--port", 0)
    assert code == 2 and "pip install 'ddfm[app]'" in text


def test_a_port_in_use_is_told(command_line):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, text = command_line("app", "--port", taken.getsockname()[1])
    assert code == 2 and "--port" in text and "a port that is free" in text


@pytest.mark.parametrize(
    "words", [("--max-mb", "0"), ("--max-pairs", "0"), ("--device", "tpu"), ("--auth", "x"), ("--host", "")]
)
def test_options_are_checked(command_line, words):
    code, text = command_line("app", "--port", "0", *words)
    assert code == 2 and "expected" in text


def test_swapped_roles_are_told(studio, uploads, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert any("swapped" in note for note in studio.fuse(uploads[::-1], Choices(), tmp_path / "a", silent).notes)
    assert not any("swapped" in note for note in studio.fuse(uploads, Choices(), tmp_path / "b", silent).notes)


def test_a_warning_beyond_this_machine():
    from ddfm.app.serving import Server

    assert Server("0.0.0.0").is_open and not Server("0.0.0.0", auth=(("a", "b"),)).is_open
    assert not Server().is_open and not Server("127.0.0.2").is_open
    assert "evil.example" not in Server().names and "me.example" in Server(allow=("Me.example",)).names
    assert Server("0.0.0.0").names == ()
