"""Reads a parquet file that `ddpm-cli merge` wrote with the library `datasets`, and compares it with the IDX files of the same
images:

    python3 interop/python/merged.py FILE.parquet WHOLE

WHOLE is the common start of the names of the IDX files.
"""

import sys
import tempfile
from pathlib import Path

import numpy
from datasets import ClassLabel, load_dataset
from report import row

file, whole = sys.argv[1:]
images = numpy.frombuffer(Path(f"{whole}-images-idx3-ubyte").read_bytes(), numpy.uint8, offset=16).reshape(-1, 28, 28)
labels = numpy.frombuffer(Path(f"{whole}-labels-idx1-ubyte").read_bytes(), numpy.uint8, offset=8)

with tempfile.TemporaryDirectory() as cache:
    loaded = load_dataset("parquet", data_files=file, split="train", cache_dir=cache)
    assert loaded.features["label"] == ClassLabel(names=[str(digit) for digit in range(10)]), loaded.features
    # Each cell of the column `image` is decoded to an image of Pillow.
    assert numpy.array_equal(numpy.stack([numpy.asarray(image) for image in loaded["image"]]), images)
    assert numpy.array_equal(loaded["label"], labels)

row("parquet read by `datasets.load_dataset`", f"{len(images)} generated images of 3 parts, merged", "equal to the IDX files")
