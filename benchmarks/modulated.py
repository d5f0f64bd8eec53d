"""The two forms of modulated convolutions, `scaled` against `grouped`: CPU time and peak memory.

Of one layer, as in the middle of a generator of 64 channels for pictures of `side` pixels, and of a whole
generator with fewer channels. Both forms get the same parameters, pictures and latents, and take turns; one
thread. Memory is what the passes add to the resident memory at most, each in a process of its own (Linux).

    python -m benchmarks.modulated [--side 256] [--batches 1 4 8] [--rounds 5] [--channels 16]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor, nn

from nst.modulated.networks import ModulatedGenerator
from nst.ops.equalized import draw_parameters
from nst.ops.modulated import Form, ModulatedConv2d

FORMS: tuple[Form, ...] = get_args(Form)
LATENT = 64
LAYER_CHANNELS = 256
PREFIXES = {"layer": "layer_", "generator": ""}
"""Of the figures' names, by subject."""


def subject(name: str, form: Form, channels: int) -> nn.Module:
    """A network that takes pictures, or features, and latents."""
    network: nn.Module
    if name == "layer":
        network = ModulatedConv2d(LAYER_CHANNELS, LAYER_CHANNELS, LATENT, form=form)
    else:
        network = ModulatedGenerator(("photo", "other"), channels=channels, latent=LATENT, form=form)
    draw_parameters(network, torch.Generator().manual_seed(0))
    return network.to(memory_format=torch.channels_last)


def inputs(name: str, batch: int, side: int) -> tuple[Tensor, Tensor]:
    """What goes in, wanting its gradient as behind other layers, and latents, another one for each picture."""
    generator = torch.Generator().manual_seed(batch)
    shape = (batch, LAYER_CHANNELS, side // 4, side // 4) if name == "layer" else (batch, 3, side, side)
    x = torch.rand(shape, generator=generator) * 2 - 1
    latents = torch.randn(batch, LATENT, generator=generator)
    return x.contiguous(memory_format=torch.channels_last).requires_grad_(), latents.requires_grad_()


def passes(network: nn.Module, x: Tensor, latents: Tensor) -> tuple[float, float, tuple[Tensor, ...]]:
    """CPU seconds forward, and backward; the output and the gradients of what went in."""
    network.zero_grad(set_to_none=True)
    x.grad = latents.grad = None
    began = time.process_time()
    out = network(x, latents)
    between = time.process_time()
    out.backward(torch.ones_like(out))
    ended = time.process_time()
    assert x.grad is not None
    assert latents.grad is not None
    return between - began, ended - between, (out.detach(), x.grad, latents.grad)


def times(name: str, batch: int, side: int, channels: int, rounds: int) -> tuple[float, float]:
    """Prints rows. The median ratio of both passes' CPU time, scaled over grouped; how far results differ."""
    networks = {form: subject(name, form, channels) for form in FORMS}
    given = inputs(name, batch, side)
    seconds: dict[Form, list[tuple[float, float]]] = {form: [] for form in FORMS}
    difference = 0.0
    for number in range(rounds + 1):  # the first one warms up
        found = {}
        for form in FORMS if number % 2 else reversed(FORMS):
            forward, backward, found[form] = passes(networks[form], *given)
            seconds[form] += [(forward, backward)] if number else []
        for one, other in zip(found["scaled"], found["grouped"], strict=True):
            difference = max(difference, float((one - other).norm() / other.norm()))
    kinds: tuple[tuple[str, Callable[[tuple[float, float]], float]], ...] = (
        ("forward", lambda took: took[0]),
        ("backward", lambda took: took[1]),
        ("both", sum),
    )
    middle = 0.0
    for kind, of in kinds:
        grouped, scaled = ([of(took) for took in seconds[form]] for form in ("grouped", "scaled"))
        ratios = sorted(mine / theirs for mine, theirs in zip(scaled, grouped, strict=True))
        middle = statistics.median(ratios)
        print(
            f"{name:9} {batch:5} {kind:8} {statistics.median(grouped):9.3f} {statistics.median(scaled):9.3f} "
            f"{middle:6.2f} {ratios[0]:5.2f}-{ratios[-1]:4.2f}",
            flush=True,
        )
    return middle, difference


def peak_mib(name: str, form: Form, batch: int, side: int, channels: int) -> float:
    """Of both passes, in a process of its own."""
    command = [sys.executable, "-m", __spec__.name, "--peak", name, form, str(batch)]
    command += ["--side", str(side), "--channels", str(channels)]
    # Or else what is freed stays with the process, and is taken for new tensors unseen.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return float(done.stdout)


def print_peak(name: str, form: Form, batch: int, side: int, channels: int) -> None:
    network = subject(name, form, channels)
    passes(network, *inputs(name, 1, 32))  # what the libraries keep for good
    network.zero_grad(set_to_none=True)
    given = inputs(name, batch, side)
    Path("/proc/self/clear_refs").write_text("5")  # the highest so far is now the present one
    before = resident_kib("VmRSS")
    passes(network, *given)
    print((resident_kib("VmHWM") - before) / 1024)


def resident_kib(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--side", type=int, default=256, help="pixels of the pictures, a multiple of 4")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--rounds", type=int, default=5, help="after one to warm up")
    parser.add_argument("--channels", type=int, default=16, help="of the generator's first layer")
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    side, channels = arguments.side, arguments.channels
    if arguments.peak:
        name, form, batch = arguments.peak
        print_peak(name, form, int(batch), side, channels)
        return

    found: dict[str, dict[str, float]] = {}
    worst = 0.0
    print(f"{'':9} {'batch':>5} {'pass':8} {'grouped s':>9} {'scaled s':>9} {'ratio':>6} {'range':>10}")
    for name in PREFIXES:
        ratios = found[f"{PREFIXES[name]}scaled_over_grouped_time"] = {}
        for batch in arguments.batches:
            middle, difference = times(name, batch, side, channels, arguments.rounds)
            ratios[str(batch)] = round(middle, 3)
            worst = max(worst, difference)
    print(f"\n{'':9} {'batch':>5} {'peak of':8} {'grouped':>9} {'scaled':>9} {'ratio':>6}, MiB")
    for name in PREFIXES:
        ratios = found[f"{PREFIXES[name]}scaled_over_grouped_memory"] = {}
        for batch in arguments.batches:
            grouped, scaled = (peak_mib(name, form, batch, side, channels) for form in FORMS)
            ratios[str(batch)] = round(scaled / grouped, 3)
            row = f"{name:9} {batch:5} {'both':8} {grouped:9.1f} {scaled:9.1f} {scaled / grouped:6.2f}"
            print(row, flush=True)
    print(json.dumps({**found, "largest_relative_difference": worst}))


if __name__ == "__main__":
    main()
