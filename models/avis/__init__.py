"""AVIS: images and spectra of the same objects in one embedding, learned without labels, and its atlas."""
