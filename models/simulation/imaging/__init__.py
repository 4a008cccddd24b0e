"""Images of galaxies: light profiles and morphologies."""
