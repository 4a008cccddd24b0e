"""Images of the sky from which cut-outs are made: coadded bricks of the Legacy Survey and cut-out files.

Both are *fields*: a piece of the sky with a world coordinate system and, band by band, planes of pixels that
lie in files and are read where they are needed. Fluxes are in nanomaggies.
"""
