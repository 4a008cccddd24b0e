"""Files as the Multimodal Universe and LSDB keep them, small.

``python -m tests.helpers.mmu_files IN OUT`` converts the developers' collection of real spectra, a Parquet
file with the columns id, class, subclass, z, ra, dec, wavelength, flux, ivar and observed-frame ew_Ha ..., to
the form of SDSS and LAMOST in the Multimodal Universe, one file each in the folder OUT.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.io import fits

SPECTRUM = ("flux", "ivar", "lsf_sigma", "lambda", "mask")
_WIDTHS = {"Hb": "ew_hbeta", "OIII5007": "ew_oiii_5007", "Ha": "ew_halpha", "NII6583": "ew_nii_6584"}


def specobjid(plate: int, night: int, fibre: int) -> int:
    """The SPECOBJID of SDSS."""
    return (plate << 50) | (fibre << 38) | ((night - 50_000) << 24)


def struct_table(rows: Sequence[Mapping[str, object]]) -> pa.Table:
    """A table of rows, whose mappings become structs of lists."""
    return pa.Table.from_pylist([{name: _native(value) for name, value in row.items()} for row in rows])


def _native(value: object) -> object:
    """The value, with arrays in the byte order of the machine."""
    if isinstance(value, Mapping):
        return {name: _native(member) for name, member in value.items()}
    return value.astype(value.dtype.newbyteorder("=")) if isinstance(value, np.ndarray) else value


def write_hats(folder: Path, rows: Sequence[Mapping[str, object]], name: str = "mmu_sdss_sdss") -> Path:
    """A HATS collection with one leaf, a margin with the same rows, and metadata."""
    table = struct_table(rows)
    for catalogue, product in ((name, "object"), (f"{name}_10arcs", "margin")):
        leaf = folder / catalogue / "dataset" / "Norder=0" / "Dir=0" / "Npix=4.parquet"
        leaf.parent.mkdir(parents=True)
        pq.write_table(table, leaf)
        pq.write_table(table.slice(0, 0), leaf.parents[2] / "_common_metadata")
        pq.write_table(table.slice(0, 1), folder / catalogue / "data_thumbnail.parquet")
        (folder / catalogue / "hats.properties").write_text(f"dataproduct_type={product}\nhats_nrows=1\n")
        (folder / catalogue / "partition_info.csv").write_text("Norder,Npix\n0,4\n")
    (folder / "collection.properties").write_text(f"hats_primary_table_url={name}\n")
    return folder


def write_hdf5(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    """The HDF5 form: data sets ``spectrum_flux`` ..., filled up to equal lengths."""
    path.parent.mkdir(parents=True, exist_ok=True)
    longest = max(len(row["spectrum"]["flux"]) for row in rows)
    with h5py.File(path, "w") as file:
        for name in rows[0]["spectrum"]:
            fill = {"lambda": -1.0, "mask": True}.get(name, 0.0)
            arrays = [np.asarray(row["spectrum"][name]) for row in rows]
            padded = [np.pad(a, (0, longest - len(a)), constant_values=fill) for a in arrays]
            file[f"spectrum_{name}"] = np.stack(padded)
        for name in set(rows[0]) - {"spectrum"}:
            values = [row[name] for row in rows]
            texts = isinstance(values[0], (str, bytes))
            file[name] = np.array(
                [v.encode() if isinstance(v, str) else v for v in values], "S32" if texts else None
            )
    return path


def sdss_row(path: Path, *, catalogue: bool) -> dict[str, object]:
    """A spectrum of SDSS as the Multimodal Universe makes it from the survey's file.

    `catalogue` : whether all columns of SpecObj are there, as in HDF5, or the chosen ones, as in HATS.
    """
    plate, night, fibre = (int(word) for word in path.name.split(".")[0].split("-")[1:])
    with fits.open(path) as hdus:
        coadd, best = hdus[1].data, hdus[2].data
        flux, ivar, loglam = (np.asarray(coadd[name]) for name in ("flux", "ivar", "loglam"))
        mask = (np.asarray(coadd["and_mask"]) != 0) | (ivar <= 1e-6)
        key = f"   {specobjid(plate, night, fibre)}"
        row = {
            "object_id": key.encode() if catalogue else f"b'{key}'",
            "ra": float(best["PLUG_RA"][0]),
            "dec": float(best["PLUG_DEC"][0]),
            "VDISP": np.float32(150.0),
            "VDISP_ERR": np.float32(10.0),
            "Z": np.float32(best["Z"][0]),
            "Z_ERR": np.float32(best["Z_ERR"][0]),
            "spectrum": {
                "flux": flux.astype("f4"),
                "ivar": ivar.astype("f4"),
                "lsf_sigma": np.ones(len(flux), "f4"),
                "lambda": (10.0 ** np.asarray(loglam, np.float64)).astype("f4"),
                "mask": mask,
            },
        }
        if not catalogue:
            return row | {"ZWARNING": bool(best["ZWARNING"][0])}
        words = {name: str(best[name][0]) for name in ("CLASS", "SUBCLASS")}
        return row | words | {"ZWARNING": int(best["ZWARNING"][0])}


def plain_row(
    survey: str, name: str, wavelength: np.ndarray, flux: np.ndarray, ivar: np.ndarray, **more: object
):
    """A row of SDSS or, by its columns, of another survey, with good pixels alone."""
    signs = {"SDSS": {"VDISP": 0.0, "ZWARNING": False}, "LAMOST": {"feh": np.nan, "snrg": 1.0, "rv": np.nan}}
    arrays = {"flux": flux, "ivar": ivar, "lambda": wavelength, "mask": np.zeros(len(flux), bool)}
    lists = {key: np.asarray(a, bool if key == "mask" else "f4") for key, a in arrays.items()}
    return {"object_id": name, "spectrum": lists, **signs[survey], **more}


def make_catalogue(path: Path, n: int, seed: int = 1) -> None:
    """Bright galaxies, stars and quasars all over the sky in the form of SDSS, each galaxy visited twice."""
    rng = np.random.default_rng(seed)
    wavelength = np.arange(3700.0, 9600.0, 2.0)
    ra, dec = rng.uniform(0, 360, n), rng.uniform(-80, 80, n)
    rows = []
    for k in range(n):
        kind = ("GALAXY", "STAR", "QSO")[k % 3]
        for visit in range(2 if kind == "GALAXY" else 1):
            flux = 10.0 * (wavelength / 6000.0) ** rng.uniform(-1, 1)
            rows.append(
                plain_row(
                    "SDSS",
                    f"survey/{k}-{visit}",
                    wavelength,
                    flux,
                    (40.0 / flux) ** 2,
                    CLASS=kind,
                    Z=0.0 if kind == "STAR" else 0.1 + 0.01 * k,
                    ra=ra[k] + visit * 0.5 / 3600.0,
                    dec=dec[k],
                    ew_halpha=11.0,
                    ew_halpha_err=0.1,
                )
            )
    pq.write_table(struct_table(rows), path)


def convert_collection(source: Path, out: Path) -> list[Path]:
    """Convert the developers' collection of real spectra; returns the files."""
    rows: dict[str, list[dict[str, object]]] = {"SDSS": [], "LAMOST": []}
    for row in pq.read_table(source).to_pylist():
        z = row["z"]
        more = {name: row[name] for name in ("ra", "dec")}
        more |= {"CLASS": row["class"], "SUBCLASS": row["subclass"] or "", "Z": z}
        for line, name in _WIDTHS.items():
            for end in ("", "_err"):
                width = row.get(f"ew_{line}{end}")
                more[f"{name}{end}"] = np.nan if width is None else width / (1.0 + z)
        survey = "LAMOST" if row["id"].startswith("lamost") else "SDSS"
        if survey == "LAMOST":
            more |= {"rv": 299792.458 * z}
        arrays = (np.asarray(row[name]) for name in ("wavelength", "flux", "ivar"))
        rows[survey].append(plain_row(survey, row["id"], *arrays, **more))
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for survey, found in rows.items():
        if found:
            paths.append(out / f"{survey.lower()}.parquet")
            pq.write_table(struct_table(found), paths[-1])
    return paths


if __name__ == "__main__":
    print(*convert_collection(Path(sys.argv[1]), Path(sys.argv[2])), sep="\n")
