"""h2, which speaks the protocol, kept within our bounds and asked one frame at a time."""

import re
from collections.abc import Sequence

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, Event, RemoteSettingsChanged
from h2.exceptions import DenialOfServiceError, H2Error
from h2.settings import SettingCodes, Settings
from hyperframe.exceptions import HyperframeError
from hyperframe.frame import GoAwayFrame

from tidegate.upstreams.http2 import frames
from tidegate.upstreams.http2.faults import ProtocolBroken
from tidegate.upstreams.http2.frames import Frame
from tidegate.upstreams.settings import Limits

STREAM_ID_MAX = H2Connection.HIGHEST_ALLOWED_STREAM_ID
WINDOW_START = 65_535
WINDOW_MAX = H2Connection.MAX_WINDOW_INCREMENT
FIELD_BYTES = 32  # What the protocol counts for a header beside its name and value.
# How much of h2's reason is told.
REASON_CHARS_MAX = 120

_ADDRESS = re.compile(r"<[^<>]* at 0x[0-9a-f]+>")
_OF_CALLS = frozenset({frames.DATA, frames.HEADERS, frames.RST_STREAM})
_OF_HEADS = frozenset({frames.HEADERS, frames.CONTINUATION})


class HeadTooLarge(ProtocolBroken):
    """Headers that can't even be skipped, although what later ones mean depends on them."""

    def __init__(self, stream: int) -> None:
        super().__init__("it sent headers that are too large to be skipped")
        self.stream = stream


class Http2Client(H2Connection):
    """The protocol from the side of a client."""

    # Calls that are over, by which it tells a late frame from a wrong one.
    MAX_CLOSED_STREAMS = 1024

    def __init__(self, limits: Limits) -> None:
        # Requests are built of checked parts, and what is wrong with the head of one reply is for
        # us to find: h2 would end the whole connection for it.
        super().__init__(
            H2Configuration(
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
                validate_inbound_headers=False,
                normalize_inbound_headers=False,
            )
        )
        head_bytes_max = limits.header_bytes_max + FIELD_BYTES * (limits.header_count_max + 1)
        window = min(WINDOW_MAX, WINDOW_START + 2 * limits.body_bytes_max)
        self.local_settings = Settings(
            initial_values={
                SettingCodes.ENABLE_PUSH: 0,
                SettingCodes.INITIAL_WINDOW_SIZE: window,
                SettingCodes.MAX_HEADER_LIST_SIZE: head_bytes_max,
            }
        )
        self.decoder.max_header_list_size = head_bytes_max
        self._packed_bytes_max = limits.header_bytes_max + frames.PAYLOAD_BYTES_MAX
        self._packed_bytes = 0
        self._head_of = 0
        self._is_greeted = False

    def greet(self) -> None:
        """Say that we speak HTTP/2, and how much we take."""
        self.initiate_connection()
        self.increment_flow_control_window(WINDOW_MAX - WINDOW_START)

    def read(self, frame: Frame) -> Sequence[Event]:
        """Return what a frame means.

        Raises:
            ProtocolBroken: it may not be, or not here.
        """
        self._check(frame)
        if frame.kind == frames.GOAWAY:
            return [_farewell(frame)]
        try:
            events = self.receive_data(frame.whole)
        except DenialOfServiceError as exc:
            raise HeadTooLarge(frame.stream) from exc
        except H2Error as exc:
            raise ProtocolBroken(_reason(exc)) from exc
        if frame.kind in _OF_HEADS and frame.flags & frames.END_HEADERS:
            self._head_of = self._packed_bytes = 0
        for event in events:
            if isinstance(event, RemoteSettingsChanged):
                self._forget_strange(event)
        return events

    def _check(self, frame: Frame) -> None:
        """Find what h2 lets pass, or would let grow."""
        kind = frame.kind
        if not self._is_greeted and (kind != frames.SETTINGS or frame.flags & frames.ACK):
            raise ProtocolBroken("it sent something before its settings")
        self._is_greeted = True
        if self._head_of and kind != frames.CONTINUATION:
            raise ProtocolBroken("it sent something in the middle of headers")
        made = frame.stream % 2 and frame.stream <= self.highest_outbound_stream_id
        if kind in _OF_CALLS and not made:
            raise ProtocolBroken("it sent something for a call that was never made")
        if kind in _OF_HEADS:
            self._head_of = frame.stream
            self._packed_bytes += len(frame.whole)
            if self._packed_bytes > self._packed_bytes_max:
                raise HeadTooLarge(frame.stream)

    def _forget_strange(self, event: RemoteSettingsChanged) -> None:
        """Drop settings that nobody knows: there are 65,536 names for them, and h2 keeps each."""
        for code in event.changed_settings:
            if not isinstance(code, SettingCodes):
                self.remote_settings.pop(code, None)


def _reason(exc: H2Error) -> str:
    """Return what h2 says of a wrong frame, without the places of its objects in memory."""
    text = f"{type(exc).__name__}: {exc}"
    return _ADDRESS.sub("what came", text)[:REASON_CHARS_MAX]


def _farewell(frame: Frame) -> ConnectionTerminated:
    """Read the frame at which h2 would forget calls that the server still means to answer."""
    try:
        read = GoAwayFrame(frame.stream)
        read.parse_body(memoryview(frame.whole)[frames.HEAD_BYTES :])
    except HyperframeError as exc:
        raise ProtocolBroken("it sent a farewell that can't be read") from exc
    farewell = ConnectionTerminated()
    farewell.last_stream_id = read.last_stream_id & frames.STREAM_ID_MAX
    return farewell
