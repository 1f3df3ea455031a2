"""The page as a process of its own, for tests that speak to it."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import requests

ADDRESS = re.compile(r"http://[\w.]+:\d+")


class Served:
    """address, the process, and all that it said."""

    def __init__(self, words, temporary):
        environment = {**os.environ, "TMPDIR": str(temporary), "OMP_NUM_THREADS": "2", "COLUMNS": "200"}
        command = [sys.executable, "-m", "ddfm", "app", "--port", "0", "--device", "cpu", *words]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        self.lines = []
        self.reader = threading.Thread(target=lambda: self.lines.extend(self.process.stderr), daemon=True)
        self.reader.start()
        deadline = time.monotonic() + 90
        while not (found := ADDRESS.search(self.said)) and time.monotonic() < deadline:
            assert self.process.poll() is None, self.said
            time.sleep(0.1)
        assert found, self.said
        self.address = found[0]

    @property
    def said(self):
        return "".join(self.lines)

    def call(self, endpoint, *data, timeout=100):
        """What an endpoint answers, as raw events."""
        asked = requests.post(f"{self.address}/gradio_api/call/{endpoint}", json={"data": data}, timeout=timeout)
        if asked.status_code != 200:
            return f"{asked.status_code} {asked.text}"
        return self.end(endpoint, asked.json()["event_id"], timeout)

    def upload(self, *paths):
        """Files as endpoints take them."""
        found = []
        for path in paths:
            with open(path, "rb") as file:  # noqa: PTH123
                answer = requests.post(f"{self.address}/gradio_api/upload", files={"files": file}, timeout=60)
            found.append({"path": answer.json()[0], "meta": {"_type": "gradio.FileData"}})
        return found

    def begin(self, endpoint, *data):
        """Ask, and do not wait: the event's name."""
        asked = requests.post(f"{self.address}/gradio_api/call/{endpoint}", json={"data": data}, timeout=60)
        return asked.json()["event_id"]

    def end(self, endpoint, event, timeout=600):
        """The events of what was asked, when it has ended."""
        return requests.get(f"{self.address}/gradio_api/call/{endpoint}/{event}", timeout=timeout).text

    def url_of(self, answer, n):
        """Where the n-th file of an answer is."""
        return f"{self.address}/gradio_api/file={self.path_of(answer, n)}"

    def path_of(self, answer, n):
        """The same on this machine, whose clock says when it was written."""
        assert "event: complete" in answer, answer + self.said
        return json.loads(answer.rpartition("data: ")[2])[n]["path"]

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(30)
        self.reader.join(10)
        self.process.stderr.close()
        return code


@contextlib.contextmanager
def serving(temporary, *words):
    served = Served(words, temporary)
    try:
        yield served
    finally:
        if served.process.poll() is None:
            served.stop()
