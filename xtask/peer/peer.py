"""The PyTorch side of `cargo xtask bench --peer`; README.md says what it measures and why so.

It reads the name of a job from each line and answers with a line of JSON. The first request of a job
builds it in several ways, as an expert might, and measures them; the fastest then does the work.
"""

import argparse
import gzip
import json
import os
import statistics
import sys
import time
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

MNIST = Path(__file__).resolve().parents[2] / "assets" / "mnist"
PIXELS, EMBEDDING, CLASSES, WIDTH, STEPS = 784, 64, 10, 1024, 20
GEMM = 2048
# Inputs and outputs of each layer. The first one sees x_t, the sinusoids of t and the class (or none).
FIRST = PIXELS + EMBEDDING + CLASSES + 1
LAYERS = [(FIRST, WIDTH), (WIDTH, WIDTH), (WIDTH, WIDTH), (WIDTH, PIXELS)]
CLASS_DROPOUT, LEARNING_RATE, EMA_DECAY = 0.1, 1e-3, 0.999

BETAS = torch.linspace(0.001, 0.7, STEPS, dtype=torch.float64)
ALPHAS_CUMPROD = (1 - BETAS).cumprod(0)
SIGNAL, NOISE = ALPHAS_CUMPROD.sqrt().float(), (1 - ALPHAS_CUMPROD).sqrt().float()
ONE_HOT = torch.eye(CLASSES + 1)


def sinusoids() -> Tensor:
    """The embedding of every timestep, [STEPS, EMBEDDING]."""
    half = EMBEDDING // 2
    frequencies = 1000 / STEPS * 10_000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = torch.arange(STEPS, dtype=torch.float64)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1).float()


def posterior() -> Tensor:
    """The factors of x_0, of x_t and of noise in a step of ancestral sampling, [STEPS, 3]."""
    before = torch.cat([torch.ones(1, dtype=torch.float64), ALPHAS_CUMPROD[:-1]])
    x_start = before.sqrt() * BETAS / (1 - ALPHAS_CUMPROD)
    x_t = (1 - BETAS).sqrt() * (1 - before) / (1 - ALPHAS_CUMPROD)
    sigma = ((1 - before) / (1 - ALPHAS_CUMPROD) * BETAS).sqrt()
    return torch.stack([x_start, x_t, sigma], 1).float()


TIMES, FACTORS = sinusoids(), posterior()


