"""Back-ends by kind: ours, those of other packages by entry point, and kinds that are unknown."""

from pathlib import Path

import pytest

from tidegate.config import load
from tidegate.config.settings import BlobsSettings, PubSubSettings, Settings, StoreSettings
from tidegate.domain.errors import SettingsInvalid
from tidegate.runtime.clock import SystemClock
from tidegate.stores.memory import MemoryStore
from tidegate.wiring.backends import open_blobs, open_pubsub, open_store

MODULE = """
from tidegate.stores.memory import MemoryStore


class RemoteStore(MemoryStore):
    def __init__(self, context):
        super().__init__(context.clock)
        self.options = context.options


def no_store(context):
    return object()
"""
ENTRY_POINTS = """
[tidegate.stores]
remote = remote_ledger:RemoteStore
wrong = remote_ledger:no_store
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a package that provides two kinds of ledgers."""
    folder = tmp_path / "remote_ledger-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: remote-ledger\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(ENTRY_POINTS)
    (tmp_path / "remote_ledger.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("package")
def test_a_ledger_of_another_package_gets_its_options() -> None:
    flags = {"store.kind": "remote", "store.options": {"url": "remote://host"}}
    settings = load(flags=flags, environment={}).settings
    store = open_store(settings, SystemClock())
    assert isinstance(store, MemoryStore)
    assert vars(store)["options"] == {"url": "remote://host"}


@pytest.mark.usefixtures("package")
def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    message = (
        "store.kind 'disk' is not installed: use one of memory, remote, sqlite, wrong, or install "
        "the package that provides it."
    )
    with pytest.raises(SettingsInvalid) as refusal:
        load(flags={"store.kind": "disk"}, environment={})
    assert str(refusal.value) == message
    with pytest.raises(SettingsInvalid, match="use one of memory, remote, sqlite"):
        open_store(Settings(store=StoreSettings(kind="disk")), SystemClock())
    with pytest.raises(SettingsInvalid, match="use one of filesystem, memory, or"):
        open_blobs(Settings(blobs=BlobsSettings(kind="files")), SystemClock())
    with pytest.raises(SettingsInvalid, match="use one of memory, or"):
        open_pubsub(Settings(pubsub=PubSubSettings(kind="redis")), SystemClock())


@pytest.mark.usefixtures("package")
def test_what_is_no_ledger_is_refused() -> None:
    with pytest.raises(SettingsInvalid, match="'wrong' returned no Store"):
        open_store(Settings(store=StoreSettings(kind="wrong")), SystemClock())
