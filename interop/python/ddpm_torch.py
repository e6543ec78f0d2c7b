"""Models of ddpm in plain PyTorch: loads a model folder, of any architecture, evaluates its network, and saves it.

    denoiser = Denoiser("runs/train/model")
    prediction = denoiser(x_t, t, classes)     # x_t [B, rows * cols], t and classes [B] -> [B, rows * cols]
    denoiser.save("mine")                      # a model folder again: ddpm-cli sample --model mine

The prediction is the quantity of `denoiser.config["parameterization"]`: x_0 (`sample`), the noise (`epsilon`) or v. With
diffusers, load the schedule with the same prediction type:

    DDPMScheduler.from_pretrained(folder, subfolder="scheduler", prediction_type=denoiser.config["parameterization"])
"""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import embedding, linear, one_hot, pad, silu


class Denoiser(nn.Module):
    """The network in the subfolder `part` of a model folder: `denoiser`, or `guide` if the model has one."""

    def __init__(self, folder: str | Path, part: str = "denoiser"):
        super().__init__()
        paths = ["model_index.json", "scheduler/scheduler_config.json", f"{part}/config.json"]
        self.index, self.schedule, self.config = (json.loads((Path(folder) / path).read_text()) for path in paths)
        weights = load_file(Path(folder) / part / "diffusion_pytorch_model.safetensors")
        self.names = list(weights)
        for name, tensor in weights.items():
            self.register_parameter(name.replace(".", "_"), nn.Parameter(tensor.float()))
        self.null_class = self.config["num_classes"]
        network = self.config["network"]
        self.patch = network.get("patch", max(self.config["rows"], self.config["cols"]))

    def save(self, folder: str | Path):
        """Writes a model folder with the same names and the same schedule, and without a guide."""
        index = {key: value for key, value in self.index.items() if key != "guide"}
        (Path(folder) / "scheduler").mkdir(parents=True, exist_ok=True)
        (Path(folder) / "denoiser").mkdir(exist_ok=True)
        (Path(folder) / "model_index.json").write_text(json.dumps(index))
        (Path(folder) / "scheduler/scheduler_config.json").write_text(json.dumps(self.schedule))
        (Path(folder) / "denoiser/config.json").write_text(json.dumps(self.config))
        weights = {name: getattr(self, name.replace(".", "_")).detach().contiguous() for name in self.names}
        save_file(weights, Path(folder) / "denoiser/diffusion_pytorch_model.safetensors")

    def layer(self, name: str, x: Tensor) -> Tensor:
        name = name.replace(".", "_")
        return linear(x, getattr(self, f"{name}_weight"), getattr(self, f"{name}_bias"))

    def sinusoids(self, t: Tensor) -> Tensor:
        half = (self.config["network"]["embedding"] + 1) // 2
        frequencies = 10_000.0 ** (-torch.arange(half, dtype=torch.float64, device=t.device) / half)
        angles = 1000 / self.schedule["num_train_timesteps"] * t.double()[:, None] * frequencies
        return torch.cat([angles.sin(), angles.cos()], 1).float()

    def patches(self, x: Tensor) -> Tensor:
        """[B, rows * cols] -> [B, patches, patch * patch]; patches past the edge are filled up with zeros."""
        rows, cols, p = self.config["rows"], self.config["cols"], self.patch
        x = pad(x.view(-1, rows, cols), (0, -cols % p, 0, -rows % p))
        x = x.view(len(x), x.shape[1] // p, p, x.shape[2] // p, p)
        return x.transpose(2, 3).reshape(len(x), -1, p * p)

    def image(self, patches: Tensor) -> Tensor:
        rows, cols, p = self.config["rows"], self.config["cols"], self.patch
        down, across = -(-rows // p), -(-cols // p)
        x = patches.view(-1, down, across, p, p).transpose(2, 3).reshape(-1, down * p, across * p)
        return x[:, :rows, :cols].reshape(len(x), -1)

    def residual(self, x: Tensor, condition: Tensor) -> Tensor:
        for block in range(self.config["network"]["blocks"]):
            inner = self.layer(f"blocks.{block}.in", x) + self.layer(f"blocks.{block}.condition", condition)
            x = x + self.layer(f"blocks.{block}.out", silu(inner))
        return silu(x)

    def forward(self, x_t: Tensor, t: Tensor, classes: Tensor | None = None) -> Tensor:
        """The network's output; without classes, that of the null class."""
        classes = torch.full_like(t, self.null_class) if classes is None else classes
        kind, patches, time = self.config["network"]["type"], self.patches(x_t), self.sinusoids(t)
        if kind == "plain":
            x = torch.cat([patches.flatten(1), time, one_hot(classes, self.null_class + 1).float()], 1)
            for index in range(self.config["network"]["layers"]):
                x = silu(self.layer(f"layers.{index}", x))
            return self.image(self.layer("output", x))
        time = self.layer("time.1", silu(self.layer("time.0", time)))
        condition = silu(time + embedding(classes, self.class_weight))
        if kind == "mlp":
            x = self.residual(self.layer("input", patches.flatten(1)), condition)
            return self.image(self.layer("output", x))
        code = self.layer("encode.in", patches) + self.layer("encode.condition", condition)[:, None]
        code = self.layer("encode.out", silu(code)).flatten(1)
        x = self.layer("expand", self.residual(self.layer("input", code), condition))
        x = torch.cat([x.view(len(x), patches.shape[1], -1), patches], 2)
        x = silu(self.layer("decode.in", x) + self.layer("decode.condition", condition)[:, None])
        return self.image(self.layer("output", silu(self.layer("decode.inner", x))))
