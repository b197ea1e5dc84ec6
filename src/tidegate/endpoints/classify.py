"""Classifies a reply or fault: what it means for the line and for its endpoint."""

from tidegate.domain.errors import ConnectFailed, ReplyTooLarge, TimedOut, UpstreamFault
from tidegate.domain.retry import OK, AttemptOutcome, is_overload, is_success, outcome_of_status
from tidegate.domain.usage import NO_USAGE, Usage
from tidegate.endpoints.endpoint import Endpoint
from tidegate.upstreams.base import Reply
from tidegate.wire.results import error_line, quoted_in_error, read_reply_body, reply_line

_REASON_CHARACTERS_MAX = 300
NOT_FOUND = 404


class ClassifiedAttempt:
    """The meaning of an attempt. `line` is the line's result if this attempt is its last.

    `reason` describes what is wrong with the endpoint; `after` is its Retry-After in seconds.
    """

    __slots__ = ("after", "is_error", "line", "outcome", "overload", "reason", "usage")

    def __init__(  # noqa: PLR0913 -- its facts, given once
        self,
        outcome: AttemptOutcome,
        line: bytes,
        *,
        is_error: bool,
        usage: Usage = NO_USAGE,
        reason: str = "",
        overload: bool = False,
        after: float | None = None,
    ) -> None:
        self.outcome = outcome
        self.line = line
        self.is_error = is_error
        self.usage = usage
        self.reason = reason
        self.overload = overload
        self.after = after


def classify(  # noqa: PLR0913 -- a reply or fault, and its circumstances
    result: Reply | UpstreamFault,
    request_id: str,
    custom_id: bytes,
    *,
    endpoint: Endpoint,
    model: str,
    sent_at: float,
    now: float,
) -> ClassifiedAttempt:
    """Classify what came back for a line that was sent to an endpoint at `sent_at`."""
    if isinstance(result, Reply):
        starting = result.status == NOT_FOUND and endpoint.is_starting(model, now)
        return classify_reply(result, request_id, custom_id, starting=starting)
    serves_others = endpoint.served_at > sent_at
    return classify_fault(result, request_id, custom_id, serves_others=serves_others)


def classify_reply(
    reply: Reply, request_id: str, custom_id: bytes, *, starting: bool
) -> ClassifiedAttempt:
    """Classify a whole reply. `starting`: the endpoint may not have loaded the model yet."""
    status = reply.status
    body = read_reply_body(reply.body)
    if is_success(status):
        if body is None:
            return _not_json(reply, request_id, custom_id)
        text = _line(reply, request_id, custom_id, body.raw)
        return ClassifiedAttempt(OK, text, is_error=False, usage=body.usage)
    outcome = outcome_of_status(status)
    if status == NOT_FOUND and starting and _is_about_model(reply.body):
        outcome = AttemptOutcome.ENDPOINT_ERROR
    text = body.raw if body is not None else quoted_in_error(reply.body, status)
    return ClassifiedAttempt(
        outcome=outcome,
        line=_line(reply, request_id, custom_id, text),
        is_error=True,
        reason=_reason(reply),
        overload=is_overload(status),
        after=_seconds(reply.headers.get("retry-after")),
    )


def _line(reply: Reply, request_id: str, custom_id: bytes, text: bytes) -> bytes:
    return reply_line(
        request_id,
        custom_id,
        status=reply.status,
        upstream_id=reply.headers.get("x-request-id", request_id),
        body=text,
    )


def _not_json(reply: Reply, request_id: str, custom_id: bytes) -> ClassifiedAttempt:
    return ClassifiedAttempt(
        outcome=AttemptOutcome.LINE_ERROR,
        line=error_line(
            request_id,
            custom_id,
            code="invalid_reply",
            message=f"The upstream answered {reply.status} with a body that is not valid JSON.",
        ),
        is_error=True,
    )


def classify_fault(
    fault: UpstreamFault, request_id: str, custom_id: bytes, *, serves_others: bool
) -> ClassifiedAttempt:
    """Classify a call that got no usable reply.

    A broken or late reply is the line's fault only if the endpoint served others meanwhile.
    """
    return ClassifiedAttempt(
        outcome=_outcome_of_fault(fault, serves_others=serves_others),
        line=error_line(request_id, custom_id, code=_code(fault), message=str(fault)),
        is_error=True,
        reason=str(fault)[:_REASON_CHARACTERS_MAX],
        overload=isinstance(fault, TimedOut) and fault.phase != "connect",
    )


def _outcome_of_fault(fault: UpstreamFault, *, serves_others: bool) -> AttemptOutcome:
    if isinstance(fault, ReplyTooLarge):
        return AttemptOutcome.OK
    if isinstance(fault, ConnectFailed) or (
        isinstance(fault, TimedOut) and fault.phase == "connect"
    ):
        return AttemptOutcome.ENDPOINT_ERROR
    return AttemptOutcome.LINE_ERROR if serves_others else AttemptOutcome.UNKNOWN


def _code(fault: UpstreamFault) -> str:
    if isinstance(fault, TimedOut):
        return "upstream_timeout"
    if isinstance(fault, ReplyTooLarge):
        return "reply_too_large"
    if isinstance(fault, ConnectFailed):
        return "upstream_unreachable"
    return "upstream_reply_broken"


def _reason(reply: Reply) -> str:
    # The body is not quoted: it may contain our key, and differs in each reply.
    match reply.status:
        case 401 | 403 | 407:
            return f"the upstream refuses our key ({reply.status}): check its api_key"
        case 429:
            return f"the upstream asks for less ({reply.status})"
        case 502 | 503 | 504 | 529:
            return f"the upstream can't serve now ({reply.status})"
        case 404:
            return "the upstream does not know the model yet (404)"
        case _:
            return f"the upstream answered {reply.status}, which no model server should"


def _is_about_model(body: bytes) -> bool:
    return b"model" in body[:4_096].lower()


def _seconds(value: str | None) -> float | None:
    # Model servers do not use the other form, a date; our own backoff applies then.
    if value is None or not value.isascii() or not value.isdigit():
        return None
    return float(value[:9])
