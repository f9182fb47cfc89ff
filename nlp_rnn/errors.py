"""Exceptions for user mistakes and for a stopped training."""


class ConfigError(ValueError):
    """A user mistake. The message has one line per mistake: the setting, its value, what is allowed, the next step."""


class DivergenceError(ConfigError):
    """The loss or the weights of a training are no longer finite."""


class Stopped(KeyboardInterrupt):
    """The user stopped the training. Its state is saved, on all workers after the same step."""
