"""The same work as `ddpm-cli sample --sampler ddpm --guide-scale 1 --classes 0-9 --per-class 5`, in PyTorch: generates 50 digits and writes a PNG.

`cargo xtask bench --peer` measures the whole process, so the script imports and does only what is needed.
"""

import argparse
from pathlib import Path

import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor
from torch.nn.functional import linear, silu

MODEL = Path(__file__).resolve().parents[2] / "crates/ddpm-cli/assets/models/mnist"
WEIGHTS = MODEL / "denoiser" / "diffusion_pytorch_model.safetensors"
SIDE, STEPS, CLASSES, PER_CLASS, BLOCKS, GUIDANCE = 28, 20, 10, 5, 2, 1.5
PATCH, GUIDED = 4, range(4, 11)
SCALE, GAP, MARGIN = 3, 4, 12


def load() -> dict[str, Tensor]:
    with safe_open(WEIGHTS, framework="pt") as file:
        return {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118


def denoise(weights: dict[str, Tensor], x_t: Tensor, time: Tensor, classes: Tensor) -> Tensor:
    """The network's estimate of x_0: a residual network between an encoder and a decoder that all patches share."""

    def layer(name: str, x: Tensor) -> Tensor:
        return linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    time = layer("time.1", silu(layer("time.0", time)))
    condition = silu(time + weights["class.weight"][classes])
    across = SIDE // PATCH
    patches = x_t.view(-1, across, PATCH, across, PATCH).transpose(2, 3).flatten(3).flatten(1, 2)
    code = layer("encode.in", patches) + layer("encode.condition", condition)[:, None]
    x = layer("input", layer("encode.out", silu(code)).flatten(1))
    for block in range(BLOCKS):
        inner = layer(f"blocks.{block}.in", x) + layer(f"blocks.{block}.condition", condition)
        x = x + layer(f"blocks.{block}.out", silu(inner))
    code = layer("expand", silu(x)).view(len(x), across**2, -1)
    x = layer("decode.in", torch.cat([code, patches], 2)) + layer("decode.condition", condition)[:, None]
    x = layer("output", silu(layer("decode.inner", silu(x))))
    return x.view(-1, across, across, PATCH, PATCH).transpose(2, 3).reshape(-1, SIDE * SIDE)


def sample(weights: dict[str, Tensor]) -> Tensor:
    """Ancestral sampling with guidance and variance fixed_small; returns [50, 784] in [-1, 1]."""
    betas = torch.linspace(0.001, 0.7, STEPS, dtype=torch.float64)
    alphas_cumprod = (1 - betas).cumprod(0).tolist()
    half = weights["time.0.weight"].shape[1] // 2
    frequencies = 1000 / STEPS * 10_000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    classes = torch.arange(CLASSES).repeat_interleave(PER_CLASS)
    # With and without the class in one batch.
    both = torch.cat([classes, torch.full_like(classes, CLASSES)])
    x_t = torch.randn(len(classes), SIDE * SIDE)
    for t in reversed(range(STEPS)):
        time = torch.cat([(t * frequencies).sin(), (t * frequencies).cos()]).float()
        if t in GUIDED:
            with_class, without = denoise(weights, x_t.repeat(2, 1), time, both).chunk(2)
            x_start = torch.lerp(without, with_class, GUIDANCE).clamp(-1, 1)
        else:
            x_start = denoise(weights, x_t, time, classes).clamp(-1, 1)
        if t == 0:
            return x_start
        now, before, beta = alphas_cumprod[t], alphas_cumprod[t - 1], betas[t].item()
        x_t = x_t * ((1 - beta) ** 0.5 * (1 - before) / (1 - now))
        x_t.add_(x_start, alpha=before**0.5 * beta / (1 - now))
        x_t.add_(torch.randn_like(x_t), alpha=((1 - before) / (1 - now) * beta) ** 0.5)


def grid(images: Tensor) -> Image.Image:
    """A grid with a column for each class, enlarged pixels, and white space between and around the tiles."""
    pixels = ((images + 1) * 127.5).round().to(torch.uint8).view(CLASSES, PER_CLASS, SIDE, SIDE)
    pixels = pixels.repeat_interleave(SCALE, 2).repeat_interleave(SCALE, 3)
    tile = SCALE * SIDE + GAP
    page = torch.full((PER_CLASS * tile - GAP, CLASSES * tile - GAP), 255, dtype=torch.uint8)
    for column in range(CLASSES):
        for row in range(PER_CLASS):
            page[row * tile :, column * tile :][: tile - GAP, : tile - GAP] = pixels[column, row]
    page = torch.nn.functional.pad(page, [MARGIN] * 4, value=255)
    return Image.frombytes("L", (page.shape[1], page.shape[0]), page.numpy().tobytes())


def main():
    parser = argparse.ArgumentParser(description="Writes 50 generated digits as PNG.")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    with torch.inference_mode():
        images = sample(load())
    grid(images).save(arguments.out)


if __name__ == "__main__":
    main()
