"""The processors that are alive, in the memory ledger."""

from typing_extensions import override

from tidegate.stores.memory.tables import MemoryTables


class MemberVerbs(MemoryTables):
    """The processors that are alive."""

    @override
    async def renew_membership(self, owner: str, *, lease_seconds: float) -> None:
        now = self._clock.now()
        # Expired members are removed here, so that a clock that is set back revives none.
        self._members = {name: until for name, until in self._members.items() if now < until}
        self._members[owner] = now + lease_seconds

    @override
    async def leave(self, owner: str) -> None:
        self._members.pop(owner, None)

    @override
    async def list_members(self) -> tuple[str, ...]:
        now = self._clock.now()
        return tuple(sorted(owner for owner, until in self._members.items() if now < until))
