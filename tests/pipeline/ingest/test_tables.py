"""Tables of text, units, nulls and headers as people have them."""

import base64
import bz2
import gzip
import lzma
import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.io.votable import from_table, writeto
from astropy.io.votable.tree import Param, Values
from astropy.table import Table
from hats.io.validation import is_valid_catalog
from upath import UPath

from ojala.catalogs_schema.bands import JPAS_BANDS
from ojala.pipeline.ingest.errors import IngestError
from ojala.pipeline.ingest.photometry import ingest_photometry
from tests.pipeline.ingest.archive_files import by_key, contents


def objects_of(folder: UPath, **more) -> Table:
    """Four objects in the contract's columns."""
    columns = {"tile_id": [9611] * 4, "number": [1, 2, 3, 4], "ra": 246.0 + np.arange(4), "dec": [44.0] * 4}
    return Table(columns | {"flux_j0660": np.arange(4) + 0.25, "flux_j0660_err": [0.5] * 4, **more})


def fluxes(out: UPath) -> list[float | None]:
    return by_key(contents(out))["flux_j0660"].to_pylist()


def text(divider: str) -> str:
    table = objects_of(UPath())
    lines = [divider.join(table.colnames), *(divider.join(map(str, row)) for row in table.iterrows())]
    return "\n".join(lines) + "\n"


TEXTS = {
    "semicolons": text(";"),
    "a spreadsheet's divider": "sep=;\n" + text(";"),
    "tabs": text("\t"),
    "bars": text("|"),
    "blanks": text("   "),
    "header behind #": "# made by hand\n# " + text(","),
    "header behind #, blanks": "# " + text("  "),
    "line ends of Windows": text(",").replace("\n", "\r\n"),
}


@pytest.mark.parametrize("form", TEXTS)
def test_tables_of_text_are_read_however_they_are_divided(form, folder):
    (folder / "a.csv").write_text(TEXTS[form])
    ingest_photometry([folder / "a.csv"], folder / "out")
    assert fluxes(folder / "out") == [0.25, 1.25, 2.25, 3.25]


def test_numbers_without_a_header_are_refused_with_the_line_that_was_tried(folder):
    (folder / "a.csv").write_text("# a table of mine, with notes\n" + text(",").partition("\n")[2])
    with pytest.raises(IngestError, match="has no header: its first line without # holds numbers"):
        ingest_photometry([folder / "a.csv"], folder / "out")


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_tables_are_read_and_damage_of_them_is_named(pack, folder):
    table = objects_of(folder)
    table.write(folder / "a.fits")
    for content in (text(",").encode(), (folder / "a.fits").read_bytes()):
        (folder / "packed").write_bytes(pack(content))
        out = folder / f"out{len(content)}"
        ingest_photometry([folder / "packed"], out)
        assert fluxes(out) == [0.25, 1.25, 2.25, 3.25]
        (folder / "packed").write_bytes(pack(content)[:-12])
        with pytest.raises(IngestError, match="packed is damaged"):
            ingest_photometry([folder / "packed"], folder / "again")
    zipped = folder / "a.zip"
    zipped.write_bytes(b"PK\3\4" + bytes(100))
    with pytest.raises(IngestError, match="is a ZIP archive: unpack it first"):
        ingest_photometry([zipped], folder / "again")


@pytest.mark.parametrize(
    "form", ["parquet", "ecsv", "comma.ecsv", "fits", "vot", "voparquet", "units.parquet"]
)
def test_units_are_those_that_the_file_states_in_every_form(form, folder):
    table = objects_of(folder)
    table["flux_j0660"].unit = table["flux_j0660_err"].unit = "mJy"
    table["ra"] = np.radians(table["ra"])
    table["ra"].unit = "rad"
    path = folder / f"a.{form}"
    if form == "comma.ecsv":
        table.write(path.path, format="ascii.ecsv", delimiter=",")
    elif form == "vot":
        table.write(path.path, format="votable")
    elif form == "voparquet":
        metadata = {name: {"unit": str(table[name].unit or "")} for name in table.colnames}
        table.write(path.path, format="parquet.votable", metadata=metadata)
    elif form == "units.parquet":
        arrays = pa.table({name: table[name].data for name in table.colnames})
        fields = [
            f.with_metadata({"units": str(table[f.name].unit)} if table[f.name].unit else {})
            for f in arrays.schema
        ]
        pq.write_table(arrays.cast(pa.schema(fields)), path.path)
    else:
        table.write(path.path)
    ingest_photometry([path], folder / "out")
    assert fluxes(folder / "out") == pytest.approx([250.0, 1250.0, 2250.0, 3250.0])
    assert by_key(contents(folder / "out"))["ra"].to_pylist() == pytest.approx([246.0, 247.0, 248.0, 249.0])


