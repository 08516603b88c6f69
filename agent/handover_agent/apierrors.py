"""What can go wrong between the agent and the API server, as types that say what was tried, on what, and what
to do.
"""


class ApiError(Exception):
    """Base of everything that a call to the API server may end with; `hint` tells what a person can do."""

    hint = "see the API server's log"

    def __init__(self, message: str, hint: str = "") -> None:
        self.hint = hint or self.hint
        super().__init__(f"{message}; {self.hint}")


class CredentialsError(ApiError):
    """A token, certificate or kubeconfig cannot be used."""

    hint = "mount a ServiceAccount token, or name a readable kubeconfig"


class Unreachable(ApiError):
    """No API server answered: refused, timed out, TLS failed, or the connection ended in the middle."""

    hint = "check that the API server runs and that this node reaches it"


class StatusError(ApiError):
    """The API server answered with a failure."""

    status = 0

    def __init__(self, verb: str, what: str, status: int, message: str, hint: str = "") -> None:
        self.verb, self.what, self.status = verb, what, status
        super().__init__(f"{verb} {what}: {status} {message}".rstrip(), hint)


class Unauthorized(StatusError):
    hint = "the token or certificate is not (or no longer) valid for this cluster"


class Forbidden(StatusError):
    hint = "apply the agent's RBAC of this version (manifests/base)"


class NotFound(StatusError):
    hint = "apply the CRDs and objects of this version (manifests/base)"


class Conflict(StatusError):
    hint = "another writer owns the field or wrote first; read the object again"


class Gone(StatusError):
    """The resource version or continue token is too old."""

    hint = "list again"


class Rejected(StatusError):
    hint = "the object is not valid for the API server's schema; agent and CRDs may differ in version"


class Busy(StatusError):
    """The API server is overloaded, starting or stopping (429, 5xx)."""

    hint = "it is tried again"

    def __init__(self, verb: str, what: str, status: int, message: str, retry_after_s: float = 0.0) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(verb, what, status, message)


_BY_STATUS: dict[int, type[StatusError]] = {
    400: Rejected,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    415: Rejected,
    422: Rejected,
}


def status_error(verb: str, what: str, status: int, message: str, retry_after_s: float = 0.0) -> StatusError:
    """The error for an HTTP status of 400 and more."""
    if status == 429 or status >= 500:
        return Busy(verb, what, status, message, retry_after_s)
    return _BY_STATUS.get(status, StatusError)(verb, what, status, message)
