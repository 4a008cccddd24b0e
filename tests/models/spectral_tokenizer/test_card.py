"""The model card holds every stage of the training and every measured sample."""

from dataclasses import asdict

import pytest

from ojala.models.evaluation.card import card
from ojala.models.spectral_tokenizer.network import PRESETS
from ojala.models.spectral_tokenizer.training import TokenizerTraining

pytestmark = pytest.mark.processor

FIRST = {
    "config": asdict(TokenizerTraining()),
    "draws": 1_234_567,
    "seconds": 3600.0,
    "threads": 1,
    "instruments": ["DESI", "GALAH"],
}
REPORT = {
    "DESI, whole": {
        "class_mean": 0.961,
        "n_galaxy": 600.0,
        "class_galaxy": 0.94,
        "z_galaxy_nmad": 0.00123,
        "teff_mad": 87.4,
        "teff_bias": -12.0,
        "chi2 of the whole": 1.0,
        "chi2 of the blue half": 1.25,
        "chi2 of the red half": 1.5,
    },
    "DESI in GALAH": {"n": 1000.0, "median_rank": 7.0, "top_1": 0.3, "top_10": 0.61},
}


def test_the_card_holds_the_stages_and_every_sample():
    config = asdict(TokenizerTraining(contrast=0.1, batch_size=64, begin="first.safetensors"))
    both = FIRST | {"config": config, "draws": 90_000, "seconds": 900.0, "before": FIRST}
    config = asdict(TokenizerTraining(frozen="both.safetensors"))
    second = FIRST | {"config": config, "draws": 50_000, "seconds": 600.0, "before": both}
    shares = {"n": 500.0, "within_68": 0.61, "within_95": 0.9}
    after = {"z of QSO": shares | {"within_68": 0.68, "within_95": 0.95}}
    second["calibrated"] = {"draws": 4000, "before": {"z of QSO": shares}, "after": after}
    record = {
        "model": "spectral_tokenizer",
        "name": "tokenizer",
        "version": "0.1",
        "sha256": "c0ffee",
        "architecture": asdict(PRESETS["base"]),
        "training": second,
        "evaluation": {"command": "the command", "measures": REPORT},
    }
    text = card(record, "## Limits\n* None.\n")
    assert "1,234,567 mock spectra, none used twice, in 60 minutes" in text
    assert "| 87 (-12) |" in text
    assert "network and heads: 90,000 spectra in 15 minutes" in text
    assert "64 objects through two instruments" in text
    assert "| z of QSO | 500 | 61.0 % | 68.0 % | 90.0 % | 95.0 % |" in text
    assert "50,000 spectra in 10 minutes" in text
    assert "| DESI, whole | 600, 0, 0 | 96.1 % | 94.0 % |  |  | 0.0012 |" in text
    assert "| DESI in GALAH | 1000 | 7 | 30.0 % | 61.0 % |" in text
    assert "| DESI, whole | 1.25 | 1.50 |" in text
    assert "c0ffee" in text
    assert text.endswith("## Limits\n* None.\n")
