"""The published network from its files: tokens, answers and columns are those of the authors' code."""

import hashlib
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from ojala.models.checkpoint import WeightsError
from ojala.models.ojala_published import Predictor, convert, load
from ojala.models.ojala_published.derived import derived_columns
from ojala.models.ojala_published.inputs import INPUTS, PublishedInputs, as_read, f_lambda_per_ujy
from ojala.models.ojala_published.network import SCALARS
from tests.helpers import published
from tests.helpers.published import GOLDEN, SHA256, golden_inputs, golden_requests, stand_in, write_checkpoint

pytestmark = pytest.mark.processor
golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"there are no golden data at {GOLDEN}")

# Means of the authors' code for a row without any input, from the weights of the rule.
NO_INPUT = [-1.756474, -3.182842, -1.071663, -1.788958, -1.053849, -0.835427, -1.031661, -1.049392]
NO_INPUT += [-0.831994, -3.434427, -1.704153, -1.387031, -1.649817, -2.178661, -2.20823]
# Of this network, which agrees with the authors' on all golden rows: a ramp over all inputs, narrow bands
# alone, MAG_i alone, all with the vocabulary of `tests.helpers.published.config`.
RAMP = [2.478419, 1.366434, 0.385909, 1.313673, 1.890881, -0.271065, 0.119259, 1.214442]
RAMP += [0.57425, -0.558202, 0.680214, 1.116518, 0.627011, 0.356249, 0.45715]
RAMP_WITH_BIAS = [2.322694, 1.48426, 0.551501, 1.32724, 1.93205, -0.593913, 0.040109, 1.401354]
RAMP_WITH_BIAS += [0.881015, -0.556018, 0.770888, 1.14807, 0.615778, 0.503736, 0.269065]
ONE_BAND = [2.215585, -0.69405, 0.737376, 2.840369, 1.077438, -1.151654, 1.95835, 2.164032]
ONE_BAND += [0.949574, 0.726195, 0.955848, 1.820688, 2.52992, 1.335171, -1.426224]


@pytest.fixture(scope="module")
def tensors():
    return stand_in()


@pytest.fixture(scope="module")
def weights(tensors, tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("weights"), tensors)


@pytest.fixture
def plain(tensors, tmp_path, monkeypatch):
    """Weights whose ``config.json`` is that of the tests, also where there are golden data."""
    monkeypatch.setattr(published, "GOLDEN", tmp_path)
    return write_checkpoint(tmp_path / "plain", tensors)


def test_the_stand_in_weights_are_those_of_the_golden_data(tensors):
    content = b"".join(tensor.numpy().astype("<f4").tobytes() for tensor in tensors.values())
    assert hashlib.sha256(content).hexdigest() == SHA256
    assert sum(tensor.numel() for tensor in tensors.values()) == 4_699_665


@pytest.mark.parametrize(("bias", "ramp"), [(False, RAMP), (True, RAMP_WITH_BIAS)])
def test_answers_to_simple_rows(plain, bias, ramp):
    network, _ = load(plain)
    network.wavelength_bias = bias
    values = np.full((3, len(INPUTS)), np.nan, np.float32)
    values[1] = np.linspace(-1, 2, len(INPUTS))
    values[2, INPUTS.index("MAG_i")] = 20.0
    with torch.inference_mode():
        means = network(torch.from_numpy(values))["mean"].numpy()
    np.testing.assert_allclose(means, [NO_INPUT, ramp, ONE_BAND], atol=5e-5)


@golden
def test_tokens_are_exactly_the_authors(weights):
    network, _ = load(weights)
    tokens = np.load(GOLDEN / "tokens.npz")
    standardised, valid = network.standardise(torch.from_numpy(as_read(golden_inputs())))
    ids = np.where(valid.numpy(), network.input_ids.numpy(), 0)
    np.testing.assert_array_equal(ids, tokens["tokens"][:, : len(INPUTS)])
    np.testing.assert_array_equal(standardised.numpy(), tokens["values"][:, : len(INPUTS)])


