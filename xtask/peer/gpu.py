"""Compares `ddpm-cli` with PyTorch on a GPU and prints rows `gpu | WORK | SPEED | RATIO`; `cargo xtask gpu-check --run` starts it.

As in `bench.py`: the work, the network of the built-in model, the variants of PyTorch and the rounds.
"""

import argparse
import json
import statistics
from pathlib import Path

import torch
from bench import WORKS, compare, run


def main():
    parser = argparse.ArgumentParser(description="Prints the speed of ddpm-cli and of PyTorch on a device.")
    parser.add_argument("--cli", type=Path, required=True, help="a release build of ddpm-cli for the device")
    parser.add_argument("--device", default="cuda", help="the name of the device, on both sides")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_default_device(arguments.device)
    import peer as pytorch  # After the choice of the device, since the module makes tensors.

    pytorch.start(torch.get_num_threads())
    peer = pytorch.Peer(pytorch.PatchMlp)

    def ours(work: str) -> dict:
        command = [arguments.cli, "bench", "--device", arguments.device, "--only", work, "--rounds", 1, "--json"]
        return json.loads(run(command))["results"][0]

    for work, rounds in compare([ours, peer.measure], arguments.rounds).items():
        speeds = [[side["images_per_second"] for side in round_] for round_ in rounds]
        here, there = (statistics.median(side) for side in zip(*speeds))
        ratios = [ours / theirs for ours, theirs in speeds]
        speed = f"{here:,.0f}; PyTorch {there:,.0f} ({peer.jobs[work].variant})"
        print(f"gpu | {WORKS[work]} | {speed} | {statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})")


if __name__ == "__main__":
    main()
