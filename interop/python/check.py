"""Compares `ddpm_torch.py` with outputs that `cargo run -p ddpm-model --example outputs` wrote:

    python3 interop/python/check.py MODEL OUTPUTS.safetensors …

Prints the largest difference of each pair, and fails if one is above 1e-5.
"""

import sys

import torch
from ddpm_torch import Denoiser
from report import row
from safetensors.torch import load_file

LIMIT = 1e-5

worst = 0.0
for model, outputs in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
    expected, denoiser = load_file(outputs), Denoiser(model)
    with torch.no_grad():
        found = denoiser(expected["x_t"], expected["t"].long(), expected["classes"].long())
    difference = (found - expected["output"]).abs().max().item()
    network, images = denoiser.config["network"]["type"], len(found)
    row(f"`{network}` in PyTorch", f"`{model}`, outputs for {images} images", f"largest difference {difference:.1e}")
    worst = max(worst, difference)
if worst > LIMIT:
    sys.exit(f"a difference of {worst:.1e}, expected at most {LIMIT:.0e}")
