"""Pieces of the page as HTML: the comparison slider, progress, messages, tables. Everything from outside is escaped.

The slider is our own because Gradio's cannot be moved with the keyboard and scales pictures down: two pictures on each
other, a range input that cuts the upper one, and one that zooms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from ddfm.app.runs import Progress

__all__ = ["CSS", "alert", "compare", "downloads", "notes", "progress", "said", "table", "url"]


def url(path: Path) -> str:
    """Where the page finds a file of its request."""
    return f"gradio_api/file={quote(str(path))}"


def compare(upper: Path, lower: Path, upper_name: str, lower_name: str, width: int) -> str:
    """A before/after slider of two pictures of one size, ``width`` pixels wide, at their full resolution, with zoom."""
    label = f"{upper_name} against {lower_name}"
    cut = "this.closest('.dd-compare').style.setProperty('--cut', this.value + '%')"
    zoom = "this.closest('.dd-compare').style.setProperty('--zoom', this.value)"
    return f"""
<div class="dd-compare" style="--cut:50%;--zoom:1;--width:{width}px">
 <div class="dd-frame" tabindex="0" role="group" aria-label="{escape(label)}">
  <div class="dd-stack">
   <img src="{url(lower)}" alt="{escape(lower_name)}">
   <img class="dd-over" src="{url(upper)}" alt="{escape(upper_name)}">
   <div class="dd-line"></div>
  </div>
 </div>
 <div class="dd-names"><span>&#9664; {escape(upper_name)}</span><span>{escape(lower_name)} &#9654;</span></div>
 <label>Slide <input type="range" min="0" max="100" value="50" oninput="{cut}"
  aria-label="{escape(label)}: how much of {escape(upper_name)} is shown"></label>
 <label>Zoom <input type="range" min="1" max="8" step="0.5" value="1" oninput="{zoom}"
  aria-label="{escape(label)}: zoom"></label>
</div>"""


def downloads(files: Mapping[str, Path]) -> str:
    """Links that save files, by what they say. Gradio's own buttons would leave copies behind."""
    links = "".join(
        f'<a class="dd-get" id="get-{path.suffix[1:]}" href="{url(path)}" download="{escape(path.name)}">'
        f"{escape(words)}</a>"
        for words, path in files.items()
    )
    return f'<div class="dd-gets">{links}</div>'


def progress(at: Progress) -> str:
    """How far the work is."""
    known = f'max="{at.of}" value="{min(at.done, at.of)}"' if at.of else ""
    steps = f"step {at.done} of {at.of}, " if at.of else ""
    words = f"{escape(at.what)}: {steps}{at.seconds:.0f} s" if at.what else f"{steps}{at.seconds:.0f} s"
    return f'<div class="dd-status" role="status"><progress {known} aria-label="progress"></progress> {words}</div>'


def said(text: str) -> str:
    """A message."""
    return f'<div class="dd-status" role="status">{escape(text)}</div>'


def alert(text: str) -> str:
    """A message about what went wrong."""
    return f'<div class="dd-status dd-alert" role="alert">{escape(text)}</div>'


def notes(lines: Sequence[str]) -> str:
    """Warnings, "" for none."""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<ul class="dd-notes">{items}</ul>' if items else ""


def table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    """A table, "" without rows."""
    if not rows:
        return ""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    lines = f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="dd-table"><table><caption>{escape(caption)}</caption>{lines}</table></div>'


CSS = """
.dd-two { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 1.2em; }
.dd-compare { max-width: 100%; min-width: 0; }
.dd-frame { overflow: auto; max-height: 75vh; border: 1px solid var(--border-color-primary); border-radius: 6px; }
.dd-stack { position: relative; width: calc(min(100%, max(var(--width), 512px)) * var(--zoom)); line-height: 0; }
.dd-stack img { width: 100%; height: auto; margin: 0; image-rendering: auto; }
.dd-over { position: absolute; inset: 0; clip-path: inset(0 calc(100% - var(--cut)) 0 0); }
.dd-line { position: absolute; top: 0; bottom: 0; left: var(--cut); width: 2px; background: #fff;
  box-shadow: 0 0 3px #000; pointer-events: none; }
.dd-names { display: flex; justify-content: space-between; gap: 1em; font-size: .9em; margin: .3em 0; }
.dd-compare label { display: grid; grid-template-columns: 4em 1fr; align-items: center; min-height: 2.2em; }
.dd-compare input[type=range] { width: 100%; accent-color: #0b6e75; }
.dd-status { padding: .5em .2em; min-height: 1.5em; }
.dd-status progress { width: 12em; max-width: 50%; vertical-align: middle; accent-color: #0b6e75; }
.dd-alert { border-left: 4px solid #b3261e; padding-left: .8em; }
.dd-notes { border-left: 4px solid #b98300; padding-left: 1.6em; list-style: disc; }
.dd-table { overflow-x: auto; }
.dd-table table { border-collapse: collapse; width: 100%; }
.dd-table caption { text-align: left; padding: .3em 0; }
.dd-table th, .dd-table td { text-align: left; padding: .25em .6em; vertical-align: top;
  border-bottom: 1px solid var(--border-color-primary); }
.dd-table th:last-child { width: 60%; }
.dd-table th:first-child { min-width: 6em; }
.dd-table td { overflow-wrap: anywhere; }
.dd-table th { overflow-wrap: normal; }
.dd-gets { display: flex; flex-wrap: wrap; gap: .8em; margin: 1em 0; }
.dd-get { flex: 1 1 9em; text-align: center; padding: .6em 1em; border-radius: 6px; font-weight: 600;
  background: var(--button-secondary-background-fill); color: var(--button-secondary-text-color) !important;
  text-decoration: none !important; }
@media (max-width: 600px) { .dd-table td, .dd-table th { padding: .2em .3em; font-size: .9em; } }
.dd-report { width: 100%; height: 80vh; border: 1px solid var(--border-color-primary); border-radius: 6px; }
.dd-small { font-size: .9em; }
footer { padding-bottom: 1em; }
"""


def framed(document: str) -> str:
    """A whole document in a frame of its own, which may run its scripts and reach nothing else."""
    rights = 'sandbox="allow-scripts allow-downloads"'
    return f'<iframe class="dd-report" title="Report" {rights} srcdoc="{escape(document)}"></iframe>'