@golden
@pytest.mark.parametrize("bias", [False, True])
def test_encodings_and_answers_are_the_authors(weights, bias):
    name = "with_bias" if bias else "without_bias"
    model = Predictor.load(weights, wavelength_bias=bias)
    raw, encoded = np.load(GOLDEN / "raw.npz"), np.load(GOLDEN / "encoded.npz")
    golden_requests()
    values = golden_inputs()
    found = model.predict_raw(values)
    np.testing.assert_allclose(found["mean"], raw[f"mean_{name}"], atol=5e-5)
    np.testing.assert_allclose(found["logvar"], raw[f"logvar_{name}"], atol=2e-5)
    np.testing.assert_allclose(found["logits"], raw[f"class_logits_{name}"], atol=5e-5)
    assert np.isnan(found["mean"]).any(axis=1).nonzero()[0].tolist() == [61]
    with torch.inference_mode():
        network = model.network
        standardised, valid = network.standardise(torch.from_numpy(as_read(values)))
        seen = network.encode(network.embed(standardised), valid).numpy()
    rows, there = encoded["rows"], valid.numpy()[encoded["rows"], :, None]
    np.testing.assert_allclose(np.where(there, seen[rows], 0), np.where(there, encoded[name], 0), atol=2e-5)


@golden
@pytest.mark.parametrize("bias", [False, True])
def test_columns_are_the_authors(weights, bias):
    table = pq.read_table(GOLDEN / ("outputs_with_bias.parquet" if bias else "outputs.parquet"))
    found = Predictor.load(weights, wavelength_bias=bias).predict(golden_inputs())
    scale = json.loads((GOLDEN / "config.json").read_text())
    units = dict(
        zip(scale["tokenizer_config"]["vocabs"], scale["norm_config"]["_input_std"][1:], strict=True)
    )
    for name in SCALARS:
        for part in ("", "_ERR"):
            theirs = table[f"{name}{part}"].to_numpy()
            np.testing.assert_allclose(found[f"{name}{part}"] / units[name], theirs / units[name], atol=5e-5)
    for name in ("P_GALAXY", "P_STAR", "P_QSO"):
        np.testing.assert_allclose(found[name], table[name].to_numpy(), atol=1e-5)
    assert found["CLASS"].tolist() == table["CLASS"].to_pylist()


@golden
@pytest.mark.parametrize("revised", [False, True])
def test_derived_columns_of_both_stored_scripts(revised):
    table = pq.read_table(GOLDEN / "outputs.parquet")
    kron = pq.read_table(GOLDEN / "inputs.parquet", columns=["AUTO_iSDSS"])["AUTO_iSDSS"].to_numpy()
    predicted = {name: table[name].to_numpy() for name in table.column_names}
    found = derived_columns(predicted, kron, revised=revised)
    for name, values in found.items():
        theirs = predicted.get(f"{name}__8987be9" if revised else name, predicted[name])
        np.testing.assert_allclose(values, theirs, rtol=1e-12, err_msg=name)


def test_derived_columns_by_hand():
    """One line-emitting galaxy at z = 0 with a Balmer decrement of 2.86: no dust, no distance."""
    of = {"HALPHA_CONT": 1.0, "HBETA_CONT": 1.0, "HALPHA_6562_EW": 28.6, "HBETA_4861_EW": 10.0}
    of |= {"OIII_5007_EW": 5.0, "NII_6584_EW": -2.0, "Z_GAL": -0.1}
    predicted = {name: np.array([value], np.float32) for name, value in of.items()}
    predicted |= {f"{name}_ERR": np.array([0.0], np.float32) for name in of}
    predicted["HALPHA_6562_EW_ERR"] = np.array([2.86], np.float32)
    found = {name: float(values[0]) for name, values in derived_columns(predicted, np.array([100.0])).items()}
    assert found["FLUX_HALPHA"] == pytest.approx(28.6e-17, rel=1e-6)
    assert found["FLUX_HALPHA_ERR"] == pytest.approx(2.86e-17, rel=1e-6)
    assert found["FLUX_NII6584"] == pytest.approx(-2e-17)
    assert found["HA_HB_RATIO"] == pytest.approx(2.86, rel=1e-6)
    assert np.isnan(found["L_HALPHA_CORR"]), "the redshift is negative"
    revised = derived_columns(predicted, np.array([100.0]), revised=True)
    assert revised["L_HALPHA_CORR"][0] == 0.0, "at a distance of zero"


