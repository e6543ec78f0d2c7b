"""Trains the architecture of a model from random weights in plain PyTorch and saves it as a model folder:

    python3 interop/python/train.py MODEL IMAGES.npz STEPS OUT
"""

import sys

import numpy
import torch
from ddpm_torch import Denoiser
from diffusers import DDPMScheduler
from report import row

model, data, steps, out = sys.argv[1], numpy.load(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
images = torch.from_numpy(data["images"]).float().flatten(1) / 127.5 - 1
labels = torch.from_numpy(data["labels"]).long()
torch.manual_seed(1)
denoiser = Denoiser(model)
assert denoiser.config["parameterization"] == "sample", "the loss below is that of x_0"
for weight in denoiser.parameters():
    torch.nn.init.normal_(weight, std=weight.shape[-1] ** -0.5) if weight.dim() > 1 else torch.nn.init.zeros_(weight)

scheduler = DDPMScheduler.from_pretrained(model, subfolder="scheduler")
optimizer = torch.optim.Adam(denoiser.parameters(), lr=1e-3)
losses = []
for _ in range(steps):
    batch = torch.randint(len(images), (256,))
    t = torch.randint(scheduler.config.num_train_timesteps, (256,))
    noise = torch.randn(256, images.shape[1])
    prediction = denoiser(scheduler.add_noise(images[batch], noise, t), t, labels[batch])
    loss = (prediction - images[batch]).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())

denoiser.save(out)
first, last = losses[0], numpy.mean(losses[-20:])
assert last < first / 2, f"the loss went from {first} to {last}"
measure = f"{steps} steps of Adam from random weights"
row("a model trained in PyTorch", measure, f"squared error of x₀ from {first:.2f} to {last:.3f}; `{out}`")
