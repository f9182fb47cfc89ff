"""Errors that a client is told: TensorFlow Serving's codes and their HTTP statuses."""

# Source: tensorflow/serving, http_server.cc: ToHTTPStatusCode. TOO_LARGE is ours: it has no code there.
STATUSES = {
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DATA_LOSS": 500,
    "UNAUTHENTICATED": 401,
    "TOO_LARGE": 413,
}


class RequestError(Exception):
    """A request that is answered with an error: its code, a key of STATUSES, and one line for the client."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message

    @property
    def status(self) -> int:
        """The HTTP status."""
        return STATUSES[self.code]


def invalid(message: str) -> RequestError:
    """The error of a request that no server could answer."""
    return RequestError("INVALID_ARGUMENT", message)
