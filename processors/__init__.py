"""What decides about one call's audio and turns: frame processors and the pure cores behind them.

Takes plain values, never settings; knows no vendor, no route and nothing of `bot/`.
"""

import os

# onnxruntime reports to its maker unless this is set before it is imported; set it to 0 to let it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from processors.wait_for import mend_wait_for

mend_wait_for()
