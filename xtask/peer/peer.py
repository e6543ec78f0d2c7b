"""The PyTorch side of `cargo xtask bench --peer`; see README.md.

`bench.py` requests one measurement at a time. At the first request for a kind of work, this module builds several
variants, as an expert might, and measures them. The fastest variant then does the work.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import silu

SIDE, CLASSES, STEPS = 28, 10, 20
PIXELS = SIDE * SIDE
COND_DROP_PROB, LEARNING_RATE, EMA_DECAY = 0.1, 5e-4, 0.9995
# As in `ddpm-cli bench`: number of training images, seconds of a measurement.
IMAGES, PIECE = 10_000, 0.5

BETAS = torch.linspace(0.001, 0.7, STEPS, dtype=torch.float64)
ALPHAS_CUMPROD = (1 - BETAS).cumprod(0)
BEFORE = torch.cat([torch.ones(1, dtype=torch.float64), ALPHAS_CUMPROD[:-1]])
SIGNAL, NOISE = ALPHAS_CUMPROD.sqrt().float(), (1 - ALPHAS_CUMPROD).sqrt().float()
WEIGHTS = (ALPHAS_CUMPROD / (1 - ALPHAS_CUMPROD)).clamp(1, 5).float()
# A step of ancestral sampling adds x_0, x_t and noise with these factors, [STEPS, 3].
VARIANCE = (1 - BEFORE) / (1 - ALPHAS_CUMPROD) * BETAS
X_START = BEFORE.sqrt() * BETAS / (1 - ALPHAS_CUMPROD)
X_T = (1 - BETAS).sqrt() * (1 - BEFORE) / (1 - ALPHAS_CUMPROD)
FACTORS = torch.stack([X_START, X_T, VARIANCE.sqrt()], 1).float()


def sinusoids(width: int) -> Tensor:
    """The sinusoidal embedding of every timestep, [STEPS, width]."""
    half = width // 2
    frequencies = 1000 / STEPS * 10_000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = torch.arange(STEPS, dtype=torch.float64)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1).float()


class Plain(nn.Module):
    """A chain of linear layers and SiLU; its input is x_t, the sinusoids of t and the one-hot class, concatenated."""

    WIDTH, EMBEDDING = 1024, 64
    INPUTS = PIXELS + EMBEDDING + CLASSES + 1

    def __init__(self):
        super().__init__()
        widths = [self.INPUTS, self.WIDTH, self.WIDTH, self.WIDTH, PIXELS]
        self.layers = nn.ModuleList(nn.Linear(*shape) for shape in zip(widths, widths[1:]))
        self.times, self.one_hot = sinusoids(self.EMBEDDING), torch.eye(CLASSES + 1)

    def flop(self) -> dict[str, int]:
        rest = sum(layer.weight.numel() for layer in self.layers[1:])
        predict, train = PIXELS * self.WIDTH + rest, 2 * self.INPUTS * self.WIDTH + 3 * rest
        return {"sample": 2 * STEPS * predict, "train": 2 * train}

    def forward(self, x_t: Tensor, t: Tensor, classes: Tensor) -> Tensor:
        x = torch.cat([x_t, self.times[t], self.one_hot[classes]], 1)
        for layer in self.layers[:-1]:
            x = silu(layer(x))
        return self.layers[-1](x)

    def conditions(self, t: int, classes: Tensor) -> list[Tensor]:
        """The contribution of t and class to the first layer."""
        first = self.layers[0]
        if not hasattr(self, "image"):
            self.image = nn.Linear(PIXELS, self.WIDTH, bias=False).requires_grad_(False)
            self.image.weight.copy_(first.weight[:, :PIXELS])
        x = torch.cat([self.times[t].expand(len(classes), -1), self.one_hot[classes]], 1)
        return [functional.linear(x, first.weight[:, PIXELS:], first.bias)]

    def denoise(self, x_t: Tensor, added: Tensor) -> Tensor:
        x = self.image(x_t) + added
        for layer in self.layers[1:]:
            x = layer(silu(x))
        return x


class PatchMlp(nn.Module):
    """The built-in model's network: a residual network between an encoder and a decoder that all patches share."""

    PATCH, LOCAL, CODE, WIDTH, HIDDEN, BLOCKS, EMBEDDING = 4, 128, 32, 512, 960, 2, 128
    ACROSS, PATCHES, AREA = SIDE // PATCH, (SIDE // PATCH) ** 2, PATCH**2

    def __init__(self):
        super().__init__()
        codes, embedding, local = self.PATCHES * self.CODE, self.EMBEDDING, self.LOCAL
        self.time = nn.Sequential(nn.Linear(embedding, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.classes = nn.Embedding(CLASSES + 1, embedding)
        self.encode_condition = nn.Linear(embedding, local)
        self.encode_in, self.encode_out = nn.Linear(self.AREA, local), nn.Linear(local, self.CODE)
        self.input, self.expand = nn.Linear(codes, self.WIDTH), nn.Linear(self.WIDTH, codes)
        self.block_condition, self.block_in, self.block_out = (
            nn.ModuleList(nn.Linear(*shape) for _ in range(self.BLOCKS))
            for shape in [(embedding, self.HIDDEN), (self.WIDTH, self.HIDDEN), (self.HIDDEN, self.WIDTH)]
        )
        self.decode_condition = nn.Linear(embedding, local)
        self.decode_in, self.decode_inner = nn.Linear(self.CODE + self.AREA, local), nn.Linear(local, local)
        self.output = nn.Linear(local, self.AREA)
        self.times = sinusoids(embedding)

    def flop(self) -> dict[str, int]:
        def size(*layers: nn.Linear) -> int:
            return sum(layer.weight.numel() for layer in layers)

        image = self.PATCHES * 2 * self.AREA * self.LOCAL  # The layers that read the image: encode_in and decode_in.
        code = size(self.encode_out, self.decode_inner, self.output) + self.CODE * self.LOCAL
        rest = self.PATCHES * code + size(self.input, self.expand, *self.block_in, *self.block_out)
        conditions = size(self.time[2], self.encode_condition, self.decode_condition, *self.block_condition)
        products = 3 * (rest + conditions)
        return {"sample": 2 * STEPS * (image + rest), "train": 2 * (2 * (image + size(self.time[0])) + products)}

    def conditions(self, t: int | Tensor, classes: Tensor) -> list[Tensor]:
        """The contribution of t and class to each layer."""
        condition = silu(self.time(self.times[t]) + self.classes(classes))
        blocks = [layer(condition) for layer in self.block_condition]
        return [self.encode_condition(condition)[:, None], *blocks, self.decode_condition(condition)[:, None]]

    def denoise(self, x_t: Tensor, encode: Tensor, *rest: Tensor) -> Tensor:
        *blocks, decode = rest
        across, patch = self.ACROSS, self.PATCH
        patches = x_t.view(-1, across, patch, across, patch).transpose(2, 3).reshape(-1, self.PATCHES, self.AREA)
        code = self.encode_out(silu(self.encode_in(patches) + encode))
        x = self.input(code.flatten(1))
        for inner, out, condition in zip(self.block_in, self.block_out, blocks):
            x = x + out(silu(inner(x) + condition))
        code = self.expand(silu(x)).view(-1, self.PATCHES, self.CODE)
        x = silu(self.decode_in(torch.cat([code, patches], 2)) + decode)
        patches = self.output(silu(self.decode_inner(x)))
        return patches.view(-1, across, across, patch, patch).transpose(2, 3).reshape(-1, PIXELS)

    def forward(self, x_t: Tensor, t: Tensor, classes: Tensor) -> Tensor:
        return self.denoise(x_t, *self.conditions(t, classes))


class Data:
    """Images of noise as bytes in memory, in an order that is shuffled for each epoch."""

    def __init__(self):
        self.images = torch.randint(256, (IMAGES, PIXELS), dtype=torch.uint8)
        self.labels = torch.arange(IMAGES) % CLASSES
        self.order, self.at = torch.randperm(IMAGES), 0

    def next(self, batch: int) -> Tensor:
        if self.at + batch > IMAGES:
            self.order, self.at = torch.randperm(IMAGES), 0
        self.at += batch
        return self.order[self.at - batch : self.at]


class Training:
    """Whole training steps: gathering, noise, forward, backward, AdamW, moving average."""

    def __init__(self, network: type, data: Data, batch: int, compiled: tuple[str, ...]):
        self.data, self.batch = data, batch
        self.network = network()
        self.weights = list(self.network.parameters())
        self.average = [weight.detach().clone() for weight in self.weights]
        # The fused optimiser is one kernel; to be compiled it has to be tensor operations.
        kind = {"foreach": True} if "update" in compiled else {"fused": True}
        self.optimizer = torch.optim.AdamW(self.weights, LEARNING_RATE, weight_decay=0.0, **kind)
        self.eps = torch.empty(batch, PIXELS)
        for part in compiled:
            setattr(self, part, torch.compile(getattr(self, part), dynamic=False))
        for _ in range(3):
            self.work()

    def loss(self, pixels: Tensor, eps: Tensor, t: Tensor, classes: Tensor) -> Tensor:
        x_start = pixels.float() / 127.5 - 1
        x_t = SIGNAL[t, None] * x_start + NOISE[t, None] * eps
        error = self.network(x_t, t, classes) - x_start
        return (WEIGHTS[t] * error.square().mean(1)).mean()

    def update(self):
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.weights, 1 - EMA_DECAY)

    def work(self):
        indices = self.data.next(self.batch)
        dropped = torch.rand(self.batch) < COND_DROP_PROB
        classes = self.data.labels[indices].masked_fill(dropped, CLASSES)
        t = torch.randint(STEPS, (self.batch,))
        loss = self.loss(self.data.images[indices], self.eps.normal_(), t, classes)
        loss.backward()
        self.update()
        self.optimizer.zero_grad()


class Sampling:
    """Ancestral sampling with variance fixed_small, in all steps, without guidance."""

    def __init__(self, network: type, batch: int, dynamic: bool | None, options: dict | None):
        self.batch = batch
        self.network = network().requires_grad_(False).eval()
        # The contribution of timestep and class is the same in every run: a table with an entry for each step.
        classes = torch.arange(batch) % CLASSES
        self.tables = [(self.network.conditions(t, classes), FACTORS[t]) for t in range(STEPS)]
        self.eps = torch.empty(batch, PIXELS)
        if options is not None:
            self.step = torch.compile(self.step, dynamic=dynamic, options=options)
        # Freezing also needs this setting of the configuration.
        with torch._inductor.config.patch(options or {}):
            for _ in range(3):
                self.work()

    def step(self, x_t: Tensor, eps: Tensor, conditions: list[Tensor], factors: Tensor) -> Tensor:
        x_start = self.network.denoise(x_t, *conditions).clamp(-1, 1)
        return factors[0] * x_start + factors[1] * x_t + factors[2] * eps

    @torch.inference_mode()
    def work(self):
        x_t = torch.randn(self.batch, PIXELS)
        for t in reversed(range(STEPS)):
            # The factor of the last step's noise is 0.
            eps = self.eps.normal_() if t > 0 else self.eps
            x_t = self.step(x_t, eps, *self.tables[t])


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


def per_second(work: Callable[[], None], items: int) -> float:
    """Repeats work for the time of a measurement; returns items per second."""
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < PIECE:
        work()
        done += items
    if torch.get_default_device().type == "cuda":
        torch.cuda.synchronize()
    return done / (time.perf_counter() - began)


class Job:
    """A kind of work with several variants, and the fastest of them."""

    def __init__(self, candidates: dict[str, Callable], items: int):
        self.candidates, self.items, self.chosen = candidates, items, None
        self.speeds, self.failed = {}, {}

    def measure(self) -> float:
        """Items per second in one measurement."""
        if self.chosen is None:
            self.choose()
        return per_second(self.chosen.work, self.items)

    def choose(self):
        ready = {}
        for name, build in self.candidates.items():
            try:
                ready[name] = build()
            except Exception as error:  # noqa: BLE001 - the compiler raises all kinds
                self.failed[name] = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        rounds = [{name: per_second(it.work, self.items) for name, it in ready.items()} for _ in range(5)]
        self.speeds = {name: statistics.median(round_[name] for round_ in rounds) for name in ready}
        self.variant = max(self.speeds, key=self.speeds.get)
        self.chosen = ready[self.variant]


class Peer:
    """Does the kinds of work of `ddpm-cli bench` with a network, `Plain` or `PatchMlp`."""

    def __init__(self, network: type):
        self.network, self.data, self.jobs = network, Data(), {}
        self.parameters = sum(weight.numel() for weight in network().parameters())
        self.flop = network().flop()

    def measure(self, work: str) -> dict:
        """The result of a kind of work, such as `train-128`, with the names of `ddpm-cli bench --json`."""
        kind, count = work.split("-")
        if work not in self.jobs:
            ways = TRAINING if kind == "train" else SAMPLING
            build = {"train": lambda *how: partial(Training, self.network, self.data, int(count), how),
                     "sample": lambda *how: partial(Sampling, self.network, int(count), *how)}[kind]
            self.jobs[work] = Job({name: build(*how) for name, how in ways.items()}, int(count))
        speed = self.jobs[work].measure()
        return {"images_per_second": speed, "flop_per_image": self.flop[kind]}


def start(threads: int):
    """Sets up PyTorch; call it once, before any measurement."""
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    torch._dynamo.config.recompile_limit = 64  # A program for each batch size and candidate.
