"""Samples images with diffusers' DDPMScheduler and the network of a model in plain PyTorch, classes in turn, without
guidance:

    python3 interop/python/sample.py MODEL NUM_IMAGES SEED OUT.npz
"""

import sys

import numpy
import torch
from ddpm_torch import Denoiser
from diffusers import DDPMScheduler

model, count, seed, out = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
denoiser = Denoiser(model)
config = denoiser.config
scheduler = DDPMScheduler.from_pretrained(model, subfolder="scheduler", prediction_type=config["parameterization"])
scheduler.set_timesteps(scheduler.config.num_train_timesteps)

generator = torch.Generator().manual_seed(seed)
classes = torch.arange(count) % config["num_classes"]
x = torch.randn(count, config["rows"] * config["cols"], generator=generator)
with torch.no_grad():
    for t in scheduler.timesteps:
        output = denoiser(x, t.expand(count), classes)
        x = scheduler.step(output, t, x, generator=generator).prev_sample

pixels = ((x + 1) * 127.5).round().clamp(0, 255).byte().view(count, config["rows"], config["cols"])
numpy.savez(out, images=pixels.numpy(), labels=classes.byte().numpy())
