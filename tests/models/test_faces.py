"""Every model's package has the same public names, imported on use."""

import importlib
import subprocess
import sys

import pytest

from ojala.models import WEIGHTS_FOLDER, checkpoint
from ojala.models.checkpoint import MODELS, WeightsError
from ojala.models.serving.predictor import BasePredictor
from ojala.models.training.settings import TrainingSettings

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("model", MODELS)
def test_every_model_has_the_same_public_names(model):
    package = importlib.import_module(f"ojala.models.{model}")
    assert package.__all__ == ["Network", "Predictor", "Settings", "load", "save", "train"]
    assert issubclass(package.Predictor, BasePredictor)
    assert issubclass(package.Settings, TrainingSettings)
    network, info = package.load(WEIGHTS_FOLDER / package.Predictor.WEIGHTS)
    assert isinstance(network, package.Network)
    assert callable(package.train)
    name, same, _ = checkpoint.load(WEIGHTS_FOLDER / package.Predictor.WEIGHTS)
    assert (name, type(same)) == (model, package.Network)
    assert info.training["config"]["ema_decay"] > 0.9, "settings have their present names"
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = package.Nothing


def test_weights_of_no_model_are_refused(tmp_path):
    checkpoint.write_tensors(tmp_path / "x.safetensors", {}, {"format": "other/1"})
    with pytest.raises(WeightsError, match="format is 'other/1', this program reads 'avis-weights/1'"):
        checkpoint.load(tmp_path / "x.safetensors")


def test_predictors_import_no_training():
    """Nor does the import of a package import torch."""
    code = (
        "import sys, ojala.models.ojala; assert 'torch' not in sys.modules\n"
        "from ojala.models import avis, ojala, specpt, spectral_tokenizer\n"
        "for package in (avis, ojala, specpt, spectral_tokenizer): package.Predictor\n"
        "found = [name for name in sys.modules if name.startswith('ojala.') and 'training' in name]\n"
        "sys.exit(' '.join(found) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
