"""The campaign of faults: a short form of it, and for `make soak` one that goes on for hours."""

import secrets
import time
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.fault_injection.arena import Tally, arena, make_survey
from tests.fault_injection.campaign import Campaign
from tests.fault_injection.store_campaign import StoreCampaign
from tests.fault_injection.unreliable_store import unreliable_store

pytestmark = [pytest.mark.fault, pytest.mark.timeout(86400)]

SHORT = 20260101
"""Seed of the short form."""

LIMITS = {
    "deadline": None,
    "database": None,
    "print_blob": True,
    "phases": [Phase.explicit, Phase.generate],
    "suppress_health_check": list(HealthCheck),
}


def carry_on(kind: type[Campaign], number: int, examples: int, steps: int) -> None:
    """Let some machines run whose choices follow from a number."""
    machine = seed(number)(kind)
    chosen = settings(max_examples=examples, stateful_step_count=steps, **LIMITS)
    run_state_machine_as_test(machine, settings=chosen)


def summary(tally: Tally, where: str, first: int, last: int) -> str:
    """One sentence on a campaign, for the page of results."""
    commands = Counter(command for _, command in tally.faults.elements())
    shares = ", ".join(f"{count:,} during {command}" for command, count in commands.most_common())
    return (
        f"Campaign{where} of seeds {first} to {last}: {tally.commands:,} commands in random order on "
        f"{last - first + 1:,} random surveys, {tally.faults.total():,} faults of {len(tally.by_kind())} "
        f"kinds: {shares}."
    )


@pytest.fixture
def conduct(request, tmp_path, record_property, ledger):
    """Conduct a campaign on machines of a kind: all surveys that there is time for, or one."""

    def conduct(kind: type[Campaign], where: str, **places: object) -> None:
        long = request.config.getoption("--soak")
        given = request.config.getoption("--campaign-seed")
        first = given if given is not None else secrets.randbelow(2**31) if long else SHORT
        end = time.monotonic() + request.config.getoption("--campaign-hours") * 3600
        print(f"campaign{where}: seed {first}")
        with arena(tmp_path, long=long) as place:
            place.deadline = end if long else float("inf")
            number = first
            while number == first or (long and time.monotonic() < place.deadline):
                place.surveys = [make_survey(place, number)]
                machine = type(kind.__name__, (kind,), {"arena": place, **places})
                carry_on(machine, number, *((4, 24) if long else (2, 8)))
                number += 1
                print(f"campaign{where}: {place.tally.faults.total()} faults", flush=True)
        tally = place.tally
        record_property("campaign", summary(tally, where, first, number - 1))
        for fault, injected in sorted(tally.by_kind().items()):
            line = ledger(f"campaign{where}: {fault}")
            line.injected = line.survived = injected
            line.recovery = tally.recovery.get(fault, [])
        assert place.failures == []

    return conduct


def test_campaign(conduct):
    conduct(Campaign, "")


def test_campaign_on_an_object_store(conduct, port, request):
    if not request.config.getoption("--soak"):
        pytest.skip("single faults of an object store are in test_object_storage.py; see make soak")
    with unreliable_store(port) as store:
        conduct(StoreCampaign, " on an object store", store=store)
