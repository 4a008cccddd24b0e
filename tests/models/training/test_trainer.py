"""The time of a training is that of its steps."""

import time

import pytest
import torch

from ojala.models.ojala.training import OjalaTraining
from ojala.models.training.trainer import Trainer

pytestmark = pytest.mark.processor


def test_a_first_step_that_compiles_does_not_use_up_the_time(tmp_path):
    settings = OjalaTraining(name="toy", minutes=0.2 / 60, steps=10**6)
    trainer = Trainer(torch.nn.Linear(2, 1), settings, ("weight",))

    def steps():
        while True:
            time.sleep(0.3 if trainer.step == 0 else 0.001)
            trainer.optimizer_step([(trainer.model(torch.ones(1, 2)).sum(), {})])
            yield {"loss": {}}

    trainer.run(tmp_path, steps(), lambda model: {}, lambda path, model, summary: path.touch())
    assert trainer.step > 1
    assert trainer.seconds >= 0.2
