"""The network: any subset of bands, any subset of requests, one function for training and serving."""

import dataclasses
import json
from dataclasses import asdict

import numpy as np
import pytest
import torch

from ojala.models.layers.distributions import LOG_SCALE_RANGE
from ojala.models.layers.redshift_pdf import LOG1PZ_STEP, N_REDSHIFT_BINS
from ojala.models.ojala.network import PRESETS, REQUESTS, GaussianRedshift, Ojala, OjalaConfig
from ojala.models.ojala.tokens import N_BANDS, Tokens, pack, tokenise
from ojala.models.settings import from_mapping

pytestmark = pytest.mark.processor

SMALL = OjalaConfig(
    width=32, encoder=((2, 64), (2, 64)), decoder=((2, 64),), trunk=(64,), pre_norm=True, reads_errors=True
)
N = 12


SHAPES = {
    "this project's": SMALL,
    "as published": dataclasses.replace(SMALL, pre_norm=False, reads_errors=False, redshift_pdf=False),
    "a chain": dataclasses.replace(SMALL, chain=True),
    "with bands": dataclasses.replace(SMALL, chain=True, band_requests=True),
}


@pytest.fixture(scope="module", params=SHAPES)
def model(request):
    torch.manual_seed(1)
    network = Ojala(SHAPES[request.param])
    network.tokens.fit(tokens_of(200, seed=2))
    if network.found is not None:
        torch.nn.init.normal_(network.found.out.weight)
    return network.eval()


def tokens_of(n: int, seed: int) -> Tokens:
    rng = np.random.default_rng(seed)
    flux = rng.lognormal(2.0, 0.5, (n, N_BANDS)).astype(np.float32)
    flux[rng.random(flux.shape) < 0.3] = np.nan
    return tokenise(flux, np.full_like(flux, 0.4), rng.uniform(0.0, 0.1, n))


def assert_same(a, b, **tolerance):
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(
            a[name], b[name], msg=lambda text, name=name: f"{name}: {text}", **tolerance
        )


@torch.no_grad()
def test_every_request_is_answered_in_its_shape(model):
    answers = model(tokens_of(N, seed=3))
    assert tuple(answers) == REQUESTS
    assert answers["class"].shape == (N, 3)
    assert answers["z_gal"].shape == answers["z_qso"].shape == (N, N_REDSHIFT_BINS)
    assert answers["log_mass"].shape == (N, 2)
    assert all(torch.isfinite(answer).all() for answer in answers.values())
    log_scale = torch.stack([answers[name][:, 1] for name in REQUESTS[3:]])
    assert LOG_SCALE_RANGE[0] <= log_scale.min() <= log_scale.max() <= LOG_SCALE_RANGE[1]


@torch.no_grad()
def test_training_and_serving_give_the_same_answers(model):
    tokens = tokens_of(N, seed=3)
    serving = model(tokens)
    training = model.train()(tokens)
    model.eval()
    assert_same(training, serving, rtol=0.0, atol=0.0)


