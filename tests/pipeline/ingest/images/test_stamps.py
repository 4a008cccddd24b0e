"""Images of the Multimodal Universe: cut around the object, rebinned where their pixels differ."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from ojala.catalogs_schema.cutouts import NANOMAGGY, SIZE, CutoutFlag
from ojala.pipeline.ingest.cutouts import ingest_cutouts
from ojala.pipeline.ingest.errors import IngestError
from ojala.pipeline.ingest.images.stamps import rebinned
from tests.helpers import mmu_files

N = 152
POSITIONS = [(150.0 + 0.01 * k, 2.0) for k in range(6)]  # 36 arcsec apart: images overlap


def image(k, bands=("des-g", "des-i", "des-r", "des-z"), size=N, scale=0.262, ivar=True):
    """Each pixel of each band with a flux of its own [nanomaggy]; the first column of g without a weight."""
    rows, columns = np.indices((size, size), np.float32)
    flux = np.stack([1e6 * k + 1e5 * b + columns + size * rows for b in range(len(bands))])
    weight = np.full(flux.shape, 4.0, np.float32)
    weight[0, :, size // 2] = 0.0
    members = {"band": list(bands), "flux": flux, "psf_fwhm": [1.3, 1.25, 1.2, 1.1][: len(bands)]}
    members |= {"scale": [scale] * len(bands), "mask": np.ones(flux.shape, bool)}
    return members | ({"ivar": weight} if ivar else {})


def write_parquet(path, images):
    rows = [
        {"object_id": f"1497m020-{k}", "ra": ra, "dec": dec, "image": {**one, **_lists(one)}}
        for k, ((ra, dec), one) in enumerate(zip(POSITIONS, images, strict=False))
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def _lists(one):
    return {name: value.tolist() for name, value in one.items() if isinstance(value, np.ndarray)}


def write_hdf5(path, images):
    import h5py

    with h5py.File(path, "w") as file:
        places = POSITIONS[: len(images)]
        file["object_id"] = np.array([f"1497m020-{k}".encode() for k in range(len(images))])
        file["ra"], file["dec"] = np.transpose(places)
        for name in images[0]:
            stored = {"flux": "array"}.get(name, name)
            values = [np.asarray(one[name]) for one in images]
            file[f"image_{stored}"] = np.stack(values).astype("S8" if name == "band" else values[0].dtype)
    return path


def write_objects(path, count=6):
    lines = ["id,ra,dec", *(f"{k + 1},{ra:.8f},{dec:.8f}" for k, (ra, dec) in enumerate(POSITIONS[:count]))]
    path.write_text("\n".join([*lines, f"{count + 1},200.0,2.0"]) + "\n")
    return path


def cut(source, objects, out):
    summary = ingest_cutouts([UPath(source)], UPath(objects), UPath(out))
    table = pa.concat_tables(pq.read_table(path) for path in sorted(out.rglob("Npix=*.parquet")))
    return summary, table.sort_by("object_id")


def shaped(table, name, *shape):
    return np.stack(table[name].combine_chunks().flatten().to_numpy().reshape(-1, *shape))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Cut-outs from the Parquet and from the HDF5 form of the same images."""
    folder = tmp_path_factory.mktemp("stamps")
    images = [image(k) for k in range(len(POSITIONS))]
    objects = write_objects(folder / "objects.csv")
    sources = write_parquet(folder / "a.parquet", images), write_hdf5(folder / "a.hdf5", images)
    return [cut(source, objects, folder / f"out{k}") for k, source in enumerate(sources)]


def test_every_object_is_cut_from_the_image_around_it(made):
    summary, table = made[0]
    assert (summary.objects, summary.without_image, summary.fields) == (7, 1, 6)
    flux = shaped(table, "image", 3, SIZE, SIZE)
    first = (N - SIZE) // 2
    rows, columns = np.indices((SIZE, SIZE)) + first
    for k in range(6):
        for plane, layer in enumerate((0, 2, 3)):  # without i
            expected = NANOMAGGY * (1e6 * k + 1e5 * layer + columns + N * rows)
            expected[:, N // 2 - first] *= 0.0 if layer == 0 else 1.0
            np.testing.assert_allclose(flux[k, plane], expected, rtol=1e-6)
    assert table["bands"].to_pylist() == ["grz"] * 6 + ["NONE"]
    assert table["psf_fwhm_r"].to_pylist()[:6] == pytest.approx([1.2] * 6)
    flags = table["flags"].to_numpy()[:6]
    assert (flags == int(CutoutFlag.HOLES | CutoutFlag.CENTRE_LOST)).all()


def test_parquet_and_hdf5_give_equal_cut_outs(made):
    (_, first), (_, second) = made
    assert first.equals(second)


def test_images_of_other_pixels_are_rebinned_and_errors_estimated(tmp_path):
    images = [image(k, ("des-r",), size=160, scale=0.168, ivar=False) for k in range(2)]
    objects = write_objects(tmp_path / "objects.csv", 2)
    summary, table = cut(write_parquet(tmp_path / "a.parquet", images), objects, tmp_path / "out")
    assert summary.bands == {"NONE": 1, "r": 2}
    assert table["pixel_scale"].to_pylist()[:2] == pytest.approx([0.262, 0.262])
    assert (table["flags"].to_numpy()[:2] & int(CutoutFlag.IVAR_ESTIMATED)).all()


def test_rebinning_conserves_flux_and_propagates_its_variance():
    rng = np.random.default_rng(1)
    flux = np.zeros((1, 160, 160), np.float32)
    flux[0, 60:100, 60:100] = rng.uniform(1.0, 2.0, (40, 40))
    ivar = np.full(flux.shape, 4.0, np.float32)
    ivar[0, 10, 10] = 0.0
    new, weight = rebinned(flux, ivar, 0.168)
    assert new.shape == (1, 102, 102)
    assert new.sum() == pytest.approx(flux.sum(), rel=1e-5)
    assert 0 < (weight == 0.0).sum() <= 4, "pixels that cover one without a weight"
    noise = rebinned(rng.normal(0.0, 0.5, (1, 160, 160)).astype(np.float32), None, 0.168)[0]
    assert noise.std() == pytest.approx(np.median(weight) ** -0.5, rel=0.05)
    same, _ = rebinned(flux, None, 0.2625)
    assert same is flux


def test_images_of_other_filters_or_too_small_ones_are_refused(tmp_path):
    objects = write_objects(tmp_path / "objects.csv", 1)
    for name, one, fault in (
        ("a", image(0, ("hsc-g", "hsc-r")), "has images of other bands than g, r and z"),
        ("b", image(0, ("des-g",), size=60), r"row 1, column image.flux: has 60 pixels .* a cut-out has 64"),
    ):
        source = write_parquet(tmp_path / f"{name}.parquet", [one])
        with pytest.raises(IngestError, match=fault):
            ingest_cutouts([UPath(source)], UPath(objects), UPath(tmp_path / "out"))
    pq.write_table(mmu_files.struct_table([{"a": 1}]), tmp_path / "c.parquet")
    with pytest.raises(IngestError, match="has no column of images known here: expected"):
        ingest_cutouts([UPath(tmp_path / "c.parquet")], UPath(objects), UPath(tmp_path / "out"))
