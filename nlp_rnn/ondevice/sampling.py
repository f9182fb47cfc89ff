"""Draws the next id from log-probabilities as `decoding.sampling` does, in NumPy: the same seed draws the same ids."""

from dataclasses import dataclass

import numpy as np

REPETITION_WINDOW = 64  # the repetition penalty applies to so many of the last ids


@dataclass(frozen=True)
class Sampling:
    """How the next id is drawn; see `decoding.settings.GenerationSettings`."""

    temperature: float
    top_k: int
    top_p: float
    repetition_penalty: float
    seed: int


def draw(scores: np.ndarray, sampling: Sampling, position: int, recent: list[int]) -> int:
    """Draws an id.

    Args:
      scores: float32 [vocabulary], log-probabilities; -inf for ids that are not allowed.
      position: of the id in the text, from 0.
      recent: the ids before it, at most REPETITION_WINDOW of which count.
    """
    scores = restrict(scores, sampling, recent)
    if sampling.temperature <= 0:
        return int(scores.argmax())
    uniform = random_uniform(sampling.seed, position, len(scores))
    return int((scores - np.float32(sampling.temperature) * np.log(-np.log(uniform))).argmax())  # Gumbel noise


def restrict(scores: np.ndarray, sampling: Sampling, recent: list[int]) -> np.ndarray:
    """Applies repetition penalty, top-k and top-p; top-p uses the probabilities at the temperature.

    Returns:
      float32 [vocabulary], -inf for ids that are left out.
    """
    if sampling.repetition_penalty > 1 and recent:
        scores = scores.copy()
        scores[np.unique(recent[-REPETITION_WINDOW:])] -= np.float32(np.log(sampling.repetition_penalty))
    heated = scores / np.float32(sampling.temperature if sampling.temperature > 0 else 1)
    ranked = np.sort(heated)[::-1]
    if 0 < sampling.top_k < len(ranked):
        ranked = ranked[: sampling.top_k]
    if 0 < sampling.top_p < 1:
        shares = np.exp(ranked - np.logaddexp.reduce(ranked))
        ranked = ranked[np.cumsum(shares) - shares < sampling.top_p]
    return np.where(heated >= ranked[-1], scores, np.float32(-np.inf))


def random_uniform(seed: int, position: int, size: int) -> np.ndarray:
    """float32 [size]: random numbers in the open interval (0, 1) that depend only on seed, position and index.

    Source: MurmurHash3's finaliser (Appleby 2008).
    """
    with np.errstate(over="ignore"):
        state = _mix(np.array([seed], np.uint32) + np.uint32(0x9E3779B9))
        state = _mix(state + np.uint32(position) * np.uint32(0x85EBCA77))
        state = _mix(state + np.arange(size, dtype=np.uint32) * np.uint32(0xC2B2AE3D))
    return ((state >> np.uint32(9)).astype(np.float32) + np.float32(0.5)) / np.float32(2**23)


def _mix(value: np.ndarray) -> np.ndarray:
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        value = (value ^ (value >> np.uint32(shift))) * np.uint32(factor)
    return value
