"""Predictor of AVIS: embeddings of pairs."""

from __future__ import annotations

import numpy as np
import torch

from ojala.models.avis.atlas import Atlas
from ojala.models.avis.checkpoint import FORMAT, AvisInfo
from ojala.models.avis.inputs import brightness_features, patchify_images
from ojala.models.avis.network import Avis
from ojala.models.data import Images, Pairs
from ojala.models.serving.precision import Precision
from ojala.models.serving.predictor import BasePredictor
from ojala.models.spectral_tokenizer.patches import batches_by_length, patchify


class AvisPredictor(BasePredictor):
    """Trained AVIS for inference.

    Spectra are batched by number of patches, in batches of a fixed size, so that the predictions of a row do
    not depend on other rows.

    Attributes
    ----------
    batch_size : int
        Rows per forward pass.
    atlas : Atlas or None
        Atlas in which the pipeline places the embeddings.
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
        """Compute embeddings of N pairs.

        Parameters
        ----------
        pairs : Pairs
            Spectra of any instruments, and images, of the same objects.

        Returns
        -------
        dict of str to ndarray of float32, shape (N, E)
            ``embedding_spectrum`` and ``embedding_image``, unit vectors: NaN without a readable patch of the
            spectrum, or a usable pixel of the image; ``embedding``, the direction of their weighted sum
            (`ojala.models.avis.network.AvisConfig.image_weight`), or the only one of them.
        """
        of_spectrum, of_image = self._spectra(pairs), self._images(pairs.images)
        has_spectrum = np.isfinite(of_spectrum[:, :1])
        joint = np.where(has_spectrum, of_spectrum, of_image)
        both = (has_spectrum & np.isfinite(of_image[:, :1])).ravel()
        weight = np.float32(self._model.config.image_weight)
        joint[both] = _unit(of_spectrum[both] + weight * of_image[both])
        return {
            "embedding": joint,
            "embedding_spectrum": of_spectrum,
            "embedding_image": of_image,
        }

    @torch.inference_mode()
    def _spectra(self, pairs: Pairs) -> np.ndarray:
        shape = self._model.config.spectrum
        patched = patchify(pairs.spectra, shape.patch, shape.width)
        vectors = np.full((len(patched), self._model.config.size), np.nan, np.float32)
        features = brightness_features(patched)
        if pairs.relative_flux is not None:
            features[torch.from_numpy(pairs.relative_flux)] = 0.0
        for rows, batch in batches_by_length(patched, self.batch_size, self.device):
            brightness = torch.zeros(len(batch.valid), features.shape[1], device=self.device)
            brightness[: len(rows)] = features[rows].to(self.device)
            with self._autocast():
                _, vector = self._model.encode_spectra(batch, brightness)
            vectors[rows] = _unit(vector[: len(rows)].cpu().numpy())
        return vectors

    @torch.inference_mode()
    def _images(self, images: Images) -> np.ndarray:
        vectors = np.full((len(images), self._model.config.size), np.nan, np.float32)
        for begin in range(0, len(images), self.batch_size):
            part = patchify_images(images.rows(begin, begin + self.batch_size))
            rows = begin + np.flatnonzero(part.valid.any(dim=1).numpy())
            missing = self.batch_size - len(part.valid)
            filled = [torch.cat([one, one[:1].expand(missing, *one.shape[1:])]) for one in part]
            with self._autocast():
                *_, vector = self._model.encode_images(type(part)(*filled).to(self.device))
            vectors[rows] = _unit(vector.cpu().numpy())[rows - begin]
        return vectors


def _unit(vector: np.ndarray) -> np.ndarray:
    """Normalise vectors; NaN where the output is not finite."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        unit = vector / np.linalg.norm(vector, axis=1, keepdims=True)
    return np.where(np.isfinite(unit).all(axis=1, keepdims=True), unit, np.float32(np.nan))
