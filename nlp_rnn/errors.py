"""What users' mistakes raise, and a training that was told to stop."""


class ConfigError(ValueError):
    """A mistake of the user's: the setting, its value, what is allowed and the next step, one line a mistake."""


class DivergenceError(ConfigError):
    """A training whose loss or weights are no longer finite."""


class Stopped(KeyboardInterrupt):
    """The user stopped the training; its state is saved, on all workers after the same step."""
