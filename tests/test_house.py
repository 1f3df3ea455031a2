"""The house: nothing imports upwards, nothing in circles, ``import ddfm`` and the command line start light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ddfm

SOURCE = Path(ddfm.__file__).parent

#: Rooms by floor; a room may import rooms of lower floors, and of its own as long as there is no circle.
FLOORS = [
    {"_checks", "_provenance", "_runtime"},
    {
        "operators",
        "filters",
        "levels",
        "likelihood",
        "noise",
        "saliency",
        "admm",
        "released",
        "tiling",
        "strips",
        "diffusion",
        "color",
        "metrics",
        "tables",
        "samples",
        "phantoms",
        "_render",
        "stacks",
        "moving",
        "cuts",
        "steady",
        "palette",
    },
    {"priors", "sampling", "denoising", "pipeline"},
    {"io", "datasets", "registration", "journal", "pairing", "manifest", "naming"},
    {
        "presets",
        "noisy",
        "large",
        "opening",
        "config",
        "pictures",
        "fusion",
        "explaining",
        "beside",
        "sequence",
        "partners",
        "video",
        "volumes",
        "training",
        "planning",
        "engine",
        "evaluation",
        "conversion",
        "fetching",
        "bench",
        "demo",
        "diagnosis",
    },
    {"app"},
    {"cli", "__init__", "__main__"},
]
HEAVY = (
    "torch",
    "diffusers",
    "numpy",
    "PIL",
    "rich",
    "safetensors",
    "scipy",
    "jinja2",
    "psutil",
    "requests",
    "torchmetrics",
    "nibabel",
    "pydicom",
    "SimpleITK",
)


def room(path):
    """src/ddfm/io/raster.py -> io; src/ddfm/cli.py -> cli."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(path):
    """Rooms that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            parts = (node.module or "").split(".")
            if parts[0] == "ddfm":
                found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("ddfm.")}
    return found - {"__version__"}


@pytest.fixture(scope="module")
def graph():
    edges = {}
    for path in SOURCE.rglob("*.py"):
        edges.setdefault(room(path), set()).update(imported(path))
    return {name: targets - {name} for name, targets in edges.items()}


def test_every_room_has_a_floor(graph):
    assert set(graph) == set.union(*FLOORS)


def test_nothing_points_upwards(graph):
    floor = {name: level for level, names in enumerate(FLOORS) for name in names}
    floor["__init__"] = 99  # lazy: its imports run at the first use of a name, or for type checkers only
    upward = [(a, b) for a, targets in graph.items() for b in targets if floor[b] > floor[a]]
    assert upward == []


def test_no_circles(graph):
    def reach(name, seen):
        for target in graph.get(name, ()):
            if target not in seen:
                seen.add(target)
                reach(target, seen)
        return seen

    assert [name for name in graph if name != "__init__" and name in reach(name, set())] == []


def test_the_test_would_see_a_breach(tmp_path):
    file = tmp_path / "x.py"
    file.write_text("def f():\n    from ddfm.cli import app\n    import ddfm.io.raster\n")
    assert imported(file) == {"cli", "io"}


@pytest.mark.parametrize("code", ["import ddfm", "import ddfm.cli", "import ddfm.io"])
def test_starts_light(code):
    script = f"import sys; {code}; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_public_names():
    """A change here is a change for every user: say so in the CHANGELOG."""
    assert ddfm.__all__ == [
        "PRESETS",
        "DDFMError",
        "DDFMOutput",
        "DDFMPipeline",
        "DDFMWarning",
        "Explanation",
        "FuseConfig",
        "Fused",
        "Fuser",
        "FusionLikelihood",
        "FusionState",
        "LocalSaliency",
        "Preset",
        "StrongestGradient",
        "__version__",
        "explain",
        "fuse",
        "load_prior",
        "metrics",
        "samples",
    ]
    for name in ddfm.__all__:
        assert getattr(ddfm, name) is not None
    with pytest.raises(AttributeError):
        _ = ddfm.nothing


def test_package_is_typed():
    assert (SOURCE / "py.typed").is_file()


def test_doctor_knows_every_extra():
    import tomllib

    from ddfm.diagnosis import EXTRAS

    extras = tomllib.loads((SOURCE.parents[1] / "pyproject.toml").read_text("utf-8"))["project"][
        "optional-dependencies"
    ]
    assert set(EXTRAS) == set(extras) - {"dev", "bench"}
