"""The one base of all errors that tell a user what to change."""


class LlicError(Exception):
    """Bad input, a missing file, something not installed. The message says what was found, what was
    expected and what to do; command lines print it without a traceback."""


class ConfigError(LlicError, ValueError):
    """A config whose fields do not go together."""
