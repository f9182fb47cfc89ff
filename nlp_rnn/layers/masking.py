"""The score of what must not be chosen."""

IMPOSSIBLE = -1e9  # its exponential is 0, and sums of several stay finite in float32
