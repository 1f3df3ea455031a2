"""Fetching against a server that drops connections, lies, and serves another file; no outside network."""

import hashlib
import http.server
import threading
from pathlib import Path

import pytest

from ddfm import cli, fetching
from ddfm._checks import DDFMError
from ddfm.priors import known, load_prior

CONTENT = (Path(__file__).parent / "golden/adm-tiny/checkpoint.pt").read_bytes()


class Server:
    """Serves CONTENT (or ``content``) at /file; ``behave`` says how each answer goes wrong."""

    def __init__(self):
        self.content, self.behave, self.asked = CONTENT, [], []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/file"

    def answer(self, request):
        asked = request.headers.get("Range")
        self.asked.append(asked)
        how = self.behave.pop(0) if self.behave else "well"
        start = int(asked.split("=")[1].rstrip("-")) if asked and "no ranges" not in how else 0
        body = self.content[start:]
        if how in ("error", "gone"):
            request.send_error({"error": 503, "gone": 404}[how])
            return
        if start and start >= len(self.content):
            request.send_error(416)
            return
        request.send_response(206 if start else 200)
        stated = len(body) + {"states more": 1000, "states less": -1000}.get(how, 0)
        if how != "states nothing":
            request.send_header("Content-Length", str(stated))
        request.end_headers()
        request.wfile.write(body[: len(body) // 2] if "drops" in how else body)
        request.close_connection = True


@pytest.fixture
def server(tmp_path, monkeypatch):
    server = Server()
    tiny = known.KnownPrior(
        "tiny", server.url, len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), 16, "linear", "MIT", "a test"
    )
    monkeypatch.setitem(known.KNOWN, "tiny", tiny)
    monkeypatch.setenv("DDFM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fetching, "PAUSE", 0)
    yield server
    server.http.shutdown()
    server.http.server_close()


def part(tmp_path):
    return tmp_path / "cache/downloads/tiny.pt.part"


def test_download_check_convert_once(server, tmp_path):
    seen = []
    folder = fetching.fetch("tiny", lambda what, done, of: seen.append((what, done, of)))
    assert folder == tmp_path / "cache/priors/tiny"
    assert load_prior("tiny").color == "rgb"
    assert ("downloading", len(CONTENT), len(CONTENT)) in seen
    assert ("checking", len(CONTENT), len(CONTENT)) in seen
    assert fetching.fetch("tiny") == folder
    assert len(server.asked) == 1
    assert not list((tmp_path / "cache/downloads").glob("*.pt*"))  # the prior holds all of it


def begins(asked):
    return int(asked.removeprefix("bytes=").rstrip("-"))


def test_a_dropped_connection_goes_on_where_it_broke(server):
    server.behave = ["drops", "drops", "error", "well"]
    fetching.fetch("tiny")
    first, *later = server.asked
    half, three_quarters, again = map(begins, later)
    lost = fetching.CHUNK  # at most, of what had been sent
    assert first is None
    assert 0 <= len(CONTENT) // 2 - half < lost
    assert 0 <= half + (len(CONTENT) - half) // 2 - three_quarters < lost
    assert again == three_quarters


def test_many_drops_end_in_a_file_as_long_as_each_brings_something(server):
    server.behave = ["drops"] * 8
    fetching.fetch("tiny")
    assert len(server.asked) > fetching.ATTEMPTS


def test_a_server_that_brings_nothing_new_is_given_up(server):
    server.behave = ["no ranges drops"] * 50
    with pytest.raises(DDFMError, match="no whole download"):
        fetching.fetch("tiny")
    assert len(server.asked) == fetching.ATTEMPTS + 1


def test_a_no_is_not_asked_again(server):
    server.behave = ["gone"]
    with pytest.raises(DDFMError, match=r"404 Not Found.*by hand"):
        fetching.fetch("tiny")
    assert len(server.asked) == 1


def test_ctrl_c_keeps_what_arrived(server, tmp_path):
    def stop(what, done, of):
        if done > len(CONTENT) // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetching.fetch("tiny", stop)
    kept = part(tmp_path).read_bytes()
    assert len(kept) > len(CONTENT) // 2 - fetching.CHUNK
    assert CONTENT.startswith(kept)
    fetching.fetch("tiny")
    assert begins(server.asked[-1]) == len(kept)


def test_ctrl_c_while_converting_keeps_the_file(server, tmp_path, monkeypatch):
    def interrupted(self, folder):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ddfm.pipeline.DDFMPipeline.save_pretrained", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetching.fetch("tiny")
    assert list((tmp_path / "cache/priors").iterdir()) == []
    fetching.fetch("tiny")
    assert len(server.asked) == 1


def test_a_cache_that_cannot_be_written(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("DDFM_CACHE", str(tmp_path / "file/cache"))
    with pytest.raises(DDFMError, match=r"a cache that can be written.*DDFM_CACHE=FOLDER"):
        fetching.fetch("tiny")
    assert server.asked == []


def test_a_later_run_goes_on_too(server, tmp_path):
    server.behave = ["drops"] + ["error"] * 5
    with pytest.raises(DDFMError, match="Give the command again to go on"):
        fetching.fetch("tiny")
    kept = part(tmp_path).read_bytes()
    assert len(kept) > len(CONTENT) // 2 - fetching.CHUNK
    assert CONTENT.startswith(kept)
    fetching.fetch("tiny")
    assert begins(server.asked[-1]) == len(kept)


@pytest.mark.parametrize("how", ["no ranges", "states nothing", "states less"])
def test_servers_that_are_odd_but_send_the_file(server, how):
    server.behave = ["drops", how, "well", "well"]
    fetching.fetch("tiny")
    assert load_prior("tiny").color == "rgb"


def test_a_wrong_file_of_the_right_length_is_never_parsed(server, tmp_path, monkeypatch):
    server.content = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    monkeypatch.setattr(fetching, "convert", lambda *_, **__: pytest.fail("parsed"))
    with pytest.raises(DDFMError, match=r"another file .SHA-256"):
        fetching.fetch("tiny")
    assert not (tmp_path / "cache/priors/tiny").exists()
    monkeypatch.undo()


def test_a_longer_file_is_refused_and_nothing_kept(server, tmp_path):
    server.content = CONTENT + b"x" * 5000
    with pytest.raises(DDFMError, match=f"expected {len(CONTENT)}, as published"):
        fetching.fetch("tiny")
    server.content = CONTENT
    server.behave = ["states more"]
    with pytest.raises(DDFMError, match=f"expected {len(CONTENT)}, as published"):
        fetching.fetch("tiny")
    server.content = CONTENT + b"x" * 5000
    server.behave = ["states nothing"]
    with pytest.raises(DDFMError, match="more than"):
        fetching.fetch("tiny")
    assert not part(tmp_path).exists()


def test_a_shorter_file_is_no_download(server, tmp_path):
    server.content = CONTENT[:5000]
    with pytest.raises(DDFMError, match=f"no whole download .*5000 bytes, expected {len(CONTENT)}"):
        fetching.fetch("tiny")
    assert not part(tmp_path).exists()  # or a login page would stand at the beginning of the real file
    server.behave = ["states nothing"]  # then it cannot be known from the first
    with pytest.raises(DDFMError, match="no whole download"):
        fetching.fetch("tiny")


def test_offline_says_where_to_put_the_file_and_takes_it_from_there(server, tmp_path):
    server.http.shutdown()
    server.http.server_close()
    place = tmp_path / "cache/downloads/tiny.pt"
    with pytest.raises(DDFMError, match=f"put the file from {server.url} at {place} by hand"):
        fetching.fetch("tiny")
    place.write_bytes(CONTENT[:-1])
    with pytest.raises(DDFMError, match=r"another file .*tiny.pt.wrong"):
        fetching.fetch("tiny")
    place.write_bytes(CONTENT)
    assert fetching.fetch("tiny").is_dir()


def test_no_space_is_said_before_the_download(server, monkeypatch):
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda _: type("U", (), {"free": 1000})())
    with pytest.raises(DDFMError, match=r"GB free.*DDFM_CACHE"):
        fetching.fetch("tiny")
    assert server.asked == []


def test_two_fetches_at_once(server, tmp_path):
    from filelock import FileLock

    (tmp_path / "cache/downloads").mkdir(parents=True)
    with FileLock(tmp_path / "cache/downloads/tiny.lock"), pytest.raises(DDFMError, match="another fetch"):
        fetching.fetch("tiny")


def test_a_known_prior_that_is_not_here_says_how_to_get_it(server):
    with pytest.raises(DDFMError, match="ddfm prior fetch tiny"):
        load_prior("tiny")
    with pytest.raises(DDFMError, match="one of"):
        fetching.fetch("tinny-prior")


def test_the_papers_checkpoint_is_the_published_one():
    adm = known.KNOWN["adm-imagenet-256"]
    assert (adm.size, adm.sha256[:8], adm.head_channels) == (2_211_383_297, "a37c32ff", 64)
    assert adm.url.startswith("https://openaipublic.blob.core.windows.net/diffusion/jul-2021/")


def test_commands(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("ddfm._runtime.keep_freed_memory", lambda: None)

    def run(*words):
        monkeypatch.setattr("sys.argv", ["ddfm", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return stop.value.code or 0, captured.out + captured.err

    assert "ddfm prior fetch tiny" in run("prior", "list")[1]
    code, text = run("prior", "fetch", "tiny")
    assert (code, "priors/tiny" in text) == (0, True)
    assert "tiny  a test, MIT; fetched" in run("prior", "list")[1]
    assert "553" not in run("prior", "info", "tiny")[1]
    checkpoint = Path(__file__).parent / "golden/adm-tiny/checkpoint.pt"
    code, text = run("prior", "convert", checkpoint, tmp_path / "mine", "--head-channels", 16)
    assert (code, (tmp_path / "mine/model_index.json").is_file()) == (0, True)
    code, text = run("prior", "convert", checkpoint, tmp_path / "mine", "--head-channels", 16)
    assert (code, "which exists" in text) == (2, True)
    code, text = run("prior", "convert", checkpoint, tmp_path / "other", "--head-channels", 48)
    assert (code, "--head-channels" in text, (tmp_path / "other").exists()) == (2, True, False)