class Network(nn.Module):
    """Linear layers and SiLU in a chain; puts out x_0."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(*shape) for shape in LAYERS)
        for layer in self.layers:
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = functional.silu(layer(x))
        return self.layers[-1](x)


class Data:
    """MNIST as bytes in memory, in an order that is shuffled anew for each epoch."""

    def __init__(self):
        images = gzip.decompress((MNIST / "train-images-idx3-ubyte.gz").read_bytes())[16:]
        labels = gzip.decompress((MNIST / "train-labels-idx1-ubyte.gz").read_bytes())[8:]
        self.images = torch.frombuffer(bytearray(images), dtype=torch.uint8).view(-1, PIXELS)
        self.labels = torch.frombuffer(bytearray(labels), dtype=torch.uint8).long()
        self.order, self.at = torch.randperm(len(self.images)), 0

    def next(self, batch: int) -> Tensor:
        if self.at + batch > len(self.order):
            self.order, self.at = torch.randperm(len(self.images)), 0
        self.at += batch
        return self.order[self.at - batch : self.at]


class Training:
    """Whole training steps: gathering, noise, forward, backward, AdamW, moving average."""

    def __init__(self, data: Data, batch: int, compiled: tuple[str, ...]):
        self.data, self.batch = data, batch
        self.network = Network()
        self.weights = list(self.network.parameters())
        self.average = [weight.detach().clone() for weight in self.weights]
        # The fused optimiser is one kernel; to be compiled it has to be tensor operations.
        kind = {"foreach": True} if "update" in compiled else {"fused": True}
        self.optimizer = torch.optim.AdamW(self.weights, LEARNING_RATE, weight_decay=0.0, **kind)
        self.eps = torch.empty(batch, PIXELS)
        for part in compiled:
            setattr(self, part, torch.compile(getattr(self, part), dynamic=False))
        self.work(3)

    def loss(self, pixels: Tensor, eps: Tensor, t: Tensor, classes: Tensor) -> Tensor:
        x_start = pixels.float() / 127.5 - 1
        x_t = SIGNAL[t, None] * x_start + NOISE[t, None] * eps
        output = self.network(torch.cat([x_t, TIMES[t], ONE_HOT[classes]], 1))
        return functional.mse_loss(output, x_start)

    def update(self):
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.weights, 1 - EMA_DECAY)

    def work(self, times: int) -> dict:
        for _ in range(times):
            indices = self.data.next(self.batch)
            dropped = torch.rand(self.batch) < CLASS_DROPOUT
            classes = self.data.labels[indices].masked_fill(dropped, CLASSES)
            t = torch.randint(STEPS, (self.batch,))
            loss = self.loss(self.data.images[indices], self.eps.normal_(), t, classes)
            loss.backward()
            self.update()
            self.optimizer.zero_grad()
        return {"loss": loss.item()}


class Sampling:
    """Ancestral sampling with the posterior's noise, in all steps, without guidance."""

    def __init__(self, batch: int, dynamic: bool | None, options: dict | None):
        self.batch = batch
        network = Network().requires_grad_(False).eval()
        # What timestep and class add to the first layer is the same in every run: a table for each step.
        first, one_hot = network.layers[0], ONE_HOT[torch.arange(batch) % CLASSES]
        self.first = nn.Linear(PIXELS, WIDTH, bias=False).requires_grad_(False)
        self.first.weight.copy_(first.weight[:, :PIXELS])
        self.rest = network.layers[1:]
        added = [torch.cat([time.expand(batch, -1), one_hot], 1) for time in TIMES]
        added = [functional.linear(x, first.weight[:, PIXELS:], first.bias) for x in added]
        self.tables = list(zip(added, FACTORS))
        self.eps = torch.empty(batch, PIXELS)
        if options is not None:
            self.denoise = torch.compile(self.denoise, dynamic=dynamic, options=options)
        # Weights are frozen only where the configuration says so, too.
        with torch._inductor.config.patch(options or {}):
            self.work(3)

    def denoise(self, x_t: Tensor, eps: Tensor, added: Tensor, factors: Tensor) -> Tensor:
        x = self.first(x_t) + added
        for layer in self.rest:
            x = layer(functional.silu(x))
        x_start = x.clamp(-1, 1)
        return factors[0] * x_start + factors[1] * x_t + factors[2] * eps

    @torch.inference_mode()
    def work(self, times: int) -> dict:
        for _ in range(times):
            x_t = torch.randn(self.batch, PIXELS)
            for t in reversed(range(STEPS)):
                # The factor of the last step's noise is 0.
                eps = self.eps.normal_() if t > 0 else self.eps
                x_t = self.denoise(x_t, eps, *self.tables[t])
        return {}


class Product:
    """A large product of matrices: with that of the other side, the peak of the machine."""

    def __init__(self, dynamic: bool | None, options: dict | None):
        self.matrix = nn.Linear(GEMM, GEMM, bias=False).requires_grad_(False).eval()
        self.x = torch.randn(GEMM, GEMM)
        if options is not None:
            self.matrix = torch.compile(self.matrix, dynamic=dynamic, options=options)
        with torch._inductor.config.patch(options or {}):
            self.work(3)

    @torch.inference_mode()
    def work(self, times: int) -> dict:
        for _ in range(times):
            self.matrix(self.x)
        return {}


