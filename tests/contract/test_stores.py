"""Every ledger passes the contract suite, SQLite with its work inline and in threads."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tidegate.stores.base import Store
from tidegate.stores.lanes import ThreadExecutor
from tidegate.stores.memory import MemoryStore
from tidegate.stores.sqlite import SqliteStore
from tidegate.testing.contract import (
    stores_batch_ends as ends,
    stores_batches as batches,
    stores_claims as claims,
    stores_commits as commits,
    stores_compaction as compaction,
    stores_files as files,
    stores_garbage as garbage,
    stores_garbage_results as garbage_results,
    stores_members as members,
    stores_quarantine as quarantine,
    stores_renewals as renewals,
    stores_repair as repair,
    stores_retention as retention,
    stores_writers as writers,
)
from tidegate.testing.contract.stores import ManualClock
from tidegate.testing.inline_lanes import InlineExecutor

KINDS = ["memory", "sqlite-inline", "sqlite-threaded"]


@asynccontextmanager
async def opened(kind: str, clock: ManualClock, root: Path) -> AsyncIterator[Store]:
    path = root / "ledger.sqlite"
    match kind:
        case "memory":
            store: Store = MemoryStore(clock)
        case "sqlite-inline":
            store = SqliteStore(path, clock, InlineExecutor())
        case "sqlite-threaded":
            store = SqliteStore(path, clock, ThreadExecutor())
        case _:
            raise AssertionError(kind)
    async with store:
        yield store


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=KINDS)
async def store(
    request: pytest.FixtureRequest, clock: ManualClock, tmp_path: Path
) -> AsyncIterator[Store]:
    async with opened(request.param, clock, tmp_path) as store:
        yield store


@pytest.mark.parametrize("kind", KINDS)
async def test_a_ledger_says_whether_it_is_durable(kind: str, tmp_path: Path) -> None:
    async with opened(kind, ManualClock(), tmp_path) as store:
        assert store.durable is (kind != "memory")
        await store.__aexit__(None, None, None)  # Closing twice is harmless.


class TestOpen(files.OpenContract):
    pass


class TestUpload(files.UploadContract):
    pass


class TestGetFile(files.GetFileContract):
    pass


class TestDeleteFile(files.DeleteFileContract):
    pass


class TestListFiles(files.ListFilesContract):
    pass


class TestCreateBatch(batches.CreateBatchContract):
    pass


class TestGetInput(batches.GetInputContract):
    pass


class TestGetBatch(batches.GetBatchContract):
    pass


class TestListBatches(batches.ListBatchesContract):
    pass


class TestCancelBatch(batches.CancelBatchContract):
    pass


class TestNoteWaiting(batches.NoteWaitingContract):
    pass


class TestClaimPlanning(claims.ClaimPlanningContract):
    pass


class TestPoll(claims.PollContract):
    pass


class TestOffers(claims.OffersContract):
    pass


class TestClaimShards(claims.ClaimShardsContract):
    pass


class TestClaimFinalizing(renewals.ClaimFinalizingContract):
    pass


class TestRenew(renewals.RenewContract):
    pass


class TestHandBack(renewals.HandBackContract):
    pass


class TestPlanBatch(ends.PlanBatchContract):
    pass


class TestEndUnplanned(ends.EndUnplannedContract):
    pass


class TestCommit(commits.CommitContract):
    pass


class TestCommitParts(commits.CommitPartsContract):
    pass


class TestFinishBatch(ends.FinishBatchContract):
    pass


class TestMembers(members.MembersContract):
    pass


class TestBeginWriter(writers.BeginWriterContract):
    pass


class TestCrashes(quarantine.CrashesContract):
    pass


class TestSuspect(quarantine.SuspectContract):
    pass


class TestListUnusedFiles(retention.ListUnusedFilesContract):
    pass


class TestReleaseFiles(retention.ReleaseFilesContract):
    pass


class TestOldBatches(retention.OldBatchesContract):
    pass


class TestPurge(retention.PurgeContract):
    pass


class TestUnreferenced(garbage.UnreferencedContract):
    pass


class TestRetained(garbage.RetainedContract):
    pass


class TestDeletableUploads(garbage.DeletableUploadsContract):
    pass


class TestDeletablePlans(garbage.DeletablePlansContract):
    pass


class TestDeletableResults(garbage_results.DeletableResultsContract):
    pass


class TestListFragmented(compaction.ListFragmentedContract):
    pass


class TestSwapParts(compaction.SwapPartsContract):
    pass


class TestReferences(repair.ReferencesContract):
    pass


class TestRepair(repair.RepairContract):
    pass
