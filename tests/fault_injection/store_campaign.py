"""A campaign on an object store, whose requests fail in the ways of real ones."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import rule
from upath import UPath

from tests.fault_injection.campaign import Campaign, Injection, kept_going
from tests.fault_injection.unreliable_store import FAULTS, UnreliableStore


class StoreCampaign(Campaign):
    """Commands on a collection in an object store that does not always do as it should."""

    store: UnreliableStore

    def __init__(self) -> None:
        super().__init__()
        self.out = UPath(f"s3://survey/{self.folder.name}/out", use_listings_cache=False)

    @rule(
        command=st.sampled_from(("run", "run", "reprocess", "publish", "rollback", "export")),
        choice=st.integers(0, 99),
        fault=st.sampled_from((*FAULTS, "")),
        moment=st.integers(0, 99),
        again=st.booleans(),
    )
    @kept_going
    def act(self, command: str, choice: int, fault: str, moment: int, again: bool) -> None:
        """Give a command while a request to the store fails."""
        getattr(self, command)(choice, Injection(fault, moment, again))

    def carry_out(
        self, command: str, words: list[object], fault: Injection, environment: dict[str, str]
    ) -> tuple[int, bool, str]:
        """One command to its end, the fault at one of its requests."""
        here = self.arena
        self.count += 1
        here.tally.commands += 1
        log = self.logs / f"{self.count}.log"
        usual = f"requests of {command}"
        plan = self.store.arm(fault.kind, 1 + fault.moment * here.usual.get(usual, 100) // 100)
        environment = environment | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.store.server_port}"}
        pid = here.server.give([command, *words], log, [self.folder], 0, "", **environment)
        code = self.wait(here.server, pid, log)
        self.store.arm("", 0)
        if not fault.kind and code == 0:
            here.usual[usual] = plan.seen
        assert isinstance(code, int)
        return code, plan.done > 0, log.read_text()

    def teardown(self) -> None:
        """Also remove the collection."""
        super().teardown()
        if self.out.parent.exists():
            self.out.fs.rm(self.out.parent.path, recursive=True)
