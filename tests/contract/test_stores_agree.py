"""Driven with the same random calls, the ledgers in SQLite and in memory give the same answers."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from typing_extensions import override

from testkit.power.store_machine import examples, run
from tidegate.stores.base import Store
from tidegate.stores.sqlite import SqliteStore
from tidegate.testing.contract.stores_agreement import Agreement
from tidegate.testing.contract.stores_agreement_collector import CollectorAgreement
from tidegate.testing.inline_lanes import InlineExecutor

pytestmark = pytest.mark.slow


class WithSqlite(Agreement):
    """The ledger in a file of its own."""

    @override
    def open(self) -> Store:
        self._folder = TemporaryDirectory()
        path = Path(self._folder.name) / "ledger.sqlite"
        return run(SqliteStore(path, self.clock, InlineExecutor()).__aenter__())

    @override
    def teardown(self) -> None:
        run(self.other.__aexit__(None, None, None))
        self._folder.cleanup()


class Life(WithSqlite):
    pass


class LifeAndCollector(CollectorAgreement, WithSqlite):
    pass


TestLife = Life.TestCase
TestLife.settings = examples(100)
TestLifeAndCollector = LifeAndCollector.TestCase
TestLifeAndCollector.settings = examples(150)
