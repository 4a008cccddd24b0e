"""Mock photometry with truth: populations of spectra, bands, noise and the sky that mixes them.

    galaxies, stars, quasars   libraries of rest-frame spectra with labels, simulated once
    grid                       wavelength lattices on which a redshift is a shift by whole pixels
    abundances                 features of galaxies by which abundance ratios show
    mismatch                   smooth deviations of models from real objects, new for each draw
    photometer                 spectra -> flux densities in the 63 bands
    depths, noise              depths of the survey, errors, zero points, missing bands
    priors                     what is drawn how often
    sky                        mixes all of it: `MockSky.draw` gives labelled photometry without end

Known limits: abundance ratios of galaxies vary in sixteen features only; galaxies have no velocity
dispersion (invisible at the bands' width) and no broad lines; stars' [alpha/Fe] is not in their spectra;
obscured quasars and blends are missing; colours of galaxies do not depend on their luminosity.
"""
