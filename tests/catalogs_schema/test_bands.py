import itertools

from ojala.catalogs_schema.bands import BANDS, BY_NAME, JPAS_BANDS, MODEL_BANDS, NARROW_BANDS, REFERENCE_BAND


def test_the_archive_has_57_bands_of_which_54_are_narrow():
    assert len(JPAS_BANDS) == 57
    assert len(NARROW_BANDS) == 54
    assert [JPAS_BANDS[0].name, JPAS_BANDS[-2].name, JPAS_BANDS[-1].name] == ["uJAVA", "J1007", "iSDSS"]


def test_narrow_bands_run_every_100_angstrom_from_3800_to_9100():
    pivots = [band.pivot for band in NARROW_BANDS]
    assert pivots == sorted(pivots)
    steps = [b - a for a, b in itertools.pairwise(pivots)]
    assert all(70 < step < 130 for step in steps)


def test_names_of_narrow_bands_tell_their_wavelength_in_nanometres():
    assert all(abs(int(band.name[1:]) * 10 - band.pivot) < 40 for band in NARROW_BANDS)


def test_extinction_falls_with_wavelength():
    ordered = sorted(JPAS_BANDS, key=lambda band: band.pivot)
    assert all(a.k_x > b.k_x for a, b in itertools.pairwise(ordered) if a.is_narrow and b.is_narrow)
    assert BY_NAME["W1"].k_x < BY_NAME["ls_z"].k_x


def test_models_read_all_bands_but_w3_and_w4():
    assert {band.name for band in BANDS} - {band.name for band in MODEL_BANDS} == {"W3", "W4"}
    assert REFERENCE_BAND in {band.name for band in MODEL_BANDS}
