"""Networks in these tests are tiny: threads would only wait for each other, all the more beside other work."""

import torch

torch.set_num_threads(1)
