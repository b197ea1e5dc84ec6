"""What we say over HTTP/2: heads that keep secrets, and bodies as they are taken."""

import pytest
from h2.settings import SettingCodes
from hpack import Decoder, Encoder, NeverIndexedHeaderTuple
from hyperframe.frame import DataFrame, Frame, HeadersFrame

from tidegate.domain.errors import UpstreamFault
from tidegate.testing.fuzz.frames import HEAD, Side
from tidegate.testing.http2_frames import settings_frame, window_frame
from tidegate.upstreams.base import Call, Reply
from tidegate.upstreams.http2.dialogue import FRAME_BYTES_MAX
from tidegate.upstreams.http2.heads import RequestFields
from tidegate.upstreams.settings import HttpSettings, Limits

MUCH = 2**24


class Ear:
    def on_reply(self, result: Reply | UpstreamFault) -> None:
        """Hear nothing."""


@pytest.fixture(autouse=True)
async def running() -> None:
    """Run every test inside a loop."""


def said(side: Side, since: int) -> list[Frame]:
    rest = memoryview(bytes(side.wire.sent))[since:]
    frames = []
    while rest:
        frame, size = Frame.parse_frame_header(rest[:9])
        frame.parse_body(rest[9 : 9 + size])
        frames.append(frame)
        rest = rest[9 + size :]
    return frames


async def test_keys_and_what_changes_are_marked_as_not_to_be_kept() -> None:
    settings = HttpSettings(url="http://host", api_key="secret", headers={"X-Key": "secret"})
    call = Call(path="/v1/x", body=b"{}", headers={"x-request-id": "r1"})
    fields = Decoder().decode(Encoder().encode(RequestFields(settings).of(call)), raw=True)
    never = {it[0] for it in fields if isinstance(it, NeverIndexedHeaderTuple)}
    assert never == {b"authorization", b"x-key", b"x-request-id", b"content-length"}


async def test_a_head_is_said_in_full_once_only() -> None:
    fields, encoder = RequestFields(HttpSettings(url="http://host")), Encoder()
    first, second = (len(encoder.encode(fields.of(Call(path="/v1/x", body=b"")))) for _ in range(2))
    assert second < first / 2


async def test_bodies_go_a_piece_at_a_time_to_who_reads_slowly() -> None:
    side = Side(Limits(), 0)
    side.hear(
        [
            settings_frame(
                {SettingCodes.INITIAL_WINDOW_SIZE: MUCH, SettingCodes.MAX_FRAME_SIZE: 2**20}
            ),
            window_frame(0, MUCH),
        ],
        ends=False,
    )
    side.wire.after_write = side.connection.pause_writing
    body = bytes(3 * FRAME_BYTES_MAX + 1)
    before = len(side.wire.sent)
    side.connection.start(HEAD, Call(path="/v1/x", body=body), Ear(), now=0.0, total_due=1e9)
    for count in range(1, 5):
        head, *pieces = said(side, before)
        assert isinstance(head, HeadersFrame)
        assert ("END_STREAM" in pieces[-1].flags) == (count == 4)
        sizes = [len(it.data) for it in pieces if isinstance(it, DataFrame)]
        assert sizes == [FRAME_BYTES_MAX] * min(count, 3) + [1] * (count > 3)
        side.connection.resume_writing()
