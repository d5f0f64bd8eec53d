"""Teach the embedded feature network to see what VGG16 sees, and write it as safetensors: `make features`.

What a training was cut at lies beside the file, as OUT.safetensors.unfinished: the same command goes on.

python -m jobs.training.embedded OUT.safetensors --teacher VGG16.safetensors --photos DIR --pictures DIR
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import io
import json
import multiprocessing
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from jobs.stores.store import LocalStore
from nst.errors import NstError
from nst.features import read_state_dict
from nst.features.embedded.data import Picture, cut_patches, is_held_out, rendered_patches
from nst.features.embedded.distillation import RELUS, Distillation, DistillationTask
from nst.features.weights import published_bytes, weights_asset
from nst.images.codec import decode_image
from nst.ops.precision import has_bfloat16

__all__ = ["main"]

_PART = 64  # patches that are made at a time
_PHOTOGRAPHS, _PICTURES = 0.5, 0.3  # of the patches; the others are rendered
_MOST_PX = 1024  # of a photograph's long side
_ON_GPUS: Mapping[str, int | float] = {
    "patches": 6144,
    "patch_px": 192,
    "steps": 2044,
    "batch_size": 32,
    "side": 160,
    "in_work": 768,
    "learning_rate": 1e-3,
}
"""What differs of the task on a GPU, which does in eight minutes what two cores do in a day. The shipped file
was made so, with Adam for filters, too."""

_SAME = ("teacher", "patches", "bfloat16")
"""What a training has to have, besides its task, to go on with another."""


def main(argv: Sequence[str] | None = None) -> None:
    arguments = _parser().parse_args(argv)
    torch.set_num_threads(arguments.threads)
    torch.backends.cudnn.benchmark = True
    device = torch.device(arguments.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    task = _task(arguments, device)
    for option, folders in (("--photos", arguments.photos), ("--pictures", arguments.pictures)):
        for folder in folders:
            if not folder.is_dir():
                raise SystemExit(f"{option} {folder}: there is no such folder")

    began = time.monotonic()
    teacher_bytes = _teacher(arguments.teacher)
    photographs, pictures = (_pictures(folders) for folders in (arguments.photos, arguments.pictures))
    if not photographs:
        raise SystemExit(f"--photos {' '.join(map(str, arguments.photos))}: there is no photograph to learn on")
    if task.patch_px < task.side:
        raise SystemExit(f"--patch-px {task.patch_px}: must be at least --side, {task.side}")
    patches = _patches(photographs, pictures, task)
    print(
        f"{len(patches)} patches of {len(photographs)} photographs and {len(pictures)} pictures in "
        f"{time.monotonic() - began:.0f} s",
        flush=True,
    )
    half = has_bfloat16(device) if arguments.bfloat16 is None else arguments.bfloat16
    training = Distillation(
        patches,
        read_state_dict(teacher_bytes),
        task,
        convention=arguments.teacher_convention,
        device=device,
        half=half,
    )
    print(f"begun with the teacher's own filters, {time.monotonic() - began:.0f} s", flush=True)
    record = {
        "torch": str(torch.__version__),
        "device": device.type,
        "bfloat16": half,
        "task": dataclasses.asdict(task),
        "teacher": hashlib.sha256(teacher_bytes).hexdigest(),
        "patches": hashlib.sha256(patches.numpy().data).hexdigest(),
    }
    unfinished = arguments.out.with_name(arguments.out.name + ".unfinished")
    _go_on(training, record, unfinished)
    _train(training, arguments, record, unfinished)
    record["steps"] = training.steps
    # One entry: safetensors writes several in no fixed order, and equal trainings shall give equal files.
    data = safetensors.torch.save(training.state_dict(), metadata={"nst": json.dumps(record)})
    _publish(arguments.out, data)
    unfinished.unlink(missing_ok=True)
    print(f"{arguments.out}: {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}")


def _go_on(training: Distillation, record: Mapping[str, Any], unfinished: Path) -> None:
    """Go on where a training was cut, if one was."""
    if not unfinished.exists():
        return
    kept = torch.load(unfinished, map_location="cpu", weights_only=True)
    was, now = (each["task"] | {name: each[name] for name in _SAME} for each in (kept["record"], record))
    other = [f"{name} {was[name]}, not {now[name]}" for name in now if was[name] != now[name]]
    if other:
        raise SystemExit(
            f"{unfinished}: another training was cut here, of {'; '.join(other)}. The same options, pictures "
            "and teacher go on with it; or remove it, to begin anew"
        )
    training.restore(kept["training"])
    print(f"goes on after step {training.steps}", flush=True)


def _train(
    training: Distillation, arguments: argparse.Namespace, record: Mapping[str, Any], unfinished: Path
) -> None:
    print(f"{'step':>6} {'s':>6} {'gradient':>9} {'grams':>6}  " + " ".join(f"{each[4:]:>5}" for each in RELUS))
    began = kept = time.monotonic()
    for progress in training.run(arguments.minutes):
        errors = " ".join(f"{each:5.3f}" for each in progress.errors)
        print(
            f"{progress.step:6} {time.monotonic() - began:6.0f} {progress.cosine:9.3f} "
            f"{progress.gram_error:6.3f}  {errors}",
            flush=True,
        )
        if time.monotonic() - kept > arguments.keep_s:
            _keep(training, record, unfinished)
            kept = time.monotonic()


def _keep(training: Distillation, record: Mapping[str, Any], unfinished: Path) -> None:
    file = io.BytesIO()
    torch.save({"record": record, "training": training.snapshot()}, file)
    _publish(unfinished, file.getvalue())


def _publish(path: Path, data: bytes) -> None:
    LocalStore(str(path.resolve().parent)).publish(path.name, data)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--teacher", default="imagenet_features", help="a file of VGG16's weights, or their name"
    )
    parser.add_argument("--teacher-convention", help="torchvision, caffe or caffe_rgb; left out: recognized")
    parser.add_argument("--photos", type=Path, nargs="+", required=True, help="folders of photographs")
    parser.add_argument("--pictures", type=Path, nargs="*", default=[], help="folders of paintings and such")
    parser.add_argument("--threads", type=int, default=2, help="bytes are reproducible for equal threads")
    parser.add_argument("--device", help="cpu or cuda; left out: cuda where there is a GPU")
    parser.add_argument(
        "--bfloat16",
        action=argparse.BooleanOptionalAction,
        help="activations in bfloat16; left out: where that is faster",
    )
    parser.add_argument("--minutes", type=float, help="end after so many minutes, if not before")
    parser.add_argument(
        "--keep-s", type=float, default=300, help="seconds after which what there is is kept, to go on from"
    )
    for field in dataclasses.fields(DistillationTask):
        kind = float if "float" in str(field.type) else int
        on_gpus = f", {_ON_GPUS[field.name]} on a GPU" if field.name in _ON_GPUS else ""
        parser.add_argument(
            "--" + field.name.replace("_", "-"), type=kind, help=f"{field.default} if left out{on_gpus}"
        )
    return parser


def _task(arguments: argparse.Namespace, device: torch.device) -> DistillationTask:
    """What was asked for, and where nothing was, what suits the device."""
    suits: dict[str, Any] = dict(_ON_GPUS) if device.type == "cuda" else {}
    for field in dataclasses.fields(DistillationTask):
        if getattr(arguments, field.name) is not None:
            suits[field.name] = getattr(arguments, field.name)
    return DistillationTask(**suits)


def _teacher(named: str) -> bytes:
    if named in ("imagenet", "imagenet_features"):
        ref = weights_asset("vgg16", named, None)
        assert ref is not None
        return published_bytes(ref.url)
    try:
        return Path(named).read_bytes()
    except OSError as error:
        choices = "a file of VGG16's weights, imagenet, or imagenet_features"
        raise SystemExit(f"--teacher {named}: {error.strerror}; it is {choices}") from error


def _pictures(folders: Sequence[Path]) -> list[Picture]:
    """What can be decoded in the folders and below, but for the files that are held out; in order of their
    names."""
    found = []
    for path in sorted((path for folder in folders for path in folder.rglob("*") if path.is_file()), key=str):
        if is_held_out(path.name):
            continue
        try:
            image = decode_image(path.read_bytes(), max_side_px=_MOST_PX)
        except NstError:
            continue
        found.append((image * 255).round().byte().permute(1, 2, 0).numpy())
    return found


def _patches(photographs: list[Picture], pictures: list[Picture], task: DistillationTask) -> Tensor:
    """uint8 (N, 3, P, P). In parts, each with a seed of its own, so that threads and processes may share the
    work."""
    cut = [(photographs, _PHOTOGRAPHS), (pictures or photographs, _PICTURES)]
    shares = [round(share * task.patches) for _, share in cut]
    seeds = (int(each) for each in np.random.default_rng(task.seed).integers(1 << 30, size=task.patches))
    side, workers = task.patch_px, os.cpu_count() or 1
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn) as processes, ThreadPoolExecutor(workers) as threads:
        rendered = [
            processes.submit(rendered_patches, count=part, side=side, seed=next(seeds))
            for part in _parts(task.patches - sum(shares))
        ]
        found = [
            threads.submit(cut_patches, source, count=part, side=side, seed=next(seeds))
            for (source, _), count in zip(cut, shares, strict=True)
            for part in _parts(count)
        ]
        joined = np.concatenate([each.result() for each in (*found, *rendered)])
    return torch.from_numpy(joined).permute(0, 3, 1, 2).contiguous()


def _parts(count: int) -> list[int]:
    return [min(_PART, count - at) for at in range(0, count, _PART)]


if __name__ == "__main__":
    main()