@golden
def test_photometry_gives_the_inputs_of_the_authors(weights):
    """The archive's f_lambda, to uJy in single precision, to ratios and magnitudes."""
    table = pq.read_table(GOLDEN / "inputs.parquet").filter(
        pq.read_table(GOLDEN / "inputs.parquet")["archive"]
    )
    found = photometry_of(table).script_columns()
    network, _ = load(weights)
    expected = golden_inputs()[: table.num_rows]
    ours, valid = network.standardise(torch.from_numpy(as_read(found[0])))
    theirs, same = network.standardise(torch.from_numpy(as_read(expected)))
    assert torch.equal(valid, same)
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=3e-6, rtol=3e-6)
    np.testing.assert_allclose(found[1], table["AUTO_iSDSS"].to_numpy(), rtol=1e-6)


def photometry_of(table):
    from ojala.catalogs_schema.bands import BY_NAME, JPAS_BANDS, MODEL_BANDS

    flux = np.full((table.num_rows, len(MODEL_BANDS)), np.nan)
    archive = np.array(table["FLUX_APER_COR_3_0"].to_pylist(), float)
    per_ujy = np.array([f_lambda_per_ujy(band.pivot) for band in JPAS_BANDS])
    flux[:, : len(JPAS_BANDS)] = np.where(archive == 0, np.nan, archive) / per_ujy
    for name, band in {"G": "ls_g", "R": "ls_r", "Z": "ls_z", "W1": "W1", "W2": "W2"}.items():
        there = table[f"FLUX_IVAR_{name}"].to_numpy() > 0
        flux[:, MODEL_BANDS.index(BY_NAME[band])] = np.where(
            there, 3.631 * table[f"FLUX_{name}"].to_numpy(), np.nan
        )
    kron = table["FLUX_AUTO_iSDSS"].to_numpy() / f_lambda_per_ujy(BY_NAME["iSDSS"].pivot)
    return PublishedInputs(flux.astype(np.float32), kron.astype(np.float32), np.zeros(len(kron), np.float32))


def test_options_change_what_is_open(weights):
    from ojala.catalogs_schema.bands import MODEL_BANDS

    flux = np.full((1, len(MODEL_BANDS)), 10.0, np.float32)
    inputs = PublishedInputs(flux, np.array([20.0], np.float32), np.array([0.1], np.float32))
    base, kron = inputs.script_columns()
    of = dict(zip(INPUTS, base[0], strict=True))
    assert of["J0660"] == pytest.approx((7656.2 / 6607.6) ** 2)
    assert of["MAG_i"] == pytest.approx(21.4, abs=1e-3)
    corrected = dict(zip(INPUTS, inputs.script_columns({"extinction": "correct"})[0][0], strict=True))
    assert of["MAG_i"] - corrected["MAG_i"] == pytest.approx(0.1 * 1.825, abs=1e-6)
    assert -2.5 * np.log10(of["J0378"] / corrected["J0378"]) == pytest.approx(0.1 * (4.567 - 1.825), abs=1e-6)
    by_kron = dict(zip(INPUTS, inputs.script_columns({"mag_i": "kron"})[0][0], strict=True))
    assert of["MAG_i"] - by_kron["MAG_i"] == pytest.approx(2.5 * np.log10(2), abs=1e-6)
    archive = dict(zip(INPUTS, inputs.script_columns({"wavelengths": "archive"})[0][0], strict=True))
    assert archive["J0760"] == pytest.approx((7725 / 7602) ** 2)
    assert kron[0] == pytest.approx(20.0 * f_lambda_per_ujy(7656.2))


