import numpy as np

from ojala.pipeline.ingest.surveys.cross_match import cross_match


def test_visits_within_two_arcsec_are_of_one_object():
    arcsec = 1.0 / 3600.0
    ra = np.array([10.0, 10.0 + 1.5 * arcsec, 10.0 + 5.0 * arcsec, 200.0])
    dec = np.array([0.0, 0.0, 0.0, 30.0])
    np.testing.assert_array_equal(cross_match(ra, dec, np.arange(4)), [0, 0, 2, 3])


def test_separations_are_those_on_the_sphere():
    arcsec = 1.0 / 3600.0
    near_the_pole = np.array([0.0, 100.0 * arcsec])
    np.testing.assert_array_equal(cross_match(near_the_pole, np.full(2, 89.9), np.arange(2)), [0, 0])
    np.testing.assert_array_equal(
        cross_match(np.array([0.0, 360.0 - arcsec]), np.zeros(2), np.arange(2)), [0, 0]
    )


def test_visits_of_one_target_are_of_one_object_wherever_they_are():
    nowhere = np.array([np.nan, np.nan, 5.0])
    np.testing.assert_array_equal(cross_match(nowhere, nowhere, np.array([7, 8, 7])), [0, 1, 0])
    np.testing.assert_array_equal(cross_match(nowhere[:2], nowhere[:2], np.array([7, 8])), [0, 1])


def test_pairs_are_those_of_a_search_through_all():
    rng = np.random.default_rng(1)
    ra, dec = 45.0 + rng.uniform(0.0, 0.01, 400), rng.uniform(-0.005, 0.005, 400)
    x = np.radians(ra)
    chord = np.hypot(x[:, None] - x, np.radians(dec)[:, None] - np.radians(dec))
    linked = chord < np.radians(2.0 / 3600.0)
    expected = np.arange(400)
    for _ in range(50):
        expected = np.array([expected[row].min() for row in linked])
    np.testing.assert_array_equal(cross_match(ra, dec, np.arange(400)), expected)
    assert len(set(expected.tolist())) < 390


def test_a_name_that_was_given_in_two_places_is_two_objects():
    ra, dec = np.array([10.0, 180.0, 10.001]), np.array([0.0, 30.0, 0.0])
    np.testing.assert_array_equal(cross_match(ra, dec, np.array([7, 7, 9])), [0, 1, 2])
    np.testing.assert_array_equal(cross_match(ra[[0, 2]], dec[[0, 2]], np.array([7, 7])), [0, 0])
