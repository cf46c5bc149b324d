"""What all tests share: one thread per worker, so that bits and speed do not depend on the machine's load."""

import torch

torch.set_num_threads(1)
