"""Adds the calls of collector and quarantine to the random calls on two ledgers.

In every order of calls: once `fence_and_list_deletable` returned a blob, no row points to it.
"""

from dataclasses import replace

from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from testkit.power.store_machine import run
from tidegate.domain.blob_names import PlanBlob, ResultBlob, UploadBlob
from tidegate.domain.claim import Kind
from tidegate.domain.file import Part
from tidegate.domain.ledger.values import FileRepair, Fragmented, Repair, ShardRepair
from tidegate.domain.shard import Shard, Tally, count_done, is_done, no_lines_done, with_done
from tidegate.testing.contract.stores_agreement import (
    ALL_FILES,
    BATCHES,
    NOBODY,
    Agreement,
    plan_of,
)

OWNERS = st.sampled_from(["anna", "bert", "cleo"])
SECONDS = st.sampled_from([0.0, 20.0])


class CollectorAgreement(Agreement):
    """Both ledgers, and what they gave away."""

    def __init__(self) -> None:
        super().__init__()
        self.deletable: set[str] = set()
        self.compactions = 0

    def names(self) -> list[str]:
        """Return every blob's name that may have been written, and some that were not.

        A batch that nobody has created yet is not asked about: its blobs would go, as those of a
        batch that was dropped.
        """
        files = [file_id for file_id in ALL_FILES if "batch" not in file_id]
        uploads = [
            f"upload-{file_id}-{tenant}"
            for file_id in files
            for tenant in ("tenant-one", "tenant-two")
        ]
        uploads += [f"compaction-{number}" for number in range(self.compactions + 1)]
        found = [UploadBlob(upload_id=upload_id).name for upload_id in uploads]
        for batch_id in [*sorted(self.created), NOBODY]:
            found += [PlanBlob(batch_id=batch_id, epoch=epoch).name for epoch in range(4)]
            found += [
                ResultBlob(batch_id=batch_id, writer=f"writer-{batch_id}-{number}", label="x").name
                for number in range(self.segments // 4 + 2)
            ]
        return [*found, "another tenant's"]

    @rule(owner=OWNERS, lease=st.sampled_from([0.5, 15.0]))
    def renew_membership(self, owner: str, lease: float) -> None:
        """Let a processor live."""
        self.both(lambda s: s.renew_membership(owner, lease_seconds=lease))

    @rule(owner=OWNERS)
    def leave(self, owner: str) -> None:
        """Let a processor go."""
        self.both(lambda s: s.leave(owner))

    @rule(data=st.data(), index=st.integers(0, 1), died=st.booleans())
    def suspect(self, data: st.DataObject, index: int, died: bool) -> None:  # noqa: FBT001 -- Hypothesis passes by name
        """Record a line that is sent alone, and perhaps a death."""
        claim = self.pick_claim(data, {Kind.SHARD})
        if claim is None:
            return
        if not died or data.draw(st.booleans()):
            self.both(lambda s: s.record_suspect(claim, index))
        if died:
            self.both(lambda s: s.record_sandbox_death(claim, index))

    @rule(batch_id=st.sampled_from(BATCHES[:2]), whole=st.booleans())
    def get_on(self, batch_id: str, whole: bool) -> None:  # noqa: FBT001 -- as above
        """Bring a batch on by a line of each shard, or to its end."""
        self.clock.turn(15.0)
        self.work_honestly(batch_id, whole)
        claim = self.claims[-1]
        if claim.unit.kind is Kind.FINALIZING:
            self.both(lambda s: s.finish_batch(claim, at=self.clock.now()))

    @rule(data=st.data(), seconds=SECONDS)
    def let_go(self, data: st.DataObject, seconds: float) -> None:
        """Delete a file that can be seen, and release it at once."""
        files = self.visible()
        if not files:
            return
        file = data.draw(st.sampled_from(files))
        self.both(lambda s: s.delete_file(file.tenant, file.file_id))
        self.both(lambda s: s.release_files([file.file_id], keep_seconds=seconds))

    @rule(file_ids=st.lists(st.sampled_from(ALL_FILES), max_size=8), seconds=SECONDS)
    def release(self, file_ids: list[str], seconds: float) -> None:
        """Let go of files, of which most are in use."""
        self.both(lambda s: s.release_files(file_ids, keep_seconds=seconds))

    @rule(batch_ids=st.just(BATCHES) | st.lists(st.sampled_from([*BATCHES, NOBODY]), max_size=2))
    def drop(self, batch_ids: list[str]) -> None:
        """Drop batches that have ended."""
        self.both(lambda s: s.drop_batches(batch_ids))
        found = self.both(lambda s: s.get_states(batch_ids))
        states = found.by_id if found else {}
        self.dropped |= {key for key in batch_ids if key not in states and key in self.created}

    @rule(age=st.sampled_from([0.0, 15.0, 1e9]), limit=st.integers(1, 3))
    def purge(self, age: float, limit: int) -> None:
        """Remove rows. An upload id may be used again then, as it never is in truth."""
        self.both(lambda s: s.purge(age_seconds=age, limit=limit))
        self.deletable = {name for name in self.deletable if not name.startswith("uploads/")}

    @rule(data=st.data(), idle=st.booleans())
    def fence_and_list_deletable(self, data: st.DataObject, idle: bool) -> None:  # noqa: FBT001 -- as above
        """Give away what nobody needs and nobody will."""
        some = st.lists(st.sampled_from(self.names()), max_size=12)
        names = self.names() if data.draw(st.booleans()) else data.draw(some)
        seconds = 0.0 if idle else 1e9
        self.deletable |= set(
            self.both(lambda s: s.fence_and_list_deletable(names, idle_seconds=seconds)) or ()
        )

    @rule(batch_id=st.sampled_from(BATCHES[2:]), owner=OWNERS, pause=st.sampled_from([0.0, 15.0]))
    def plan_late(self, batch_id: str, owner: str, pause: float) -> None:
        """Write a plan, stop for a while in which the collector comes, and record it."""
        self.create_batch(batch_id, "file-0", None, None, "tenant-one")
        claimed = self.both(lambda s: s.claim_planning(owner, lease_seconds=15))
        if claimed is None:
            return
        self.claims.append(claimed.claim)
        plan = plan_of(claimed.claim, ["m"])
        self.clock.turn(pause)
        self.deletable |= set(
            self.both(lambda s: s.fence_and_list_deletable([plan.blob], idle_seconds=1e9)) or ()
        )
        self.both(lambda s: s.plan_batch(claimed.claim, plan, at=self.clock.now()))

    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        """Retain some blobs no more."""
        names = data.draw(st.lists(st.sampled_from(self.names()), max_size=4))
        self.both(lambda s: s.forget_retained(names))

    @rule(
        data=st.data(),
        count=st.integers(1, 3),
        trouble=st.sampled_from(["", "", "", "not begun", "other parts", "deletable"]),
        seconds=SECONDS,
    )
    def swap(self, data: st.DataObject, count: int, trouble: str, seconds: float) -> None:
        """Compact the first parts of a file, and ask again."""
        files = self.visible()
        if not files:
            return
        file = data.draw(st.sampled_from(files))
        old = run(self.memory.get_parts(file.tenant, file.file_id))[1][:count]
        if trouble == "other parts":
            old = old[::-1] if len(old) > 1 else (replace(old[0], offset=999),)
        self.compactions += 1
        upload_id, at = f"compaction-{self.compactions}", self.clock.now()
        blob = UploadBlob(upload_id=upload_id).name
        if trouble != "not begun":
            self.both(lambda s: s.begin_upload(upload_id, tenant=file.tenant, blob=blob, at=at))
        if trouble == "deletable":
            self.deletable |= set(
                self.both(lambda s: s.fence_and_list_deletable([blob], idle_seconds=0)) or ()
            )
        new = [Part(blob=blob, offset=0, length=sum(part.length for part in old))]
        for _ in range(2):
            self.both(
                lambda s: s.swap_parts(
                    upload_id, file.file_id, old=old, new=new, keep_seconds=seconds
                )
            )

    def visible(self) -> list[Fragmented]:
        """Return the files with bytes that somebody can see."""
        return run(self.memory.list_fragmented(parts_min=1, limit=99))

    @rule(data=st.data(), batch_id=st.sampled_from(BATCHES[:2]), wrong=st.integers(-3, 1))
    def repair(self, data: st.DataObject, batch_id: str, wrong: int) -> None:
        """Undo lines of a shard and cut a file, sometimes with expectations that do not hold."""
        shards = run(self.memory.get_shards(batch_id))
        done = [one for one in shards if count_done(one.done)]
        if not done or (all(one.ended for one in shards) and wrong < 0):
            return
        shard = data.draw(st.sampled_from(done))
        cleared, left = self.cleared(data, shard)
        counts = run(self.memory.get_batch("tenant-one", batch_id)).counts
        completed = min(cleared, counts.completed)
        expected = ShardRepair(
            number=shard.plan.number,
            epoch=shard.epoch + max(0, wrong),
            sequence=shard.sequence,
            done=left,
        )
        repair = Repair(
            batch_id=batch_id,
            shards=(expected,),
            files=self.cut(batch_id),
            lost=Tally(completed=completed, failed=cleared - completed),
        )
        for _ in range(2):
            self.both(lambda s: s.repair(repair))

    def cleared(self, data: st.DataObject, shard: Shard) -> tuple[int, bytes]:
        """Return how many lines are undone, and the bits that are left."""
        lines = [index for index in range(shard.plan.lines) if is_done(shard.done, index)]
        count = data.draw(st.integers(1, len(lines)))
        return count, with_done(no_lines_done(shard.plan.lines), lines[count:])

    def cut(self, batch_id: str) -> tuple[FileRepair, ...]:
        """Return the loss of the last part of the output, where there is one."""
        file_id = f"file-{batch_id}-output"
        tenants = [one.tenant for one in self.visible() if one.file_id == file_id]
        if not tenants:
            return ()
        _, parts = run(self.memory.get_parts(tenants[0], file_id))
        return (FileRepair(file_id=file_id, old=parts, new=parts[:-1]),)

    @invariant()
    def what_upkeep_sees_is_equal(self) -> None:
        """Ask both everything that a dry run asks."""
        names = self.names()
        self.both(lambda s: s.list_members())
        self.both(lambda s: s.list_unreferenced(names))
        self.both(lambda s: s.list_ending(limit=3))
        self.both(lambda s: s.list_unused_files(limit=4))
        self.both(lambda s: s.list_old_batches(ended_seconds=5, limit=3))
        self.both(lambda s: s.list_retained(limit=5))
        self.both(lambda s: s.list_fragmented(parts_min=2, limit=3))
        self.both(lambda s: s.list_references(after="plans/batch_1", limit=3))
        for batch_id in BATCHES:
            self.both(lambda s, key=batch_id: s.get_shards(key))  # type: ignore[misc]  # mypy infers no lambda with a default

    @invariant()
    def nothing_points_to_what_was_given_away(self) -> None:
        """Check that no row ever points to a blob that `fence_and_list_deletable` returned."""
        needed = self.both(lambda s: s.list_references(after="", limit=999)) or []
        assert not self.deletable & {reference.blob for reference in needed}
        for reference in needed:
            self.both(lambda s, blob=reference.blob: s.list_batches_of(blob))  # type: ignore[misc]  # as above
