"""The endpoints for programs: what ``gradio_client`` calls. Gradio reads their types, so they are no strings here."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import gradio as gr

from ddfm._checks import problem
from ddfm.app.batches import Batch
from ddfm.app.choices import Choices
from ddfm.app.handlers import Handlers, in_words, session_of
from ddfm.app.studio import Fusion, Upload

__all__ = ["Endpoints"]

T = TypeVar("T")


class Endpoints:
    """``/fuse``, ``/explain`` and ``/batch``."""

    def __init__(self, handlers: Handlers) -> None:
        self._handlers, self._studio = handlers, handlers.studio

    def fuse(
        self,
        request: gr.Request,
        infrared: gr.FileData,
        visible: gr.FileData,
        preset: str = "balanced",
        steps: int = -1,
        seed: int = 0,
        noise: str = "",
        tone: str = "",
        align: str = "none",
        range: str = "",
        clahe: bool = False,
    ) -> tuple[gr.FileData, gr.FileData, gr.FileData, dict[str, str]]:
        """Fuse two pictures: PNG of 8 bits, TIFF of 16 bits, settings as JSON, and metrics by name.

        infrared: thermal picture, or CT, PET, SPECT. visible: of the same scene, or MRI. steps: network evaluations, -1
        as the preset says. noise: "" as the preset says, "auto", or a deviation on 0 to 1. tone: "", "none", "minmax",
        "percentile". align: "none", "resize", "translation", "affine", "homography". range: "", "auto", "LOW:HIGH".
        """

        def work() -> Fusion:
            choices = Choices(preset, steps, seed, noise, tone, align, range, clahe)
            return self._studio.fuse(self._two(infrared, visible), choices, self._folder(request), _unseen)

        fusion = self._answered(work)
        values = {row[0]: row[2] for row in fusion.rows}
        return _file(fusion.fused), _file(fusion.tiff), _file(fusion.settings), values

    def explain(
        self,
        request: gr.Request,
        infrared: gr.FileData,
        visible: gr.FileData,
        preset: str = "balanced",
        steps: int = -1,
        seed: int = 0,
        seeds: int = 4,
    ) -> gr.FileData:
        """How a fusion came about, as one HTML file. seeds: for the uncertainty map, 0 for none."""

        def work() -> dict[str, Path]:
            choices = Choices(preset, steps, seed)
            return self._studio.explain(self._two(infrared, visible), choices, seeds, self._folder(request), _unseen)

        return _file(self._answered(work)["html"])

    def batch(
        self,
        request: gr.Request,
        infrared: gr.FileData,
        visible: gr.FileData,
        preset: str = "balanced",
        seed: int = 0,
    ) -> tuple[gr.FileData, gr.FileData]:
        """Fuse the pairs of two zip files: a zip of results, and a table as CSV."""

        def work() -> Batch:
            sides = [[upload] for upload in self._two(infrared, visible)]
            return self._handlers.fuse_batch(sides, Choices(preset, seed=seed), session_of(request), _unseen)

        batch = self._answered(work)
        return _file(batch.results), _file(batch.table)

    def _answered(self, work: Callable[[], T]) -> T:
        try:
            return self._handlers.desk.do(work)
        except Exception as error:
            raise gr.Error(in_words(error), print_exception=False) from error

    def _two(self, *files: gr.FileData) -> list[Upload]:
        return [self._handlers.upload(_path(file)) for file in files]

    def _folder(self, request: gr.Request) -> Path:
        return self._handlers.folders.make(session_of(request))


def _unseen(done: int, of: int, what: str = "") -> None:
    """Nobody looks."""


def _path(file: object) -> str:
    given = file.get("path") if isinstance(file, dict) else getattr(file, "path", None)
    if not isinstance(given, str) or not given:
        raise problem("file", "none", "an uploaded file", "Give it with gradio_client.handle_file.")
    return given


def _file(path: Path) -> gr.FileData:
    return gr.FileData(path=str(path), orig_name=path.name)
