"""The error that all mistakes of users raise."""


class ConfigError(ValueError):
    """A mistake of the user's: the setting, its value, what is allowed and the next step, one line a mistake."""
