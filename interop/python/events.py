"""Compares the event file of a run, as TensorBoard reads it, with the log and the previews of the run:

    python3 interop/python/events.py RUN
"""

import io
import json
import sys
from pathlib import Path

import numpy
from PIL import Image
from report import row
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

run = Path(sys.argv[1])
records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
events.Reload()

names = ["loss", "learning_rate", "grad_norm", "images_per_second", "test_loss"]
assert sorted(events.Tags()["scalars"]) == sorted(names), events.Tags()
points = 0
for name in names:
    expected = [(record["step"], record[name]) for record in records if record.get(name) is not None]
    found = [(event.step, event.value) for event in events.Scalars(name)]
    assert found == [(step, float(numpy.float32(value))) for step, value in expected], name
    points += len(found)
row("scalars in TensorBoard", f"{', '.join(names)}: {points} points", "equal to `metrics.jsonl`, rounded to f32")

steps = {record["epoch"]: record["step"] for record in records if record["kind"] == "epoch"}
previews = sorted((run / "previews").glob("epoch-*.png"))
images = events.Images("samples")
assert [steps[int(path.stem[6:])] for path in previews] == [image.step for image in images]
for path, image in zip(previews, images, strict=True):
    assert image.encoded_image_string == path.read_bytes(), path
    picture = Image.open(io.BytesIO(image.encoded_image_string))
    picture.load()
    assert picture.size == (image.width, image.height) == Image.open(path).size, path
size = f"{images[-1].width} × {images[-1].height} pixels"
row("images in TensorBoard", f"{len(images)} sample grids of {size}", "equal to the previews of the run; decoded by Pillow")
