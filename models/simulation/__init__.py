"""Mock photometry with truth: populations of spectra, bands, noise and the sky that mixes them.

    populations.galaxies, stars, quasars    libraries of rest-frame spectra with labels, simulated once
    populations.galaxy_index                index of library galaxies by redshift and luminosity
    populations.line_ratios                 ratios of emission lines as DESI observes them
    wavelength_grid                         wavelength lattices on which a redshift is a shift by whole pixels
    populations.abundances                  spectral features of abundance ratios in galaxies
    populations.mismatch                    random smooth deviations of models from real objects
    photometry.photometer                   spectra -> flux densities in the 63 bands
    photometry.depths, noise                depths of the survey, errors, zero points, missing bands
    populations.priors                      priors of magnitudes, redshifts, reddening and classes
    skies.photometric                       sampler of labelled photometry: `MockSky.draw`

Galaxies are drawn for a redshift and a magnitude from library members of about that redshift and luminosity,
a third from any: colours depend on luminosity. Members are split into training and held-out sides by library
row, since a simulated sky has no cells.

Known limits: abundance ratios of galaxies vary in seventeen features only; galaxies have no velocity
dispersion (invisible at the bands' width) and no broad lines; stars' [alpha/Fe] is not in their spectra;
blends are missing; hot white dwarfs, subdwarfs and cataclysmic variables are drawn more often than they
occur; brown dwarfs beyond L0 are missing.
"""
