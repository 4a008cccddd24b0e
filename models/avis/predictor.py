"""From pairs to embeddings with trained weights."""

from __future__ import annotations

import numpy as np
import torch

from ojala.models.avis.atlas import Atlas
from ojala.models.avis.checkpoint import FORMAT, AvisInfo
from ojala.models.avis.inputs import brightness_features, read_images
from ojala.models.avis.network import Avis
from ojala.models.data import Images, Pairs, Spectra
from ojala.models.serving.precision import Precision
from ojala.models.serving.predictor import BasePredictor
from ojala.models.spectral_tokenizer.patches import in_batches, patchify


class AvisPredictor(BasePredictor):
    """A trained network, as the pipeline uses it.

    Spectra are batched with others of about as many patches, images among themselves, in batches of a fixed
    size: a row's answer does not depend on what else is asked.

    Attributes
    ----------
    batch_size : int
        Rows per forward pass.
    atlas : Atlas or None
        Where whoever serves the embeddings places them.
    """

    FORMAT = FORMAT
    WEIGHTS = "avis-base.safetensors"

    atlas: Atlas | None = None

    def __init__(
        self, model: Avis, info: AvisInfo, *, device: str, precision: Precision, batch_size: int
    ) -> None:
        super().__init__(model, info, device=device, precision=precision, batch_size=batch_size)
        self._model = model

    def predict(self, pairs: Pairs) -> dict[str, np.ndarray]:
        """Embeddings of N pairs.

        Parameters
        ----------
        pairs : Pairs
            Spectra of any instruments, and images, of the same objects.

        Returns
        -------
        dict of str to ndarray of float32, shape (N, E)
            ``embedding_spectrum`` and ``embedding_image``, unit vectors: NaN where no patch of the spectrum
            is readable, where no pixel of the image is usable; ``embedding``, the direction of their sum, or
            the one that there is.
        """
        of_spectrum, of_image = self._spectra(pairs.spectra), self._images(pairs.images)
        seen = np.isfinite(of_spectrum[:, :1])
        joint = np.where(seen, of_spectrum, of_image)
        both = (seen & np.isfinite(of_image[:, :1])).ravel()
        joint[both] = _unit(of_spectrum[both] + of_image[both])
        return {
            "embedding": joint,
            "embedding_spectrum": of_spectrum,
            "embedding_image": of_image,
        }

    @torch.inference_mode()
    def _spectra(self, spectra: Spectra) -> np.ndarray:
        shape = self._model.config.spectrum
        patched = patchify(spectra, shape.patch, shape.width)
        found = np.full((len(patched), self._model.config.size), np.nan, np.float32)
        features = brightness_features(patched)
        for rows, batch in in_batches(patched, self.batch_size, self.device):
            brightness = torch.zeros(len(batch.valid), features.shape[1], device=self.device)
            brightness[: len(rows)] = features[rows].to(self.device)
            with self._arithmetic():
                _, vector = self._model.see_spectra(batch, brightness)
            found[rows] = _unit(vector[: len(rows)].cpu().numpy())
        return found

    @torch.inference_mode()
    def _images(self, images: Images) -> np.ndarray:
        found = np.full((len(images), self._model.config.size), np.nan, np.float32)
        for begin in range(0, len(images), self.batch_size):
            part = read_images(images.rows(begin, begin + self.batch_size))
            rows = begin + np.flatnonzero(part.valid.any(dim=1).numpy())
            missing = self.batch_size - len(part.valid)
            filled = [torch.cat([one, one[:1].expand(missing, *one.shape[1:])]) for one in part]
            with self._arithmetic():
                *_, vector = self._model.see_images(type(part)(*filled).to(self.device))
            found[rows] = _unit(vector.cpu().numpy())[rows - begin]
        return found


def _unit(vector: np.ndarray) -> np.ndarray:
    """Vectors of length 1; NaN where the network gave nothing finite."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        unit = vector / np.linalg.norm(vector, axis=1, keepdims=True)
    return np.where(np.isfinite(unit).all(axis=1, keepdims=True), unit, np.float32(np.nan))
