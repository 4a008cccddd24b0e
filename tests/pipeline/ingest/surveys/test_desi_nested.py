"""LSDB's catalogue of DESI: rows equal to those of the coadd."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from upath import UPath

from ojala.pipeline.ingest.surveys.desi import ARMS, read_desi
from ojala.pipeline.ingest.surveys.desi_nested import read_desi_nested
from ojala.pipeline.ingest.surveys.detect import detect_kind
from ojala.pipeline.ingest.surveys.label_tables import LabelIndex, read_desi_tables
from tests.helpers import mmu_files
from tests.helpers.spectra_files import make_desi, make_redrock


def test_nested_arms_are_those_of_the_coadd(tmp_path):
    make_desi(tmp_path / "coadd.fits", targets=(7, 8, -9), ra=(30.0, 31.0, 32.0))
    make_redrock(tmp_path / "redrock.fits")
    rows = []
    with fits.open(tmp_path / "coadd.fits") as hdus:
        for k, target in enumerate(hdus["FIBERMAP"].data["TARGETID"].tolist()):
            row = {"TARGETID": target, "TARGET_RA": 30.0 + k, "TARGET_DEC": -5.0, "Z": 1.0, "ZERR": 1e-4}
            for arm in ARMS:
                row[f"spectra_{arm.lower()}"] = {
                    "wavelength": hdus[f"{arm}_WAVELENGTH"].data,
                    **{name: hdus[f"{arm}_{name.upper()}"].data[k] for name in ("flux", "ivar", "mask")},
                }
            rows.append(row)
    pq.write_table(mmu_files.struct_table(rows), tmp_path / "leaf.parquet")
    path = UPath(tmp_path / "leaf.parquet")
    assert detect_kind(path).name == "LSDB's catalogue of DESI"
    labels = LabelIndex(read_desi_tables(UPath(tmp_path / "redrock.fits")))
    coadd = list(read_desi(UPath(tmp_path / "coadd.fits"), labels))
    for native, nested in zip(coadd, read_desi_nested(path, labels), strict=True):
        for name in ("wavelength", "flux", "ivar", "mask"):
            np.testing.assert_array_equal(getattr(nested, name), getattr(native, name))
        names = ("target", "ra", "dec", "object_class", "subclass", "trusted", "survey")
        assert [getattr(nested, n) for n in names] == [getattr(native, n) for n in names]
    alone = list(read_desi_nested(path))
    assert [(s.z, s.trusted) for s in alone[:2]] == [(1.0, False)] * 2
    assert np.isnan(alone[2].z), "a fibre without a target has no redshift"
    assert coadd[0].z == pytest.approx(0.1)
