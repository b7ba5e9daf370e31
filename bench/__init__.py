"""Measures First Ring beside a plain Pipecat bot. Not part of the product; run it with `python -m bench`."""

import processors as processors  # keeps onnxruntime's telemetry off, in the plain bot too
