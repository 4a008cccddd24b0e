"""Mock photometry with truth: populations of spectra, bands, noise and the sky that mixes them.

    populations.galaxies, stars, quasars    libraries of rest-frame spectra with labels, simulated once
    populations.galaxy_index                finds library galaxies by redshift and luminosity
    populations.line_ratios                 ratios of emission lines as DESI observes them
    wavelength_grid                         wavelength lattices on which a redshift is a shift by whole pixels
    populations.abundances                  features of galaxies by which abundance ratios show
    populations.mismatch                    smooth deviations of models from real objects, new for each draw
    photometry.photometer                   spectra -> flux densities in the 63 bands
    photometry.depths, noise                depths of the survey, errors, zero points, missing bands
    populations.priors                      what is drawn how often
    skies.photometric                       mixes all of it: `MockSky.draw` gives labelled photometry without
    end

Galaxies are drawn for a redshift and a magnitude from library members that were made for about that redshift
and luminosity, a fifth from any: colours depend on luminosity. Members are split for training and testing by
library row; a simulated sky has no cells to split by.

Known limits: abundance ratios of galaxies vary in seventeen features only; galaxies have no velocity
dispersion (invisible at the bands' width) and no broad lines; stars' [alpha/Fe] is not in their spectra;
blends are missing; hot white dwarfs, subdwarfs and cataclysmic variables are drawn more often than they
occur; brown dwarfs beyond L0 are missing.
"""
