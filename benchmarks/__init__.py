"""One script per claim: each measures both sides and prints the ratio. Run as `python -m benchmarks.<name>`."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
