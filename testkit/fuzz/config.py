"""Files of settings and of keys: any bytes give settings or an error of one sentence."""

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import strategies as st

from testkit.fuzz.mutations import Edit, edited, edits
from testkit.fuzz.target import Target
from tidegate.cli.config import example_text
from tidegate.config import load
from tidegate.config.keys import read_key, read_keys
from tidegate.domain.errors import SettingsInvalid

MESSAGE_CHARACTERS_MAX = 4_000
YAML = b"""upstream:
  url: http://127.0.0.1:8001
  timeouts: {total_seconds: 9}
server:
  keys: ["key tenant", other]
  port: 8000
processor: {limits: {in_flight_max: 3}}
"""
TOML = b"""data_dir = "x"
[upstream]
url = "http://127.0.0.1:8001"
[server]
keys = ["key tenant"]
[batch_api]
extra_endpoints = ["/v1/rerank"]
"""
KEYS = b"\xef\xbb\xbf# keys\nkey-one tenant-one\r\n\nkey-two\n"
TELLING = [
    b"\n", b":", b": ", b"- ", b"{", b"}", b"[", b"]", b"&a", b"*a", b"<<: *a\n",
    b"!!python/name:os", b"~", b"null", b"true", b".inf", b".nan", b"-1", b"1e999", b"9" * 400,
    b"'", b'"', b"\x00", b"\xff", b"#", b"? ", b"2001-01-01", b"0x", b"1_0", b"  ", b"\t", b"=",
    b"\xc2\x85", b"|\n", b"\xe2\x80\xa8", b"0:0", b"!!set", b"!!timestamp", b"[" * 1_500,
]  # fmt: skip
SUFFIXES = {".yaml": YAML, ".toml": TOML, ".keys": KEYS, ".example": example_text().encode()}
INPUTS = st.tuples(
    # The example is large and slow to read: it comes last and least.
    st.sampled_from([".keys", ".toml", ".yaml", ".yaml", ".keys", ".toml", ".example"]),
    edits(TELLING),
    st.none() | st.binary(max_size=60),
)


def check(example: tuple[str, list[Edit], bytes | None]) -> None:
    """Read a file; anything else than a clear refusal is a fault."""
    suffix, changes, replaced = example
    data = edited(SUFFIXES[suffix] if replaced is None else replaced, changes)
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"settings{'.yaml' if suffix == '.example' else suffix}"
        path.write_bytes(data)
        try:
            _read(path)
        except SettingsInvalid as refused:
            text = str(refused)
            assert text
            assert len(text) <= MESSAGE_CHARACTERS_MAX, "a message that nobody reads"
            if suffix == ".keys":
                assert "key-one" not in text, "a message repeats a key"


def _read(path: Path) -> None:
    if path.suffix == ".keys":
        for reader in (read_keys, read_key):
            reader(path)
    else:
        load(file=path, environment={})


TARGET = Target(name="config", inputs=INPUTS, check=check)
