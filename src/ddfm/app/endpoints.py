"""The endpoints for programs: what ``gradio_client`` calls. Gradio reads their types, so they are no strings here.

Each is a generator: between two looks at the work Gradio can end it, when the caller cancels or goes away.
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args

import gradio as gr

from ddfm._checks import problem
from ddfm.app.batches import Batch
from ddfm.app.choices import Choices
from ddfm.app.handlers import Handlers, in_words, session_of
from ddfm.app.runs import OnStep
from ddfm.app.studio import Fusion, Upload

__all__ = ["Endpoints"]

T = TypeVar("T")
#: Seconds between two looks.
_OFTEN = 1.0


def answering(endpoint: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """A generator that Gradio's documents take for a function: they read what it returns, here what it gives last."""

    @functools.wraps(endpoint)
    def generator(*words: Any, **named: Any) -> Iterator[Any]:
        yield from endpoint(*words, **named)

    signature = inspect.signature(endpoint)
    (given,) = get_args(signature.return_annotation)
    generator.__signature__ = signature.replace(return_annotation=given)  # type: ignore[attr-defined]
    return generator


class Endpoints:
    """``/fuse``, ``/explain`` and ``/batch``."""

    def __init__(self, handlers: Handlers) -> None:
        self._handlers, self._studio = handlers, handlers.studio

    @answering
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
    ) -> Iterator[tuple[gr.FileData, gr.FileData, gr.FileData, dict[str, str]]]:
        """Fuse two pictures: PNG of 8 bits, TIFF of 16 bits, settings as JSON, and metrics by name.

        infrared: thermal picture, or CT, PET, SPECT. visible: of the same scene, or MRI. steps: network evaluations, -1
        as the preset says. noise: "" as the preset says, "auto", or a deviation on 0 to 1. tone: "", "none", "minmax",
        "percentile". align: "none", "resize", "translation", "affine", "homography". range: "", "auto", "LOW:HIGH".
        """

        def work(on_step: OnStep) -> Fusion:
            choices = Choices(preset, steps, seed, noise, tone, align, range, clahe)
            return self._studio.fuse(self._two(request, infrared, visible), choices, self._folder(request), on_step)

        for fusion in self._answer(request, work):
            if fusion is None:
                yield None, None, None, {}  # type: ignore[misc]  # not yet
            else:
                values = {row[0]: row[2] for row in fusion.rows}
                yield _file(fusion.fused), _file(fusion.tiff), _file(fusion.settings), values

    @answering
    def explain(
        self,
        request: gr.Request,
        infrared: gr.FileData,
        visible: gr.FileData,
        preset: str = "balanced",
        steps: int = -1,
        seed: int = 0,
        seeds: int = 4,
    ) -> Iterator[gr.FileData]:
        """How a fusion came about, as one HTML file. seeds: for the uncertainty map, 0 for none."""

        def work(on_step: OnStep) -> dict[str, Path]:
            uploads = self._two(request, infrared, visible)
            return self._studio.explain(uploads, Choices(preset, steps, seed), seeds, self._folder(request), on_step)

        for paths in self._answer(request, work):
            yield _file(paths["html"]) if paths else None  # type: ignore[misc]

    @answering
    def batch(
        self,
        request: gr.Request,
        infrared: gr.FileData,
        visible: gr.FileData,
        preset: str = "balanced",
        seed: int = 0,
    ) -> Iterator[tuple[gr.FileData, gr.FileData]]:
        """Fuse the pairs of two zip files: a zip of results, and a table as CSV."""

        def work(on_step: OnStep) -> Batch:
            sides = [[upload] for upload in self._two(request, infrared, visible)]
            return self._handlers.fuse_batch(sides, Choices(preset, seed=seed), session_of(request), on_step)

        for batch in self._answer(request, work):
            yield (_file(batch.results), _file(batch.table)) if batch else (None, None)  # type: ignore[misc]

    def _answer(self, request: gr.Request, work: Callable[[OnStep], T]) -> Iterator[T | None]:
        """None while the work goes on, then its result. Raises gr.Error in words for the caller."""
        run = self._handlers.desk.begin(session_of(request), work)
        try:
            for _ in run.updates(_OFTEN):
                yield None
            yield run.result()
        except Exception as error:
            raise gr.Error(in_words(error), print_exception=False) from error
        finally:
            self._handlers.desk.end(session_of(request), run)

    def _two(self, request: gr.Request, *files: gr.FileData) -> list[Upload]:
        return [self._handlers.upload(session_of(request), _path(file)) for file in files]

    def _folder(self, request: gr.Request) -> Path:
        return self._handlers.folders.make(session_of(request))


def _path(file: object) -> str:
    given = file.get("path") if isinstance(file, dict) else getattr(file, "path", None)
    if not isinstance(given, str) or not given:
        raise problem("file", "none", "an uploaded file", "Give it with gradio_client.handle_file.")
    return given


def _file(path: Path) -> gr.FileData:
    return gr.FileData(path=str(path), orig_name=path.name)
