"""Commands for the atlas of embeddings: atlas makes one, atlas-page shows a run in it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from upath import UPath

from ojala.catalogs_schema.errors import InputError
from ojala.flows.cli.errors import Commands, Panel
from ojala.flows.cli.options import AsJson
from ojala.flows.cli.output import echo

app = Commands(Panel.TOOLS)

Run = Annotated[str, typer.Argument(help="Folder of a finished run of AVIS: OUT/runs/RUN.")]


@app.command()
def atlas(
    run: Run,
    out: Annotated[Path, typer.Option(help="File of the atlas (safetensors).")],
    sample: Annotated[int, typer.Option(help="Most objects in the atlas.", min=100, max=20_000)] = 20_000,
    seed: Annotated[int, typer.Option(help="Seed of the sample and of the maps.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Make an atlas of a run's embeddings: clusters, maps and secure redshifts of the survey.

    `ojala run --model avis --atlas FILE` then assigns every row to it. Needs the extra `atlas`.
    """
    import numpy as np

    from ojala.catalogs_schema.avis import UNCLUSTERED
    from ojala.models.avis.atlas import read_atlas, write_atlas
    from ojala.models.avis.atlas_fit import fit_atlas
    from ojala.pipeline.report.atlas.sample import draw_sample

    drawn = draw_sample(UPath(run), sample, seed)
    about: dict[str, object] = {"run": drawn.run_id}
    try:
        made = fit_atlas(
            drawn.embedding,
            drawn.z,
            weights_sha256=drawn.weights_sha256,
            sides=drawn.sides,
            seed=seed,
            about=about,
        )
    except ModuleNotFoundError as missing:
        raise InputError(
            f"{missing.name} is not installed: pip install '.[atlas]' in a checkout of ojala"
        ) from missing
    write_atlas(out, made)
    written = read_atlas(out)
    counts = Counter(written.cluster.tolist())
    unclustered = counts.pop(UNCLUSTERED, 0) / len(written)
    with_z = int(np.isfinite(written.z).sum())
    facts = {
        "out": str(out),
        "objects": len(written),
        "sides": written.sides,
        "with_redshift": with_z,
        "clusters": len(counts),
        "unclustered": round(unclustered, 4),
        "sha256": written.sha256,
        "weights_sha256": written.weights_sha256,
    }
    echo(
        f"an atlas of {len(written):,} objects (seen: {written.sides}), {with_z:,} of them with a redshift, "
        f"in {len(counts):,} clusters ({unclustered:.1%} in none): {out}",
        facts,
        as_json,
    )


@app.command(name="atlas-page")
def atlas_page(
    run: Run,
    out: Annotated[str, typer.Option(help="Folder for the page and its files.")],
    as_json: AsJson = False,
) -> None:
    """Write an interactive page of a run in its atlas. Needs the extra `atlas`."""
    from ojala.pipeline.report.atlas.page import write_atlas_page
    from ojala.pipeline.report.atlas.sample import finished_run
    from ojala.pipeline.storage.hats import read_leaves

    record = finished_run(UPath(run))
    cutouts = UPath(record.auxiliary) if record.auxiliary else None
    done = list(read_leaves(UPath(run) / record.main))
    facts = write_atlas_page(UPath(out), record.run_id, UPath(run), UPath(record.source), cutouts, done)
    if not facts["page"]:
        raise InputError(facts["why"])
    echo(f"{facts['rows']:,} objects: {out}/{facts['page']}", facts, as_json)
