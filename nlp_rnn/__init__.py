"""Recurrent text models that are small, fast on a plain CPU and easy to serve."""

__version__ = "0.1.0"