TRAINING = {
    "eager": (),
    "torch.compile of the loss": ("loss",),
    "torch.compile of the loss and the update": ("loss", "update"),
}
# With frozen weights of a fixed batch size the compiler takes MKL or, by max-autotune, kernels of its
# own; only for a dynamic one it takes oneDNN, which is faster than MKL on some processors.
SAMPLING = {
    "eager": (None, None),
    "torch.compile": (False, {}),
    "torch.compile, frozen, max-autotune": (False, {"freezing": True, "max_autotune": True}),
    "torch.compile, frozen, dynamic": (True, {"freezing": True}),
}


class Job:
    """`times` times a batch is measured, `trial` times to choose among the candidates."""

    def __init__(self, candidates: dict, batch: int, times: int, trial: int, flops: int):
        self.candidates, self.batch, self.times, self.trial = candidates, batch, times, trial
        self.size = {"images": times * batch, "flops": times * batch * flops}
        self.chosen = None

    def measure(self) -> dict:
        if self.chosen is None:
            self.choose()
        seconds, extra = timed(self.chosen, self.times)
        return {"seconds": seconds} | self.size | extra | self.choice

    def choose(self):
        ready, failed = {}, {}
        for name, build in self.candidates.items():
            try:
                ready[name] = build()
            except Exception as error:  # noqa: BLE001 - the compiler raises all kinds
                failed[name] = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        rounds = [{name: timed(it, self.trial)[0] for name, it in ready.items()} for _ in range(5)]
        medians = {name: statistics.median(round_[name] for round_ in rounds) for name in ready}
        best = min(medians, key=medians.get)
        self.chosen = ready[best]
        speeds = {name: round(self.batch * self.trial / medians[name]) for name in ready}
        self.choice = {"variant": best, "images_per_second": speeds, "failed": failed}


def timed(candidate: Training | Sampling | Product, times: int) -> tuple[float, dict]:
    began = time.perf_counter()
    extra = candidate.work(times)
    return time.perf_counter() - began, extra


def jobs() -> dict[str, Job]:
    data = Data()
    forward = sum(2 * inputs * outputs for inputs, outputs in LAYERS)
    # Gradients of all weights, and of the inputs of all layers but the first.
    step = 3 * forward - 2 * FIRST * WIDTH

    def training(batch: int, *counts: int) -> Job:
        build = {name: partial(Training, data, batch, how) for name, how in TRAINING.items()}
        return Job(build, batch, *counts, step)

    def sampling(batch: int, *counts: int) -> Job:
        build = {name: partial(Sampling, batch, *how) for name, how in SAMPLING.items()}
        # Of the first layer, only the part of the image is computed in each step.
        per_step = forward - 2 * (FIRST - PIXELS) * WIDTH
        return Job(build, batch, *counts, STEPS * per_step)

    product = {name: partial(Product, *how) for name, how in SAMPLING.items()}
    return {
        "gemm": Job(product, GEMM, 1, 2, 2 * GEMM * GEMM),
        "train-128": training(128, 80, 20),
        "train-512": training(512, 25, 6),
        "sample-1000": sampling(1000, 1, 1),
        "sample-50": sampling(50, 10, 5),
        "sample-1": sampling(1, 50, 25),
    }


def main():
    parser = argparse.ArgumentParser(description="Serves measurements; see README.md.")
    parser.add_argument("--threads", type=int, required=True)
    threads = parser.parse_args().threads
    # Standard output is for answers alone; whatever libraries print goes to standard error.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    torch._dynamo.config.recompile_limit = 64  # A program for each batch size and candidate.
    parameters = sum(inputs * outputs + outputs for inputs, outputs in LAYERS)
    info = {"name": "PyTorch", "version": torch.__version__, "threads": torch.get_num_threads()}
    known = jobs()
    for line in sys.stdin:
        name = line.strip()
        answer = info | {"parameters": parameters} if name == "info" else known[name].measure()
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
