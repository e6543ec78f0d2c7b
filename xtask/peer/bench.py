"""Compares `ddpm-cli` with PyTorch and writes the report; `cargo xtask bench --peer` starts it. See README.md."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
WORKS = {
    "train-128": "training, batch 128",
    "train-512": "training, batch 512",
    "sample-1000": "sampling 1,000 images",
    "sample-50": "sampling 50 images",
    "sample-1": "sampling 1 image",
}
# Seconds of pause before each measurement: the threads of PyTorch spin for some milliseconds after their work.
PAUSE = 0.3
# The command of the cold start (fifty digits); the numbers of images in the memory table, and the runs of each.
DIGITS = ["sample", "--sampler", "ddpm", "--guide-scale", "1", "--classes", "0-9", "--per-class", "5", "--quiet", "--out"]
SCALING, REPEATS = [1_000, 10_000, 100_000], 3


def run(command: list) -> str:
    """Runs a program and returns its standard output."""
    return subprocess.run([str(word) for word in command], check=True, stdout=subprocess.PIPE, text=True).stdout


def wall_time(command: list) -> float:
    time.sleep(PAUSE)
    began = time.perf_counter()
    run(command)
    return time.perf_counter() - began


def with_memory(command: list) -> tuple[dict, float | None]:
    """The JSON that a program prints, and its peak memory in MB; None if the system does not report it (Linux does).

    The system keeps the highest value, so only an increase after the last reading is missed.
    """
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, text=True)
    status, highest = Path(f"/proc/{process.pid}/status"), None
    while process.poll() is None:
        try:
            peak = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        except OSError:
            peak = []
        highest = max([highest or 0.0, *(int(kib) * 1024 / 1e6 for kib in peak)]) or None
        time.sleep(0.01)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return json.loads(process.stdout.read()), highest


def compare(sides: list[Callable[[str], dict]], rounds: int) -> dict[str, list[list[dict]]]:
    """The results of both sides for each kind of work, in each round except the first, in which PyTorch compiles."""
    results = {work: [] for work in WORKS}
    for number in range(rounds + 1):
        print(f"round {number} of {rounds}", file=sys.stderr)
        for work in WORKS:
            turn = {}
            # The side that starts changes from round to round.
            for side in [0, 1] if number % 2 else [1, 0]:
                time.sleep(PAUSE)
                turn[side] = sides[side](work)
            ours, theirs = turn[0], turn[1]
            if ours["flop_per_image"] != theirs["flop_per_image"]:
                flop = [ours["flop_per_image"], theirs["flop_per_image"]]
                raise SystemExit(f"the sides do different work in {work}: {flop} operations for an image")
            if number > 0:
                results[work].append([ours, theirs])
    return results


def row(title: str, rounds: list[list[dict]], peak: float) -> str:
    """A line of the table, from the results of both sides in each round."""
    speeds = [[side["images_per_second"] for side in round_] for round_ in rounds]
    ratios = [ours / theirs for ours, theirs in speeds]
    ours, theirs = (statistics.median(side) for side in zip(*speeds))
    shares = [speed * rounds[0][0]["flop_per_image"] / (peak * 1e9) for speed in (ours, theirs)]
    ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
    return f"| {title} | {ours:,.0f} | {theirs:,.0f} | {ratio} | {shares[0]:.0%} | {shares[1]:.0%} |"


def section(name: str, model: str, peer, cli: list, rounds: int, peak: float) -> str:
    """The comparison for one network; `model` is a model folder with its architecture, for `ddpm-cli`."""

    def ours(work: str) -> dict:
        report = json.loads(run([*cli, "bench", "--model", model, "--only", work, "--rounds", 1, "--json"]))
        if report["parameters"] != peer.parameters:
            raise SystemExit(f"{name} has {report['parameters']} parameters here, {peer.parameters} in PyTorch")
        return report["results"][0]

    results = compare([ours, peer.measure], rounds)
    lines = [
        f"## {name}, {peer.parameters:,} parameters\n",
        "| work | images/s | PyTorch | ratio | share of the peak | PyTorch |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        *(row(WORKS[work], results[work], peak) for work in WORKS),
        "\nThe variants of PyTorch measured before the first round, with their images/s; the fastest one (bold) is in "
        "the table:\n",
    ]
    for work, title in WORKS.items():
        job = peer.jobs[work]
        speeds = [f"{way} {speed:,.0f}" for way, speed in job.speeds.items()]
        failed = [f"{way} failed ({why})" for way, why in job.failed.items()]
        lines.append(f"- {title}: **{job.variant}** ({'; '.join(speeds + failed)})")
    return "\n".join(lines)


def cold_start(cli: list, threads: int, rounds: int, folder: Path) -> str:
    ours = [*cli, *DIGITS, folder / "ours.png"]
    theirs = [sys.executable, HERE / "sample.py", "--threads", threads, "--out", folder / "peer.png"]
    times = [[wall_time(ours), wall_time(theirs)] for _ in range(rounds + 1)][1:]
    here, there = (statistics.median(side) for side in zip(*times))
    ratio = statistics.median(theirs / ours for ours, theirs in times)
    return (
        f"## Fifty digits, from the start of the process to its end\n\n`ddpm-cli {' '.join(DIGITS[:-2])}` takes "
        f"{here:.2f} s; [`sample.py`](../xtask/peer/sample.py) with PyTorch {there:.2f} s, {ratio:.1f} times as long."
    )


def memory(cli: list, trained: tuple[dict, float | None], folder: Path) -> str:
    def shown(megabytes: float | None) -> str:
        return "not measured" if megabytes is None else f"{megabytes:,.0f} MB"

    lines = [
        "## Memory\n\nPeak memory of a process. "
        f"`ddpm-cli train --preset original` ({trained[0]['parameters']:,} parameters): {shown(trained[1])}. "
        "`ddpm-cli sample --format idx --guidance-scale 1` with the built-in model, median and highest of "
        f"{REPEATS} runs:\n\n| images | images/s | memory |\n| ---: | ---: | ---: |"
    ]
    for count in SCALING:
        options = ["-n", count, "--guidance-scale", 1, "--format", "idx", "--json", "--out", folder / "scaling"]
        runs = [with_memory([*cli, "sample", *options]) for _ in range(REPEATS)]
        speed = statistics.median(count / report["seconds"] for report, _ in runs)
        highest = max((peak for _, peak in runs if peak is not None), default=None)
        lines.append(f"| {count:,} | {speed:,.0f} | {shown(highest)} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description="Writes a comparison of ddpm-cli with PyTorch as Markdown.")
    parser.add_argument("--cli", type=Path, required=True, help="a release build of ddpm-cli")
    parser.add_argument("--folder", type=Path, required=True, help="a folder for temporary files")
    parser.add_argument("--out", type=Path, required=True, help="the report to write")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--origin", default="", help="lines of the report about command, version and machine")
    arguments = parser.parse_args()
    import peer  # Here because it takes seconds, and --help does not need it.

    # glibc has already read these variables. They are for PyTorch in this process, not for the programs that it starts.
    for name in ["MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"]:
        os.environ.pop(name, None)
    peer.start(arguments.threads)
    folder, rounds, threads = arguments.folder, arguments.rounds, arguments.threads
    folder.mkdir(parents=True, exist_ok=True)
    cli, load = [arguments.cli, "--threads", threads], os.getloadavg()[0]
    # A model folder of the plain network. Only its architecture is used, so one epoch is enough.
    plain = folder / "plain"
    trained = with_memory([*cli, "train", "--preset", "original", "--epochs", 1, "--overwrite", "--json", "-o", plain])
    bench = json.loads(run([*cli, "bench", "--only", "sample-1", "--rounds", rounds, "--peak", "--json"]))
    peak = bench["peak_gflop_per_second"]
    parts = [
        f"# Speed beside PyTorch\n\n{arguments.origin}\n"
        f"- PyTorch {peer.torch.__version__}, {threads} threads on each side, f32; "
        "[xtask/peer](../xtask/peer/README.md) describes the work\n"
        f"- Rounds: {rounds}. In each round, each side does each kind of work for half a second. Speeds are medians; "
        "a ratio is the median of the ratios of the rounds (lowest–highest)\n"
        f"- Peak: {peak:.0f} GFLOP/s, fused multiply-adds in registers, the fastest of all rounds. Shares of the peak "
        "count matrix products only\n"
        f"- Load average in the minute before: {load:.1f}",
        section("The network of the built-in model", "built-in", peer.Peer(peer.PatchMlp), cli, rounds, peak),
        section("The plain network", str(plain / "model"), peer.Peer(peer.Plain), cli, rounds, peak),
        cold_start(cli, threads, rounds, folder),
        memory(cli, trained, folder),
    ]
    partial = arguments.out.with_suffix(".partial")
    partial.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    partial.replace(arguments.out)
    print(arguments.out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
