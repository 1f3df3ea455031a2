"""How a result came about: what was seen on the way, maps of it, how sure it is, and a page that shows all that."""

from ddfm.explaining.explanation import Explanation, Samples, explain, explain_with
from ddfm.explaining.trace import Frame, Recorder, Trace

__all__ = ["Explanation", "Frame", "Recorder", "Samples", "Trace", "explain", "explain_with"]
