"""A model that kills its worker, as a fault of a driver does."""

import os
import signal

from ojala.pipeline.inference.adapters.dummy import DummyModel
from ojala.pipeline.inference.model_spec import ModelSpec


class Deadly(DummyModel):
    """Kills its own process when it meets one partition."""

    def __init__(self, rows):
        self._rows = rows

    def predict(self, flux, error, ebv):
        if len(flux) == self._rows:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().predict(flux, error, ebv)


class DeadlySpec(ModelSpec):
    """Loads the deadly model; its rows travel in the place of the batch size."""

    def load(self):
        return Deadly(self.batch_size)


def one_that_kills(tasks):
    """A task of a size that no other has, and a model that dies of it."""
    sizes = [task.rows for task in tasks]
    guilty = next(task for task in tasks if sizes.count(task.rows) == 1)
    return guilty, DeadlySpec("deadly", "", batch_size=guilty.rows)


class NeverLoaded(ModelSpec):
    """Kills the worker that loads it, as too little memory does."""

    def load(self):
        os.kill(os.getpid(), signal.SIGKILL)
