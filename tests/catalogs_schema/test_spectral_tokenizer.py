"""The tokenizer's contract: its keys are those of the spectra, and every flag has a bit and a meaning."""

from ojala.catalogs_schema.spectra import KEY_NAMES, SPECTRA
from ojala.catalogs_schema.spectral_tokenizer import FLAG_MEANINGS, SPECTRAL_TOKENIZER, SpectrumFlag


def test_keys_and_positions_are_those_of_the_spectra():
    assert SPECTRAL_TOKENIZER.names[: len(KEY_NAMES)] == list(KEY_NAMES)
    assert all(SPECTRAL_TOKENIZER[name] == SPECTRA[name] for name in KEY_NAMES)


def test_every_flag_has_one_bit_of_its_own_and_a_meaning():
    assert set(FLAG_MEANINGS) == set(SpectrumFlag)
    assert [flag.value for flag in SpectrumFlag] == [1 << bit for bit in range(len(SpectrumFlag))]
