"""Registry of the models: the only place where their names stand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from ojala.pipeline.inference.adapters.base import ModelAdapter, ModelError


class AdapterRegistry(Mapping[str, ModelAdapter[Any]]):
    """Adapters by the name of their model, each imported when it is first asked for.

    Parameters
    ----------
    classes : dict of str to str
        Name of the model to ``module:Class`` of its adapter; an entry added later counts at once.
    """

    def __init__(self, classes: dict[str, str]) -> None:
        self.classes = classes

    def __getitem__(self, name: str) -> ModelAdapter[Any]:
        module, _, adapter = self.classes[name].partition(":")
        made: ModelAdapter[Any] = getattr(import_module(module), adapter)()
        return made

    def __contains__(self, name: object) -> bool:
        return name in self.classes

    def __iter__(self) -> Iterator[str]:
        return iter(self.classes)

    def __len__(self) -> int:
        return len(self.classes)

    def find(self, name: str) -> ModelAdapter[Any]:
        """Adapter of a model.

        Raises
        ------
        ModelError
            If there is none of that name; lists the names.
        """
        if name not in self:
            raise ModelError(f"there is no model {name!r}: choose from {', '.join(self)}")
        return self[name]

    def of_product(self, product: str) -> ModelAdapter[Any]:
        """Adapter of the first model that has a product of that name.

        Raises
        ------
        ModelError
            If none has; lists the products.
        """
        for adapter in self.values():
            if product in adapter.product_names:
                return adapter
        raise ModelError(f"there is no product {product!r}: choose from {', '.join(self.products())}")

    def products(self) -> tuple[str, ...]:
        """Names of the products of all models."""
        return tuple(dict.fromkeys(name for adapter in self.values() for name in adapter.product_names))


ADAPTERS = AdapterRegistry(
    {
        "ojala": "ojala.pipeline.inference.adapters.ojala:OjalaAdapter",
        "ojala-published": "ojala.pipeline.inference.adapters.ojala_published:PublishedAdapter",
        "ojala-published-bias": "ojala.pipeline.inference.adapters.ojala_published:PublishedBiasAdapter",
        "empty": "ojala.pipeline.inference.adapters.dummy:DummyAdapter",
        "specpt": "ojala.pipeline.inference.adapters.specpt:SpecPTAdapter",
        "spectral-tokenizer": "ojala.pipeline.inference.adapters.spectral_tokenizer:SpectralTokenizerAdapter",
        "avis": "ojala.pipeline.inference.adapters.avis:AvisAdapter",
    }
)
"""All models; the first is the default."""

DEFAULT_MODEL = next(iter(ADAPTERS))
"""Model of a run that names none."""