@pytest.mark.parametrize(
    "form", ["fits", "fits, floats", "fits, arrays", "votable, tabledata", "votable, binary2"]
)
def test_nulls_are_those_that_the_file_declares(form, folder):
    table = objects_of(folder)
    if form.startswith("fits"):
        if form == "fits":
            for name in ("flux_j0660", "flux_j0660_err"):
                table[name] = np.array([-32768, 0, 25, 50], "i2")
        elif form == "fits, floats":
            table["flux_j0660"][0] = -77.0
        hdu = fits.BinTableHDU(table)
        if form == "fits":
            for i in (5, 6):
                hdu.header[f"TSCAL{i}"], hdu.header[f"TZERO{i}"], hdu.header[f"TNULL{i}"] = 0.25, 0.5, -32768
        elif form == "fits, floats":
            hdu.header["TNULL5"] = -77
        else:
            hdu = column_oriented(table)
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto((folder / "a").path, output_verify="ignore")
        wanted = {"fits": [None, 0.5, 6.75, 13.0], "fits, floats": [None, 1.25, 2.25, 3.25]}
        wanted["fits, arrays"] = [0.25, 1.25, 2.25, 3.25]
    else:
        table["flux_j0660"] = np.array([-99, 1, 2, 3], "i4")
        votable = from_table(table)
        first = votable.get_first_table()
        first.get_field_by_id("flux_j0660").values.null = -99
        parameter = Param(votable, name="seeing", datatype="int", value=3)
        parameter.values = Values(votable, parameter, null=2)
        first.params.append(parameter)
        writeto(
            votable, (folder / "a").path, tabledata_format="tabledata" if form == "votable" else "binary2"
        )
        wanted = {form: [None, 1.0, 2.0, 3.0]}
    ingest_photometry([folder / "a"], folder / "out")
    assert fluxes(folder / "out") == wanted[form]


def column_oriented(table: Table) -> fits.BinTableHDU:
    """A table as TOPCAT's column-oriented FITS: one row whose cells are the columns."""
    codes = {"i": "K", "f": "D"}
    columns = [
        fits.Column(name, f"{len(table)}{codes[table[name].dtype.kind]}", array=np.array(table[name])[None])
        for name in table.colnames
    ]
    return fits.BinTableHDU.from_columns(columns)


def test_null_elements_of_arrays_in_votables_are_missing(folder):
    nulls = " ".join(["-32768" if i % 2 else "20" for i in range(57)])
    names = ("tile_id", "number", "ra", "dec", "mag_aper_cor_3_0", "mag_err_aper_cor_3_0")
    fields = "".join(
        f'<FIELD name="{name}" datatype="short" arraysize="57"><VALUES null="-32768"/></FIELD>'
        if name.startswith("mag")
        else f'<FIELD name="{name}" datatype="int"/>'
        for name in names
    )
    cells = "".join(f"<TD>{cell}</TD>" for cell in (1, 1, 10, 20, nulls, nulls.replace("20", "1")))
    (folder / "a.vot").write_text(
        f"<VOTABLE><RESOURCE><TABLE>{fields}<DATA><TABLEDATA><TR>{cells}</TR></TABLEDATA></DATA></TABLE>"
        "</RESOURCE></VOTABLE>"
    )
    ingest_photometry([folder / "a.vot"], folder / "out")
    row = contents(folder / "out").to_pylist()[0]
    found = [row[band.flux_column] for band in JPAS_BANDS]
    assert found[1::2] == [None] * 28
    assert found[::2] == pytest.approx([36.31] * 29)


@pytest.mark.parametrize("serialisation", ["BINARY", "BINARY2"])
def test_numbers_of_arraysize_1_are_numbers(serialisation, folder):
    fields = [
        ("tile_id", "int"),
        ("number", "int"),
        ("ra", "double"),
        ("dec", "double"),
        ("flux_j0660", "float"),
    ]
    head = "".join(f'<FIELD name="{name}" datatype="{kind}" arraysize="1"/>' for name, kind in fields)
    mask = b"\0" if serialisation == "BINARY2" else b""
    data = base64.b64encode(mask + struct.pack(">iiddf", 1, 1, 10.5, 20.5, 5.0)).decode()
    (folder / "a.vot").write_text(
        f"<VOTABLE><RESOURCE><TABLE>{head}<DATA><{serialisation}>"
        f'<STREAM encoding="base64">{data}</STREAM></{serialisation}></DATA></TABLE></RESOURCE></VOTABLE>'
    )
    ingest_photometry([folder / "a.vot"], folder / "out")
    assert fluxes(folder / "out") == [5.0]


