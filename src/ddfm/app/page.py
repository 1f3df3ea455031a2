"""The page: what stands where, and what happens when. The work itself is in ``studio`` and ``batches``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gradio as gr

from ddfm import __version__
from ddfm.app.choices import MOST_STEPS, PRESET_WORDS, Choices
from ddfm.app.endpoints import Endpoints
from ddfm.app.examples import Example
from ddfm.app.handlers import WORK, Handlers
from ddfm.app.words import ABOUT, API, BATCH, INTRO, LIMITS_TEXT, NOT_MEDICAL
from ddfm.config import TONES
from ddfm.io import SUFFIXES
from ddfm.registration import ALIGNS

__all__ = ["build"]

_PRESET = "as the preset says"
#: Of what the buttons begin; "private": programs have endpoints of their own.
_WORKING: dict[str, Any] = {"concurrency_id": WORK, "concurrency_limit": 1, "api_visibility": "private"}
#: Links are made in the browser, which knows the address that the user sees.
_LINK = """(...values) => {
  const names = %s, defaults = %s, query = new URLSearchParams();
  names.forEach((name, i) => {
    let value = values[i];
    if (value === null || value === undefined) value = "";
    if (value === true) value = 1;
    if (value === false) value = 0;
    if (String(value) !== String(defaults[i])) query.set(name, value);
  });
  const tail = query.toString() ? "?" + query.toString() : "";
  history.replaceState(null, "", window.location.pathname + tail);
  return window.location.origin + window.location.pathname + tail;
}"""


class Controls(NamedTuple):
    """The controls of the settings, in the order of the fields of ``Choices``."""

    preset: gr.Radio
    steps: gr.Number
    seed: gr.Number
    noise: gr.Textbox
    tone: gr.Radio
    align: gr.Radio
    range: gr.Textbox
    clahe: gr.Checkbox


def build(handlers: Handlers, examples: Sequence[Example]) -> gr.Blocks:
    """The page over the work of ``handlers``."""
    minutes = handlers.studio.limits.minutes
    with gr.Blocks(title="ddfm: image fusion", analytics_enabled=False, delete_cache=(60, int(60 * minutes))) as page:
        gr.Markdown(INTRO)
        with gr.Tab("Fuse two pictures"):
            first, second, chosen = _inputs(examples)
            controls, link = _settings()
            _fusing(handlers, first, second, controls)
        with gr.Tab("How it came about"):
            _explaining(handlers, first, second, controls)
        with gr.Tab("Many pairs"):
            _batch(handlers, controls)
        with gr.Tab("For programs, and about"):
            gr.Markdown(API)
            gr.Markdown(ABOUT.format(version=__version__, limits=_limits(handlers)))
        gr.Markdown(NOT_MEDICAL)
        for button, example in chosen:
            _offer(button, example, first, second, controls)
        for picture in (first, second):
            picture.file.change(
                handlers.look, picture.file, picture.shown, api_visibility="private", concurrency_limit=2
            )
        page.load(handlers.restore, None, [*controls, link.said], api_visibility="private", concurrency_limit=None)
        for control in controls:
            control.change(None, list(controls), link.text, js=_link_script(), api_visibility="private")
        page.unload(handlers.leave)
        _api(handlers)
    return page


class Picture(NamedTuple):
    """A drop area and what was dropped."""

    file: gr.File
    shown: gr.HTML


class Link(NamedTuple):
    """The link that restores the settings, and what is said of one that was opened."""

    text: gr.Textbox
    said: gr.HTML


def _inputs(examples: Sequence[Example]) -> tuple[Picture, Picture, list[tuple[gr.Button, Example]]]:
    with gr.Row():
        first = _drop("1. Thermal (infrared) picture, or CT, PET, SPECT", "infrared")
        second = _drop("2. Visible picture of the same scene, or MRI", "visible")
    gr.Markdown("Nothing at hand? Try one of these, which are rendered:")
    with gr.Row():
        buttons = [(gr.Button(example.words, size="sm", min_width=200), example) for example in examples]
    return first, second, buttons


def _drop(label: str, name: str) -> Picture:
    with gr.Column(min_width=280):
        file = gr.File(label=label, file_types=list(SUFFIXES), height=130, elem_id=f"file-{name}")
        return Picture(file, gr.HTML(elem_id=f"look-{name}"))


def _settings() -> tuple[Controls, Link]:
    default = Choices()
    preset = gr.Radio(
        [(words, name) for name, words in PRESET_WORDS.items()],
        value=default.preset,
        label="What are they?",
        elem_id="preset",
    )
    with gr.Accordion("Details", open=False, elem_id="details"):
        with gr.Row():
            most: dict[str, Any] = {"precision": 0, "minimum": 0, "maximum": MOST_STEPS}
            more = "Empty: as the preset says. More let the prior change more."
            steps = gr.Number(None, label="Network evaluations", info=more, elem_id="steps", **most)
            deviation = "auto, 0 for none, or a deviation on 0 to 1 such as 0.06"
            noise = gr.Textbox("", label="Noise of the sources", info=deviation, elem_id="noise", placeholder=_PRESET)
            seed = gr.Number(0, label="Seed", precision=0, info="The same seed gives the same picture.", elem_id="seed")
        with gr.Row():
            tones = [(_PRESET, ""), *((tone, tone) for tone in TONES)]
            tone = gr.Radio(tones, value="", label="Stretch of the result", elem_id="tone")
            kinds = "resize: other sizes, one view; affine: cameras beside each other"
            align = gr.Radio(list(ALIGNS), value="none", label="Bring onto one grid", info=kinds, elem_id="align")
        with gr.Row():
            ends = "auto, full, LOW:HIGH or p1:p99; one, or one for each by a comma"
            span = gr.Textbox("", label="Black and white of 16-bit counts", info=ends, placeholder="as usual")
            clahe = gr.Checkbox(False, label="Local contrast (CLAHE) of pictures of more than 8 bits")
        text = gr.Textbox("", label="Link to these settings", interactive=False, buttons=["copy"], elem_id="link")
    said = gr.HTML(elem_id="link-said")
    return Controls(preset, steps, seed, noise, tone, align, span, clahe), Link(text, said)


def _link_script() -> str:
    import json

    plain = dataclasses.asdict(Choices()) | {"steps": "", "clahe": 0}
    return _LINK % (json.dumps(list(plain)), json.dumps(list(plain.values())))


def _fusing(handlers: Handlers, first: Picture, second: Picture, controls: Controls) -> None:
    with gr.Row():
        go = gr.Button("Fuse", variant="primary", elem_id="fuse")
        stop = gr.Button("Cancel", variant="secondary", elem_id="cancel")
    status = gr.HTML(elem_id="status")
    result = gr.HTML(elem_id="result")
    values = gr.HTML(elem_id="values")
    inputs = [first.file, second.file, *controls]
    shown = [status, result, values]
    _on(handlers, go, stop, handlers.fuse, inputs, shown, "page_fuse")


def _explaining(handlers: Handlers, first: Picture, second: Picture, controls: Controls) -> None:
    gr.Markdown(
        "Fuses the two pictures of the first tab again and shows the way there: the estimate step by step, which "
        "source each pixel follows, and how sure the result is. On a processor this takes some seconds for each seed."
    )
    with gr.Row():
        seeds = gr.Slider(0, 16, value=4, step=1, label="Seeds for the uncertainty map", info="0: none")
        go = gr.Button("Explain", variant="primary", elem_id="explain")
        stop = gr.Button("Cancel", variant="secondary", elem_id="explain-cancel")
    status = gr.HTML(elem_id="explain-status")
    report = gr.HTML(elem_id="report")
    inputs = [first.file, second.file, seeds, *controls]
    _on(handlers, go, stop, handlers.explain, inputs, [status, report], "page_explain")


def _batch(handlers: Handlers, controls: Controls) -> None:
    gr.Markdown(BATCH)
    with gr.Row():
        many: dict[str, Any] = {"file_count": "multiple", "file_types": [*SUFFIXES, ".zip"]}
        first = gr.File(label="Thermal pictures, or one zip", elem_id="many-ir", **many)
        second = gr.File(label="Visible pictures, or one zip", elem_id="many-vis", **many)
    with gr.Row():
        go = gr.Button("Fuse all", variant="primary", elem_id="many-fuse")
        stop = gr.Button("Cancel", variant="secondary", elem_id="many-cancel")
    status = gr.HTML(elem_id="many-status")
    rows = gr.HTML(elem_id="many-rows")
    inputs = [first, second, *controls]
    _on(handlers, go, stop, handlers.batch, inputs, [status, rows], "page_batch")


def _on(
    handlers: Handlers,
    go: gr.Button,
    stop: gr.Button,
    work: Callable[..., Any],
    inputs: Sequence[Any],
    shown: Sequence[Any],
    name: str,
) -> None:
    """``go`` clears what an earlier run showed and queues the work; ``stop`` ends it, begun or not."""

    def begin() -> list[str]:
        return [handlers.waits(), *[""] * (len(shown) - 1)]

    quick: dict[str, Any] = {"concurrency_limit": None, "api_visibility": "private", "show_progress": "hidden"}
    begun = go.click(begin, None, list(shown), api_name=f"{name}_begin", **quick)
    event = begun.then(work, list(inputs), list(shown), api_name=name, show_progress="hidden", **_WORKING)
    stop.click(handlers.cancel, None, shown[0], cancels=[event], api_name=f"{name}_stop", **quick)


def _offer(button: gr.Button, example: Example, first: Picture, second: Picture, controls: Controls) -> None:
    def take() -> tuple[str, str, str]:
        return str(example.infrared), str(example.visible), example.preset

    button.click(
        take, None, [first.file, second.file, controls.preset], api_visibility="private", concurrency_limit=None
    )


def _api(handlers: Handlers) -> None:
    endpoints = Endpoints(handlers)
    options: dict[str, Any] = {"concurrency_id": WORK, "concurrency_limit": 1}
    gr.api(endpoints.fuse, api_name="fuse", **options)
    gr.api(endpoints.explain, api_name="explain", **options)
    gr.api(endpoints.batch, api_name="batch", **options)


def _limits(handlers: Handlers) -> str:
    return LIMITS_TEXT.format(**dataclasses.asdict(handlers.studio.limits))