@torch.no_grad()
def test_the_order_of_the_bands_does_not_matter(model):
    tokens = tokens_of(N, seed=3)
    order = torch.randperm(N_BANDS, generator=torch.Generator().manual_seed(5))
    shuffled = Tokens(tokens.features[:, order], tokens.valid[:, order], tokens.brightness)
    assert_same(model(shuffled, bands=order), model(tokens), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_slots_of_missing_bands_can_be_left_out(model):
    tokens = tokens_of(N, seed=3)
    few = torch.tensor([1, 5, 9, 20, 33, 56, 58])
    valid = torch.zeros_like(tokens.valid)
    valid[:, few] = tokens.valid[:, few]
    masked = Tokens(tokens.features, valid, tokens.brightness)
    short = Tokens(tokens.features[:, few], tokens.valid[:, few], tokens.brightness)
    assert_same(model(short, bands=few), model(masked), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_what_lies_in_a_slot_that_is_not_valid_changes_nothing(model):
    tokens = tokens_of(N, seed=3)
    garbage = torch.where(tokens.valid[..., None], tokens.features, 7.7)
    assert_same(model(tokens._replace(features=garbage)), model(tokens), rtol=0.0, atol=0.0)


@torch.no_grad()
def test_a_valid_band_does_change_the_answer(model):
    tokens = tokens_of(N, seed=3)
    seen = tokens.features.clone()
    seen[:, :, 0] += 0.3
    assert (model(tokens._replace(features=seen))["z_gal"] - model(tokens)["z_gal"]).abs().max() > 1e-3


@torch.no_grad()
def test_an_answer_does_not_depend_on_the_other_requests(model):
    tokens = tokens_of(N, seed=3)
    everything = model(tokens)
    some = model(tokens, ("teff", "z_qso"))
    assert tuple(some) == ("teff", "z_qso")
    assert_same(some, {name: everything[name] for name in some}, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_an_object_without_any_band_gets_a_finite_answer(model):
    nothing = np.full((2, N_BANDS), np.nan, dtype=np.float32)
    tokens = tokenise(nothing, nothing, np.zeros(2))
    assert all(torch.isfinite(answer).all() for answer in model(tokens).values())
    assert torch.isfinite(model.embed(model.encode(tokens), tokens.valid)).all()


@torch.no_grad()
def test_the_wavelength_bias_is_part_of_every_answer(model):
    """The published code left it out when serving."""
    tokens = tokens_of(N, seed=3)
    with_bias = model(tokens)["z_gal"]
    amplitude = model.wavelength_bias.amplitude
    kept = amplitude.clone()
    amplitude.zero_()
    without = model(tokens)["z_gal"]
    amplitude.copy_(kept)
    assert (with_bias - without).abs().max() > 1e-4


@torch.no_grad()
def test_the_embedding_is_the_mean_over_valid_tokens(model):
    tokens = tokens_of(N, seed=3)
    encoded = model.encode(tokens)
    row = torch.cat([encoded[4, :-1][tokens.valid[4]], encoded[4, -1:]]).mean(dim=0)
    torch.testing.assert_close(model.embed(encoded, tokens.valid)[4], row)


@torch.no_grad()
def test_a_chain_answers_scalars_from_what_it_found_and_begins_as_if_it_had_found_nothing():
    torch.manual_seed(1)
    plain = Ojala(SMALL).eval()
    torch.manual_seed(1)
    chain = Ojala(SHAPES["a chain"]).eval()
    tokens = tokens_of(N, seed=3)
    assert_same(chain(tokens), plain(tokens), rtol=1e-4, atol=1e-5)
    torch.nn.init.normal_(chain.found.out.weight)
    before = chain(tokens)
    chain.heads["redshift"].bias[:] = torch.randn(N_REDSHIFT_BINS)
    after = chain(tokens)
    assert (after["log_mass"] - before["log_mass"]).abs().max() > 1e-4
    torch.testing.assert_close(after["class"], before["class"])


def test_properties_of_a_chain_do_not_bend_the_redshift():
    chain = Ojala(SHAPES["a chain"])
    torch.nn.init.normal_(chain.found.out.weight)
    chain(tokens_of(N, seed=3), ("log_mass",))["log_mass"].sum().backward()
    assert chain.heads["redshift"].weight.grad is None
    assert chain.found.hidden.weight.grad.abs().max() > 0


@torch.no_grad()
def test_a_gaussian_redshift_is_a_gaussian_over_the_bins():
    head = GaussianRedshift(4)
    head.parameters_of.weight.zero_()
    head.parameters_of.bias[:] = torch.tensor([-0.2, -1.0])
    p = head(torch.zeros(1, 4)).softmax(dim=-1)[0]
    x = (torch.arange(N_REDSHIFT_BINS) + 0.5) * LOG1PZ_STEP
    mean = (p * x).sum()
    assert mean == pytest.approx(0.3, abs=1e-4)
    assert ((p * (x - mean) ** 2).sum().sqrt()) == pytest.approx(0.05 * np.exp(-1.0), rel=1e-3)


def test_the_published_preset_has_the_published_shape():
    published = Ojala(PRESETS["published"])
    assert [block.attention.heads for block in published.encoder] == [16, 8]
    assert [block.feed_forward[0].out_features for block in published.decoder] == [2048, 1024, 512]
    assert len(published.tokens.embedding) == 1, "the published network does not read errors"
    body = sum(p.numel() for p in published.parameters()) - sum(
        p.numel() for p in published.heads.parameters()
    )
    assert body == pytest.approx(4.7e6, rel=0.05)


def test_the_base_preset_is_small_enough_for_the_repository():
    assert sum(p.numel() for p in Ojala(PRESETS["base"]).parameters()) * 4 < 20e6


@pytest.mark.parametrize("preset", PRESETS)
def test_a_configuration_survives_json(preset):
    assert from_mapping(OjalaConfig, json.loads(json.dumps(asdict(PRESETS[preset])))) == PRESETS[preset]


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="not a multiple"):
        Ojala(dataclasses.replace(SMALL, encoder=((5, 64),)))


@pytest.fixture(scope="module")
def asked_for_bands() -> Ojala:
    torch.manual_seed(1)
    network = Ojala(SHAPES["with bands"])
    network.tokens.fit(tokens_of(200, seed=2))
    return network.eval()


@torch.no_grad()
def test_bands_are_answered_each_on_its_own_and_change_no_other_answer(asked_for_bands):
    tokens = tokens_of(N, seed=3)
    every = asked_for_bands(tokens, queried=torch.arange(N_BANDS))
    assert tuple(every) == (*REQUESTS, "bands")
    assert every["bands"].shape == (N, N_BANDS, 2)
    assert_same({name: every[name] for name in REQUESTS}, asked_for_bands(tokens), rtol=1e-4, atol=1e-5)
    each = torch.stack(
        [torch.randperm(N_BANDS, generator=torch.Generator().manual_seed(k))[:5] for k in range(N)]
    )
    some = asked_for_bands(tokens, (), queried=each)
    assert tuple(some) == ("bands",)
    expected = every["bands"].gather(1, each[..., None].expand(-1, -1, 2))
    torch.testing.assert_close(some["bands"], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_packed_rows_are_answered_as_rows_with_empty_slots(asked_for_bands):
    tokens = tokens_of(N, seed=3)
    tokens.valid[:, 40:] = False
    packed, bands = pack(tokens)
    assert bands.shape[1] == tokens.valid.sum(dim=1).max() < 40
    asked = torch.tensor([2, 41, 62])
    assert_same(
        asked_for_bands(packed, bands=bands, queried=asked),
        asked_for_bands(tokens, queried=asked),
        rtol=1e-4,
        atol=1e-5,
    )


@torch.no_grad()
def test_neighbours_in_wavelength_weigh_on_a_band_that_is_asked_for(asked_for_bands):
    tokens = tokens_of(N, seed=3)
    asked = torch.tensor([20])
    before = asked_for_bands(tokens, (), queried=asked)["bands"]
    amplitude = asked_for_bands.band_requests.bias.amplitude
    kept = amplitude.clone()
    amplitude.zero_()
    without = asked_for_bands(tokens, (), queried=asked)["bands"]
    amplitude.copy_(kept)
    assert (before - without).abs().max() > 1e-4


def test_a_network_without_band_requests_says_so():
    with pytest.raises(ValueError, match=r"cannot be asked for bands: .* version 0.4 or later"):
        Ojala(SMALL)(tokens_of(2, seed=3), queried=torch.tensor([3]))


def test_a_configuration_from_before_band_requests_has_none():
    old = {name: value for name, value in dataclasses.asdict(SMALL).items() if name != "band_requests"}
    assert from_mapping(OjalaConfig, old) == SMALL
