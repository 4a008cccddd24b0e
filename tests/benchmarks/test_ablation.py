"""Variants are trained once, on the same draws, and end in one table."""

from dataclasses import replace

import pytest

from ojala.models.training.trainer import METRICS_FILE
from tests.benchmarks.ablation import SETTINGS, VARIANTS, ablate, table
from tests.models.ojala.test_training import TwoColours

pytestmark = pytest.mark.integration

SHORT = replace(SETTINGS, steps=2, batch_size=8, held_out=40, bf16=False, compiled=False)
TWO = ("without-chain", "discrepancy")


def test_each_variant_changes_what_its_name_says():
    base, shapes = VARIANTS["base"].shape, {name: variant.shape for name, variant in VARIANTS.items()}
    assert shapes["without-chain"] == replace(base, chain=False)
    assert shapes["without-bands"] == replace(base, band_requests=False)
    assert shapes["without-errors"] == replace(base, reads_errors=False)
    assert shapes["gaussian-redshift"] == replace(base, redshift_pdf=False)
    assert shapes["discrepancy"] == base
    assert [name for name, variant in VARIANTS.items() if variant.discrepancy] == ["discrepancy", "published"]


def test_variants_are_compared_and_a_finished_one_is_not_trained_again(tmp_path):
    sky = TwoColours()
    ablate(sky, sky, tmp_path, SHORT, TWO[:1])
    first = (tmp_path / TWO[0] / METRICS_FILE).stat()
    found = ablate(sky, sky, tmp_path, SHORT, TWO)
    assert (tmp_path / TWO[0] / METRICS_FILE).stat().st_mtime_ns == first.st_mtime_ns
    assert list(found) == list(TWO)
    assert {figures["draws"] for figures in found.values()} == {16}
    chained, free = found["discrepancy"], found["without-chain"]
    assert chained["parameters"] > free["parameters"]
    assert chained["mflop_per_object"] > free["mflop_per_object"] > 20
    galaxies = {figures["held_out"]["z_gal"]["n"] for figures in found.values()}
    assert len(galaxies) == 1, "the same objects check both"
    lines = table(found).splitlines()
    assert len(lines) == 4
    assert len({line.count("|") for line in lines}) == 1
    with pytest.raises(ValueError, match="other settings"):
        ablate(sky, sky, tmp_path, replace(SHORT, steps=3), TWO)