def test_ratios_without_a_magnitude_are_to_the_kron_flux():
    from ojala.catalogs_schema.bands import MODEL_BANDS

    names = [band.name for band in MODEL_BANDS]
    flux = np.full((2, len(MODEL_BANDS)), np.nan, np.float32)
    flux[:, names.index("J0660")] = 10.0
    values, _ = PublishedInputs(flux, np.array([20, np.nan], np.float32), flux[:, 0]).script_columns()
    assert values[0, INPUTS.index("J0660")] == pytest.approx(0.5 * (7656.2 / 6607.6) ** 2)
    assert np.isnan(values[1]).all()
    assert np.isnan(values[0, INPUTS.index("MAG_i")])


@pytest.mark.parametrize("prefix", ["_orig_mod.", ""])
def test_converted_weights_give_the_same_numbers(tensors, tmp_path, prefix):
    weights = write_checkpoint(tmp_path, tensors, prefix=prefix)
    made = convert(weights, tmp_path / "w.safetensors")
    assert made["tensors"] == 106
    assert made["weights_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    values = np.ones((2, len(INPUTS)))
    one, other = (Predictor.load(path) for path in (weights, tmp_path / "w.safetensors"))
    assert (one.weights_sha256, other.weights_sha256) == (made["weights_sha256"], made["sha256"])
    first, second = one.predict_raw(values), other.predict_raw(values)
    for name, answer in first.items():
        np.testing.assert_array_equal(answer, second[name])
    with pytest.raises(WeightsError, match="exists: remove it or name another file"):
        convert(weights, tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"torch_decoder.decoder_out.bias": None}, "missing tensor torch_decoder.decoder_out.bias"),
        ({"torch_decoder.more": torch.zeros(1)}, "unknown tensor torch_decoder.more"),
        ({"torch_decoder.decoder_out.bias": torch.zeros(2)}, r"decoder_out.bias is \(2,\), not \(1,\)"),
        ({"torch_decoder.decoder_out.bias": torch.full((1,), torch.nan)}, "holds values that are not finite"),
        ({"torch_encoder.rpb_gain2": torch.tensor(0.01)}, "rpb_gain2 is 0.01; below 0.05"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_by_name(tensors, tmp_path, change, problem):
    changed = {name: value for name, value in (tensors | change).items() if value is not None}
    with pytest.raises(WeightsError, match=problem):
        load(write_checkpoint(tmp_path, changed))


def test_files_that_are_no_published_weights_are_refused(tensors, tmp_path):
    weights = write_checkpoint(tmp_path, tensors)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match="is not the configuration of the published network"):
        load(weights)
    (tmp_path / "config.json").unlink()
    with pytest.raises(
        WeightsError, match=r"put the authors' config.json beside the weights, from https://github"
    ):
        load(weights)
    for content in (b"not weights", weights.read_bytes()[:1000]):
        weights.write_bytes(content)
        with pytest.raises(WeightsError, match="cannot be read as weights of torch"):
            load(weights)
    with pytest.raises(WeightsError, match="no such file; the authors publish weights"):
        load(tmp_path / "none.pt")


def test_a_row_does_not_depend_on_its_neighbours(weights):
    model = Predictor.load(weights, batch_size=4)
    values = np.random.default_rng(1).normal(1.0, 0.3, (6, len(INPUTS)))
    together, alone = model.predict(values), model.predict(values[5:])
    for name in SCALARS:
        np.testing.assert_allclose(together[name][5:], alone[name], rtol=1e-5)
    with pytest.raises(ValueError, match=r"inputs must be \(N, 60\)"):
        model.predict(values[:, 1:])
