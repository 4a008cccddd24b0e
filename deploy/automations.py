"""Automations of a Prefect server: messages to the operators, and the end of runs whose process has died.

A work queue counts a run as active from PENDING on. One whose worker or process has died would keep its slot
for ever; here it is set to Crashed after `SILENCE`.
"""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ActionTypes, CallWebhook, ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.types import SecretDict

from ojala.flows.survey import INCOMPLETE, PUBLISHED, REFUSED

SILENCE = timedelta(minutes=5)
"""Time without a sign of life after which a run is taken for dead."""

BLOCK = "ojala-operators"
"""Name of the block with the webhook's address."""

TAG = "ojala"
"""Tag of the deployments, by which their runs are known."""

_PREFIX = "ojala: "
_ALIVE = "prefect.flow-run.heartbeat"
_STARTING = {f"prefect.flow-run.{name}" for name in ("Pending", "Submitting", "InfrastructurePending")}
_UNPUBLISHED = {f"prefect.flow-run.{name}" for name in ("Failed", "Crashed", "TimedOut", INCOMPLETE, REFUSED)}
_ENDED = _UNPUBLISHED | {f"prefect.flow-run.{name}" for name in ("Completed", "Cancelled")}
# A sign of life counts as a start: events can be lost while an SQLite database is busy.
_STARTED = {_ALIVE, *_ENDED} | {
    f"prefect.flow-run.{name}" for name in ("Running", "Cancelling", "Scheduled", "AwaitingConcurrencySlot")
}
_OUTCOME = (
    "{% set message = event.resource['prefect.state-message'] or '' %}"
    "{{ flow.name }} {{ flow_run.name }}: {{ event.resource['prefect.state-name'] }}. {{ message }}"
    "{% if 'RUNBOOK' not in message %} See deploy/RUNBOOK.md, Failed.{% endif %}"
)
_RUNBOOK = "See deploy/RUNBOOK.md, %s."


def make_automations(client: SyncPrefectClient, webhook: str = "", release_days: float = 10.0) -> None:
    """Make the automations, or change those that are there.

    Parameters
    ----------
    client : SyncPrefectClient
        Connection to the server.
    webhook : str
        Address that messages are posted to, as JSON with the field ``text``; empty for none.
    release_days : float
        Days without a published release after which a message is sent.
    """
    wanted = _guards()
    if webhook:
        block = Webhook(
            url=webhook, headers=SecretDict({"Content-Type": "application/json"})  # type: ignore[arg-type]  # a plain dict will do
        )  # fmt: skip
        wanted += _notifications(block.save(BLOCK, overwrite=True), release_days)  # type: ignore[arg-type]  # no coroutine here
    present = {one.name: one.id for one in client.read_automations() if one.name.startswith(_PREFIX)}
    for automation in wanted:
        if automation.name in present:
            client.update_automation(present.pop(automation.name), automation)
        else:
            client.create_automation(automation)
    for left in present.values():
        client.delete_automation(left)


def _guards() -> list[AutomationCore]:
    """End runs that were never started, and runs that are silent."""
    cases = {
        "stranded run": (_STARTING, _STARTED, "its worker has not started it"),
        "silent run": ({_ALIVE}, {_ALIVE, *_ENDED}, "its process gives no sign of life"),
    }
    return [
        AutomationCore(
            name=f"{_PREFIX}{name}",
            description=f"Ends a run when {reason} for {SILENCE}",
            trigger=EventTrigger(
                after=after,
                expect=expect,
                match=_runs(),
                match_related=_tagged(),
                for_each={"prefect.resource.id"},
                posture=Posture.Proactive,
                within=SILENCE,
            ),
            actions=[
                ChangeFlowRunState(
                    name=None,
                    state=StateType.CRASHED,
                    force=False,
                    message=f"{reason} for {SILENCE}; start it again: finished work is kept. "
                    + _RUNBOOK % "Stranded",
                )
            ],
        )
        for name, (after, expect, reason) in cases.items()
    ]


def _notifications(block: UUID, release_days: float) -> list[AutomationCore]:
    silence = f"no release was published for {release_days:g} days. {_RUNBOOK % 'No release'}"
    return [
        AutomationCore(
            name=f"{_PREFIX}failed run",
            description="Tells the operators of a run that has failed, is incomplete or refused by a gate",
            trigger=EventTrigger(
                expect=_UNPUBLISHED,
                match=_runs(),
                match_related=_tagged(),
                posture=Posture.Reactive,
                threshold=1,
            ),
            actions=[_call(block, _OUTCOME)],
        ),
        AutomationCore(
            name=f"{_PREFIX}no release",
            description=f"Tells the operators when no release is published for {release_days:g} days",
            trigger=EventTrigger(
                expect={PUBLISHED}, posture=Posture.Proactive, within=timedelta(days=release_days)
            ),
            actions=[_call(block, silence)],
        ),
    ]


def _call(block: UUID, text: str) -> ActionTypes:
    """Action that posts a text, a template of Jinja, as JSON."""
    template = "{% set text %}" + text + '{% endset %}{"text": {{ text | trim | tojson }}}'
    return CallWebhook(block_document_id=block, payload=template)


def _runs() -> ResourceSpecification:
    return ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"})


def _tagged() -> ResourceSpecification:
    return ResourceSpecification({"prefect.resource.id": f"prefect.tag.{TAG}"})
