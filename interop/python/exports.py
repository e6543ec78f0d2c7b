"""Reads images that `ddpm-cli export` wrote with NumPy, safetensors and Pillow, and compares them:

    python3 interop/python/exports.py FOLDER SAMPLE.png

FOLDER holds `test-images-idx3-ubyte`, `test-labels-idx1-ubyte`, `test.npz`, `test.safetensors` and the folder `pngs`. Also
writes FOLDER/python.npz, for `ddpm-cli import`, and reads the recipe of a picture of `ddpm-cli sample`.
"""

import json
import sys
from pathlib import Path

import numpy
from PIL import Image
from report import row
from safetensors.numpy import load_file

folder, sample = Path(sys.argv[1]), sys.argv[2]


def bytes_of(name: str) -> bytes:
    return (folder / name).read_bytes()


images = numpy.frombuffer(bytes_of("test-images-idx3-ubyte"), numpy.uint8, offset=16).reshape(-1, 28, 28)
labels = numpy.frombuffer(bytes_of("test-labels-idx1-ubyte"), numpy.uint8, offset=8)
measure = f"{len(images)} test images of MNIST, with labels"

for reader, arrays in [("numpy.load", numpy.load(folder / "test.npz")), ("safetensors", load_file(folder / "test.safetensors"))]:
    assert sorted(arrays) == ["images", "labels"], list(arrays)
    for name, expected in [("images", images), ("labels", labels)]:
        assert arrays[name].dtype == numpy.uint8 and numpy.array_equal(arrays[name], expected), (reader, name)
    row(f"exports read by {reader}", measure, "equal to the IDX files")

paths = sorted((folder / "pngs").glob("*/*.png"), key=lambda path: path.stem)
assert len(paths) == len(images) and all(int(path.stem) == index for index, path in enumerate(paths))
for path, image, label in zip(paths, images, labels, strict=True):
    assert int(path.parent.name) == label and numpy.array_equal(numpy.asarray(Image.open(path)), image), path
row("exports read by Pillow", measure, "equal to the IDX files")

# On another scale and as floats, as programs of diffusion models store images.
numpy.savez_compressed(folder / "python.npz", images=images[:, None].astype(numpy.float32) / 127.5 - 1, y=labels.astype(numpy.int64))

recipe = json.loads(Image.open(sample).text["ddpm"])
assert recipe["arguments"][:2] == ["--model", "built-in"], recipe
row("the recipe of a picture", f"`Image.open(\"{sample}\").text[\"ddpm\"]`", f"JSON with {', '.join(recipe)}")
