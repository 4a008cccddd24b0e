"""Model specification: the files, device and arithmetic with which a worker loads a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ojala.pipeline.inference.adapters.base import WEIGHTS, Asset, Model, ModelAdapter, ModelError
from ojala.pipeline.inference.adapters.registry import ADAPTERS


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """How to load a model; travels to the workers instead of the model.

    Attributes
    ----------
    name : str
        Name of the model in `ojala.pipeline.inference.adapters.registry.ADAPTERS`.
    weights : str
        Path of the weights; not used by a model without.
    device : str
        Torch device.
    precision : str
        ``fp32`` or ``bf16``.
    batch_size : int
        Objects per forward pass.
    sha256 : str
        SHA-256 that the weights must have; empty if any will do.
    heads : tuple of str
        Paths of the user's fine-tuned heads.
    atlas : str
        Path of the atlas that embeddings are placed in; empty for none.
    extended : bool
        Whether predictions include those of the large products, such as redshift PDFs.
    bands : bool
        Whether predictions include the flux in each band.
    assets : tuple of (str, str), or None
        Role and SHA-256 of all files that the loaded model must be made from; None if any will do.
    options : tuple of str
        Choices among the adapter's ``options``, ``NAME=VALUE`` each, other than the defaults.
    """

    name: str
    weights: str
    device: str = "cpu"
    precision: Literal["fp32", "bf16"] = "fp32"
    batch_size: int = 128
    sha256: str = ""
    heads: tuple[str, ...] = ()
    atlas: str = ""
    extended: bool = True
    bands: bool = False
    assets: tuple[tuple[str, str], ...] | None = None
    options: tuple[str, ...] = ()

    @property
    def adapter(self) -> ModelAdapter[Any]:
        """Adapter of the model.

        Raises
        ------
        ModelError
            If there is no model of that name.
        """
        return ADAPTERS.find(self.name)

    @property
    def chosen_options(self) -> dict[str, str]:
        """`options` by name."""
        return dict(option.split("=", 1) for option in self.options)

    def load(self) -> Model:
        """Load the model.

        Raises
        ------
        ModelError
            If there is no model of that name, its files are not those wanted, or there is no such device
            here.
        """
        require_device(self.device)
        adapter = self.adapter
        model = adapter.load(self)
        self._require(adapter.loaded_assets(model))
        return model

    def read_assets(self) -> tuple[Asset, ...]:
        """Read and hash the files of the model, the weights first, without loading it.

        Raises
        ------
        ModelError
            If the weights are not those wanted.
        """
        assets = self.adapter.assets(self)
        self._require({asset.role: asset.sha256 for asset in assets})
        return assets

    def _require(self, found: Mapping[str, str]) -> None:
        if self.sha256 and found[WEIGHTS] != self.sha256:
            raise ModelError(
                f"{self.weights}: SHA-256 is {found[WEIGHTS]}, wanted are the weights {self.sha256}: fetch "
                "those, or take weights_sha256 out of the configuration to use these"
            )
        wanted = found if self.assets is None else dict(self.assets)
        for role in sorted(found.keys() | wanted.keys()):
            have, want = found.get(role, "none"), wanted.get(role, "none")
            if have != want:
                raise ModelError(
                    f"{self.weights}: SHA-256 of {role} is {have}, wanted is {want}: every worker needs the "
                    "same files"
                )


def require_device(device: str) -> None:
    """Refuse a device that torch cannot use here.

    Raises
    ------
    ModelError
        If there is no such device; gives the reason and a remedy.
    """
    if device != "cuda":
        return
    import torch

    if torch.cuda.is_available():
        return
    if torch.version.cuda is None:
        why = f"torch {torch.__version__} was built without CUDA: install PyPI's torch in its place"
    else:
        why = "torch finds no GPU: is one here, with its driver, and does CUDA_VISIBLE_DEVICES name it?"
    raise ModelError(f"device cuda: {why}, or run on processors with --engine local")
