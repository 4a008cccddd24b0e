"""Model specification: which weights, heads and atlas a worker loads, and their hashes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ojala.catalogs_schema.errors import InputError
from ojala.catalogs_schema.finetuned import FinetunedHead
from ojala.pipeline.inference.adapters.base import Model
from ojala.pipeline.inference.adapters.empty import EMPTY, DummyModel
from ojala.pipeline.inference.adapters.registry import ADAPTERS


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """How to load a model; travels to the workers instead of the model.

    Attributes
    ----------
    name : str
        One of `ojala.pipeline.inference.adapters.registry.ADAPTERS`.
    weights : str
        Path of the weights; not used by ``empty``.
    device : str
        Torch device.
    precision : str
        ``fp32`` or ``bf16``.
    batch_size : int
        Objects per forward pass.
    sha256 : str
        SHA-256 that the weights must have; empty if any will do.
    heads : tuple of (str, str), or None
        Names and SHA-256 of the heads that must be found; None if any will do.
    own_heads : tuple of str
        Paths of heads besides those that lie beside the weights.
    atlas : str
        Path of the atlas that embeddings are placed in; empty for none.
    atlas_sha256 : str
        SHA-256 that the atlas must have; empty if any will do.
    vectors : bool
        Whether large products are wanted too, such as redshift PDFs.
    """

    name: str
    weights: str
    device: str = "cpu"
    precision: Literal["fp32", "bf16"] = "fp32"
    batch_size: int = 128
    sha256: str = ""
    heads: tuple[tuple[str, str], ...] | None = None
    own_heads: tuple[str, ...] = ()
    atlas: str = ""
    atlas_sha256: str = ""
    vectors: bool = True

    def load(self) -> Model:
        """The model, ready to predict.

        Raises
        ------
        InputError
            If there is no model of that name, the weights are not its own or not those that are wanted, or
            there is no such device here.
        """
        require_device(self.device)
        if self.name not in ADAPTERS:
            raise InputError(f"there is no model {self.name!r}: choose from {', '.join(ADAPTERS)}")
        model = ADAPTERS[self.name].load(self)
        if self.name != EMPTY:
            self._require(model.weights_sha256)
        return model

    def weights_sha256(self) -> str:
        """Hash of the weights, without loading the model.

        Raises
        ------
        InputError
            If they are not those that are wanted.
        """
        if self.name == EMPTY:
            return DummyModel.weights_sha256
        found = hashlib.sha256(Path(self.weights).read_bytes()).hexdigest()
        self._require(found)
        return found

    def found_atlas(self) -> str:
        """SHA-256 of the atlas; empty if there is none.

        Raises
        ------
        ojala.models.checkpoint.WeightsError
            If the file is no atlas, or one of other weights.
        """
        if not self.atlas:
            return ""
        from ojala.models.avis.atlas import read_atlas

        return read_atlas(Path(self.atlas), self.weights_sha256()).sha256

    def found_heads(self) -> tuple[tuple[str, str], ...]:
        """Names and SHA-256 of the heads: those beside the weights that belong to them, and one's own."""
        if self.name != "ojala":
            return ()
        from ojala.models.ojala.heads import heads_beside

        beside = heads_beside(Path(self.weights), self.weights_sha256)
        found = [(name, hashlib.sha256(path.read_bytes()).hexdigest()) for name, path in beside.items()]
        return (*found, *((head.name, head.sha256) for head in self.described_heads()))

    def described_heads(self) -> tuple[FinetunedHead, ...]:
        """What one's own heads say of their quantities.

        Raises
        ------
        ojala.models.checkpoint.WeightsError
            If one of the files is no head, or belongs to other weights.
        """
        if not self.own_heads:
            return ()
        from ojala.models.ojala.heads import load_head

        base = self.weights_sha256()
        heads = [load_head(Path(path), base) for path in self.own_heads]
        return tuple(
            FinetunedHead(
                name=head.tuning.name,
                unit=head.tuning.unit,
                ucd=head.tuning.ucd,
                description=head.tuning.description,
                object_class=head.tuning.object_class,
                sha256=head.sha256,
            )
            for head in heads
        )

    def _require(self, found: str) -> None:
        if self.sha256 and found != self.sha256:
            raise InputError(
                f"{self.weights}: SHA-256 is {found}, wanted are the weights {self.sha256}: fetch those, or "
                "take weights_sha256 out of the configuration to use these"
            )


def require_device(device: str) -> None:
    """Refuse a device that torch cannot use here.

    Raises
    ------
    InputError
        Says why, and what to do.
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
    raise InputError(f"device cuda: {why}, or run on processors with --engine local")
