"""Registry of commands: modules of this package, with their panels and the first lines of the help."""

from __future__ import annotations

from typing import NamedTuple

from ojala.flows.cli.errors import Panel


class Entry(NamedTuple):
    """A command before it is imported."""

    module: str
    panel: Panel
    help: str


def _entries(module: str, panel: Panel, **commands: str) -> dict[str, Entry]:
    return {name.replace("_", "-"): Entry(module, panel, text) for name, text in commands.items()}


COMMANDS: dict[str, Entry] = {
    **_entries(
        "fetch",
        Panel.DATA,
        fetch="Fetch a survey's tables from its archive.",
    ),
    **_entries(
        "ingest",
        Panel.DATA,
        spectra="Make a spectra catalogue (HATS) from the surveys' files or the Multimodal Universe.",
        cutouts="Make a catalogue of image cut-outs (HATS) from images of the Legacy Survey or "
        "the Multimodal Universe.",
        ingest="Make a photometry catalogue (HATS) from the survey's files, or add, replace and "
        "withdraw tiles.",
    ),
    **_entries(
        "run",
        Panel.RUN,
        plan="Show what a run would do, and why; writes nothing.",
        run="Run a model over a catalogue of photometry or spectra and publish the value-added catalogue.",
        reprocess="Reprocess a region of the published release; without `--yes` only show the plan "
        "and its cost.",
    ),
    **_entries(
        "validate",
        Panel.RUN,
        verify="Check contract, row counts and checksums; exits with 1 and names the damaged files.",
        validate="Measure the accuracy of a catalogue against known classes, redshifts and properties.",
    ),
    **_entries(
        "releases",
        Panel.RELEASES,
        releases="List the runs of a collection with their states.",
        publish="Publish a run if its quality gates allow it; readers that have the previous "
        "release open keep it.",
        rollback="Publish the previous release again.",
    ),
    **_entries(
        "diff",
        Panel.RELEASES,
        diff="Show rows added, withdrawn, and of another class or redshift, by tile and by cause.",
    ),
    **_entries(
        "retention",
        Panel.RELEASES,
        du="Show the disk usage of each run or release: bytes of its own, and bytes that it shares by links.",
        prune="Remove runs that are neither published, nor among the newest, nor needed by others.",
    ),
    **_entries(
        "explore",
        Panel.RELEASES,
        explore="Write a site that shows a release: sky, table with conditions, plot, and a page "
        "for each object.",
        similar="Find the objects of a release whose embeddings are nearest to that of one object.",
    ),
    **_entries(
        "export",
        Panel.RELEASES,
        export="Write a release in formats of other tools.",
    ),
    **_entries(
        "training",
        Panel.MODELS,
        library="Make the library of spectra for mock photometry (extra `training`: bagpipes).",
        synthesise="Derive J-PAS photometry with survey noise from observed spectra.",
        train="Train a model on mock objects drawn on the fly; writes weights. The same "
        "command resumes a training.",
        adapt="Adapt weights to a survey's photometry by objects of known class and redshift, "
        "and calibrate them.",
        calibrate="Calibrate probabilities, errors and the novelty score.",
        finetune="Train a head on the embedding of the frozen network, for a property of your own.",
    ),
    **_entries(
        "tools",
        Panel.TOOLS,
        demo="Ingest, run and verify the bundled patch of sky.",
        bench="Measure the throughput of this machine, of the network and of a run; takes three minutes.",
    ),
    **_entries(
        "atlas",
        Panel.TOOLS,
        atlas="Make an atlas of a run's embeddings: clusters, maps and secure redshifts of the survey.",
        atlas_page="Write an interactive page of a run in its atlas. Needs the extra `atlas`.",
    ),
    **_entries(
        "published",
        Panel.TOOLS,
        convert_weights="Write published weights and their configuration as one safetensors file, which "
        "needs no pickle.",
        check_published="Recompute rows of the published catalogue and compare; exits with 1 where they "
        "do not agree.",
    ),
}
"""Commands in the order of the help. A command is imported when it is called."""
