"""What a result was made with: versions, machine, threads. For reports, benchmarks and ``ddfm doctor``."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import os
import platform
from typing import Any

__all__ = ["later", "machine", "now", "settings_of", "versions"]

_PACKAGES = ("ddfm", "torch", "diffusers", "numpy", "pillow", "tifffile", "imagecodecs", "safetensors")


def later(default: Any) -> Any:
    """A field that came after settings had been hashed: not listed at its default, so that older hashes stay."""
    return dataclasses.field(default=default, metadata={"later": True})


def settings_of(value: Any) -> Any:
    """Frozen settings as plain values for JSON: dataclasses by their class and fields."""
    if not dataclasses.is_dataclass(value):
        return list(value) if isinstance(value, tuple) else value
    known = [(f, getattr(value, f.name)) for f in dataclasses.fields(value)]
    fields = {f.name: settings_of(x) for f, x in known if not (f.metadata.get("later") and x == f.default)}
    return {"class": type(value).__name__, **fields}


def now() -> str:
    """UTC time, ISO 8601, seconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that shape a result; "missing" where one is not installed."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "missing"
    return found


def machine() -> dict[str, Any]:
    """Processor, cores and system; no host name, no user name."""
    return {
        "system": platform.system(),
        "processor": processor(),
        "cores": os.cpu_count(),
    }


def processor() -> str:
    """Model name of the processor, as Linux tells it, or the architecture."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123 - not a file of the user's
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.machine()
