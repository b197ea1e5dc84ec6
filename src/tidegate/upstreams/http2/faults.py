"""What can be wrong with what a server says over HTTP/2."""

from tidegate.upstreams.base import Unanswered


class ProtocolBroken(Exception):
    """The server breaks the rules of the protocol; the text says by what.

    Nothing that it says on this connection can be trusted any more.
    """


class NotProcessed(Unanswered):
    """The server says that it did nothing with the call: it may be sent once more."""
