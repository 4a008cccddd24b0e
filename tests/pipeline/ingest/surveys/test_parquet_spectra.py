"""Collections of spectra in Parquet: units that the file states, and spectra without arrays."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from upath import UPath

from ojala.pipeline.ingest.errors import SourceError
from ojala.pipeline.ingest.surveys.parquet_spectra import read_parquet_spectra

ROW = {"id": "a", "class": "GALAXY", "subclass": "", "z": 0.1, "ra": 10.0, "dec": 2.0}
ARRAYS = {"wavelength": [500.0, 501.0, 502.0], "flux": [1.0, 2.0, 3.0], "ivar": [1.0, 1.0, 1.0]}


@pytest.mark.parametrize("name", ["wavelength", "flux", "ivar"])
def test_a_spectrum_without_arrays_is_named_by_row_and_column(tmp_path, name):
    rows = [ROW | ARRAYS, ROW | ARRAYS | {name: None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "c.parquet")
    with pytest.raises(SourceError, match=f"row 2, column {name}: is missing"):
        list(read_parquet_spectra(UPath(tmp_path / "c.parquet")))


def write(path, **units):
    table = Table({name: [cell] for name, cell in (ROW | ARRAYS).items()})
    for name, unit in units.items():
        table[name].unit = unit
    table.write(path)
    return UPath(path)


def test_units_that_the_file_states_are_converted_or_refused_by_name(tmp_path):
    units = {"wavelength": "nm", "flux": "erg / (s cm2 Angstrom)", "ra": "hourangle"}
    path = write(tmp_path / "c.parquet", **units)
    (found,) = read_parquet_spectra(path)
    assert found.wavelength.tolist() == pytest.approx([5000.0, 5010.0, 5020.0])
    assert found.flux.tolist() == pytest.approx([1e17, 2e17, 3e17])
    assert (found.ra, found.dec) == (150.0, 2.0)
    with pytest.raises(SourceError, match="column wavelength: has the unit 'Hz', expected Angstrom"):
        list(read_parquet_spectra(write(tmp_path / "d.parquet", wavelength="Hz")))
