"""Releases made by a command: tracked by a Prefect server where one is named, else in this process alone."""

from __future__ import annotations

import base64
import os
import tempfile
import tomllib
from ipaddress import ip_address
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from ojala.catalogs_schema.errors import AccessError
from ojala.catalogs_schema.urls import without_credentials
from ojala.flows.terminal import progress_bar
from ojala.pipeline import run as survey_run
from ojala.pipeline.runs.config import RunConfig
from ojala.pipeline.runs.plan import Plan
from ojala.pipeline.runs.record import RunRecord
from ojala.pipeline.runs.resolved import resolve_run

API_URL = "PREFECT_API_URL"

ANSWER_TIMEOUT = 10.0
"""Time that a Prefect server has to answer before the run begins [s]."""


def make_release(
    config: RunConfig, region: str | None = None, *, publish: bool = True, check: bool = False
) -> RunRecord:
    """Run a model over a survey, or over a region of the published release, and publish the result.

    Parameters are those of the flows in `ojala.flows.survey`, one of which it is if `prefect_server` names a
    server.

    Raises
    ------
    AccessError
        If the server does not answer.
    OjalaError
        If the request cannot be met.
    """
    server = prefect_server()
    if not server:
        return survey_run.make_release(
            resolve_run(config), region, publish=publish, check=check, steps=_ShownSteps()
        )
    prepare_prefect(server)
    from ojala.flows import survey

    if region is None:
        return cast(RunRecord, survey.survey(config, publish, check))
    return cast(RunRecord, survey.reprocess(config, region, publish))


def prefect_server() -> str:
    """URL of the API of the server that `PREFECT_API_URL` or Prefect's active profile names; else empty."""
    return _setting(API_URL)


def _setting(name: str) -> str:
    """One of Prefect's settings, from the environment or the active profile; else empty."""
    if name in os.environ:
        return os.environ[name]
    try:
        profiles = tomllib.loads((_prefect_home() / "profiles.toml").read_text())
        active = os.environ.get("PREFECT_PROFILE", profiles.get("active", ""))
        return str(profiles["profiles"][active].get(name, ""))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return ""  # no profile, or a torn one


def _prefect_home() -> Path:
    return Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()


def prepare_prefect(server: str) -> None:
    """Set Prefect's limits of time, and require that a server answers and takes the password, if it has one.

    A server on this machine is asked directly, also where the environment names a proxy.

    Raises
    ------
    AccessError
        If it does not; names the server, the proxy and the remedies.
    """
    host = urlsplit(server).hostname or ""
    if _is_loopback(host):
        for name in ("NO_PROXY", "no_proxy"):
            os.environ[name] = ",".join(filter(None, [os.environ.get(name), host]))
    # Prefect's own limits are five minutes of silence and more.
    os.environ.setdefault("PREFECT_API_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("PREFECT_CLIENT_MAX_RETRIES", "3")
    home = _prefect_home()
    parent = next(folder for folder in (home, *home.parents) if folder.exists())
    if not os.access(parent, os.W_OK):
        os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="ojala-prefect-")
    import httpx

    password, key = _setting("PREFECT_API_AUTH_STRING"), _setting("PREFECT_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    if password:
        headers = {"Authorization": f"Basic {base64.b64encode(password.encode()).decode()}"}
    try:
        answer = httpx.get(f"{server.rstrip('/')}/admin/version", headers=headers, timeout=ANSWER_TIMEOUT)
        if answer.status_code in (401, 403):
            raise AccessError(
                f"Prefect's server at {without_credentials(server)} refuses this call "
                f"({answer.status_code}): PREFECT_API_AUTH_STRING has to be its USER:PASSWORD; nothing was "
                "begun"
            )
        if answer.status_code < 500:
            return
        reason = f"status {answer.status_code}"
    except (httpx.HTTPError, httpx.InvalidURL) as problem:
        reason = str(problem) or type(problem).__name__
    proxy = getproxies().get(urlsplit(server).scheme)
    through = ""
    if proxy and not proxy_bypass(host):
        through = f" through the proxy {without_credentials(proxy)} (NO_PROXY={host} goes without)"
    raise AccessError(
        f"Prefect's server at {without_credentials(server)} does not answer{through}: {reason}. Start it, or "
        f"unset {API_URL} to run without a server; nothing was begun"
    )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


class _ShownSteps(survey_run.Steps):
    """Steps with a progress bar on a terminal."""

    def execute(self, plan: Plan) -> None:
        for _ in progress_bar(survey_run.execute(plan), len(plan.to_do)):
            pass
