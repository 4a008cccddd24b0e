"""Networks in these tests are tiny: threads would only wait for each other, more so beside other work."""

import torch

torch.set_num_threads(1)