def test_odd_headers_and_what_follows_the_last_hdu_are_no_damage(folder):
    hdu = fits.BinTableHDU(objects_of(folder))
    hdu.header["TDISP5"], hdu.header["OBSERVER"] = "none", "J. Doe"
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto((folder / "a.fits").path, output_verify="ignore")
    content = (folder / "a.fits").read_bytes().replace(b"J. Doe", b"Jos\xe9 D")
    for number, trailing in enumerate((b"", bytes(2880), b"\0" * 100_000, b"notes")):
        (folder / "a.fits").write_bytes(content + trailing)
        ingest_photometry([folder / "a.fits"], folder / f"out{number}")
        assert fluxes(folder / f"out{number}") == [0.25, 1.25, 2.25, 3.25]
    (folder / "a.fits").write_bytes(content[:-1])
    with pytest.raises(IngestError, match=r"a\.fits is a damaged FITS file: it is cut off"):
        ingest_photometry([folder / "a.fits"], folder / "out")


def test_a_compressed_fits_file_is_unpacked_as_far_as_its_headers_say(folder):
    cards = [
        "SIMPLE  =                    T",
        "BITPIX  =                    8",
        "NAXIS   =                    0",
    ]
    head = b"".join(card.ljust(80).encode() for card in [*cards, "END"]).ljust(2880)
    with gzip.open((folder / "bomb.fits.gz").path, "wb", 1) as file:
        file.write(head)
        for _ in range(200):
            file.write(bytes(1 << 20))
    with pytest.raises(IngestError, match="holds 0 binary tables, expected one"):
        ingest_photometry([folder / "bomb.fits.gz"], folder / "out")
    large = head.replace(b"NAXIS   =                    0", b"NAXIS   =                    1").replace(
        b"END" + b" " * 77, b"NAXIS1  =      900000000000000".ljust(80) + b"END" + b" " * 77
    )
    (folder / "bomb.fits.gz").write_bytes(gzip.compress(large[:2880] + bytes(1 << 20)))
    with pytest.raises(IngestError, match=r"unpacks to more than the .* bytes that are left for it"):
        ingest_photometry([folder / "bomb.fits.gz"], folder / "out")
    assert [path.name for path in folder.iterdir()] == ["bomb.fits.gz"]


def test_columns_can_be_left_out_and_read_under_other_names(folder):
    table = objects_of(folder, mag_J0660=[20.0] * 4, my_flux=[7.0] * 4)
    table.rename_column("ra", "RA_J2000")
    table.write(folder / "a.fits")
    with pytest.raises(IngestError, match=r"column mag_J0660: names no known filter .* --ignore mag_J0660"):
        ingest_photometry([folder / "a.fits"], folder / "out", columns={"ra": "ra_j2000"})
    ingest_photometry([folder / "a.fits"], folder / "out", ignore=["MAG_j0660"], columns={"ra": "ra_j2000"})
    assert fluxes(folder / "out") == [0.25, 1.25, 2.25, 3.25]
    with pytest.raises(IngestError, match="column my_flux: is to be read as flux_j0660, but"):
        ingest_photometry([folder / "a.fits"], folder / "other", columns={"flux_j0660": "my_flux"})
    with pytest.raises(IngestError, match="no file has a column mag_j0661"):
        ingest_photometry(
            [folder / "a.fits"],
            folder / "other",
            ignore=["mag_j0660", "mag_j0661"],
            columns={"ra": "ra_j2000"},
        )


def test_crowds_are_divided_into_fine_partitions(folder):
    table = objects_of(folder)
    table["ra"] = 246.0 + 3.0 * np.arange(4) / 3600.0
    table.write(folder / "a.fits")
    summary = ingest_photometry([folder / "a.fits"], folder / "out", tile_rows=1)
    assert list(summary.partitions.values()) == [1, 1, 1, 1]
    assert min(partition.order for partition in summary.partitions) > 10
    assert fluxes(folder / "out") == [0.25, 1.25, 2.25, 3.25]
    assert is_valid_catalog(folder / "out", strict=True)
