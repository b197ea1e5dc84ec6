"""Translates the errors of the HTTP library; no other file knows them."""

import ssl

import httpx

from tidegate.client.errors import ServerUnreachable, UnexpectedResponse
from tidegate.client.sanitize import sanitize
from tidegate.client.settings import CONNECT_SECONDS_MAX, ClientSettings

_REASON_CHARACTERS_MAX = 200


def client_error(
    error: httpx.HTTPError, access: ClientSettings
) -> UnexpectedResponse | ServerUnreachable:
    """Return our error, with one sentence that says what to do."""
    root = access.root
    ended_early = "closed" in str(error) or "disconnected" in str(error)
    match error:
        case httpx.ConnectTimeout():
            seconds = min(CONNECT_SECONDS_MAX, access.timeout_seconds)
            message = (
                f"No connection to {root} within {seconds:g} s: check the address and firewalls."
            )
        case httpx.TimeoutException():
            return timed_out(access)
        case httpx.ConnectError():
            message = _unconnected(root, error)
        case httpx.NetworkError():
            message = f"The connection to {root} broke in the middle: run the command again."
        # The library has no error class for an answer that ends early.
        case httpx.RemoteProtocolError() if ended_early:
            message = (
                f"{root} closed the connection before the end of its answer: run the command again."
            )
        case httpx.ProtocolError():
            return UnexpectedResponse(
                f"The server at {root} does not speak HTTP ({_reason(error)}): check the URL."
            )
        case _:
            message = f"The request to {root} failed ({_reason(error)})."
    return ServerUnreachable(message)


def timed_out(access: ClientSettings) -> ServerUnreachable:
    """Return the error for an answer that takes too long."""
    return ServerUnreachable(
        f"{access.root} gave no complete answer within {access.timeout_seconds:g} s: try again, "
        "or raise --timeout."
    )


def _unconnected(root: str, error: httpx.ConnectError) -> str:
    if _is_tls(error):
        return (
            f"TLS to {root} failed or is not trusted ({_reason(error)}): check the address, "
            "or name its authority with --ca-file."
        )
    return (
        f"No server answers at {root} ({_reason(error)}): start `tidegate serve`, or give the "
        "right address with --base-url or OPENAI_BASE_URL."
    )


def _is_tls(error: BaseException) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError) or "SSL" in str(cause):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _reason(error: BaseException) -> str:
    return sanitize(str(error), _REASON_CHARACTERS_MAX) or type(error).__name__
