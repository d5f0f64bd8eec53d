"""Train the embedded feature network and write it as safetensors: `make features`.

It learns to tell patches apart (`nst.features.embedded.exemplar`), then its thresholds are lowered and some of
its channels replaced by random ones (`nst.features.embedded.thresholds`), and these learn what a style loss is
for (`nst.features.embedded.alignment`).

python -m jobs.training.embedded OUT.safetensors [--steps 1800] [--style-steps 900] [--seed 0] [--device cpu]
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from PIL import Image

from jobs.demo import sample_photographs
from jobs.stores.store import LocalStore
from nst.features import read_state_dict
from nst.features.embedded.alignment import Alignment, AlignmentTask
from nst.features.embedded.exemplar import ExemplarTask, ExemplarTraining, render_patches, some_normalized
from nst.features.embedded.thresholds import lower_thresholds

__all__ = ["main"]

# Of scikit-image's wheel. chelsea, coffee and rocket are kept out: benchmarks use them.
_PHOTOGRAPHS = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "cell.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "page.png",
    "retina.jpg",
    "text.png",
)
_THRESHOLD_PATCHES = 192


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=ExemplarTask().steps)
    parser.add_argument("--style-steps", type=int, default=AlignmentTask().steps)
    parser.add_argument("--exemplar", type=Path, help="a file to begin with, instead of training on patches")
    parser.add_argument("--patches", type=int, default=ExemplarTask().patches)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="bytes are reproducible for equal threads")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    task = ExemplarTask(seed=arguments.seed, steps=arguments.steps, patches=arguments.patches)

    began = time.monotonic()
    folder = sample_photographs()
    photographs = [np.asarray(Image.open(folder / name).convert("RGB")) for name in _PHOTOGRAPHS]
    patches = render_patches(photographs, task)
    print(f"{len(patches)} patches in {time.monotonic() - began:.0f} s", flush=True)
    device = torch.device(arguments.device)
    record: dict[str, object] = {"torch": str(torch.__version__)}
    if arguments.exemplar is None:
        record["exemplar"] = dataclasses.asdict(task)
        training = ExemplarTraining(patches, task, device)
        for progress in training.run():
            print(
                f"step {progress.step:5}: loss {progress.loss:.3f}, top-1 {progress.accuracy:.3f}, "
                f"{time.monotonic() - began:.0f} s",
                flush=True,
            )
        state = training.state_dict()
    else:
        start = arguments.exemplar.read_bytes()
        record["exemplar"] = f"sha256 {hashlib.sha256(start).hexdigest()}"
        state = read_state_dict(start)
    style = AlignmentTask(seed=arguments.seed, steps=arguments.style_steps)
    record["alignment"] = dataclasses.asdict(style)
    state = lower_thresholds(
        state, some_normalized(patches, _THRESHOLD_PATCHES), random_channels=style.channels, seed=style.seed
    )
    print(f"thresholds lowered, {time.monotonic() - began:.0f} s", flush=True)
    alignment = Alignment(patches, state, style, device)
    for aligned in alignment.run():
        print(
            f"step {aligned.step:5}: alignment {aligned.alignment:.3f}, distance {aligned.distance:.3f}, "
            f"{time.monotonic() - began:.0f} s",
            flush=True,
        )
    # One entry: safetensors writes several in no fixed order, and equal trainings shall give equal files.
    data = safetensors.torch.save(alignment.state_dict(), metadata={"nst": json.dumps(record)})
    LocalStore(str(arguments.out.resolve().parent)).publish(arguments.out.name, data)
    print(f"{arguments.out}: {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main()
