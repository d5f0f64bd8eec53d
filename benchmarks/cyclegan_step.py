"""Images per CPU second of CycleGAN's training step, against the public PyTorch implementation's procedure.

The baseline is a plain transcription: one generator pass for each picture and use, identity passes too, one
discriminator pass for each batch, torch's layers in contiguous layout, Adam as it comes, float32. Before every
step it gets the parameters and pools of ours, so that the losses of all steps can be compared; all get the same
pictures, and take turns; one thread. At the end, where the CPU time of one step of one image each goes.

    python -m benchmarks.cyclegan_step [--side 256] [--batches 1 2] [--rounds 3] [--generator resnet_9blocks]
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.utils import save_image

from nst.cyclegan.training import CycleGANOptions, CycleGANTraining, train_step
from nst.gan.image_pool import ImagePool

Losses = dict[str, Tensor]
Step = Callable[[Tensor, Tensor], Losses]
BLOCKS = {"resnet_6blocks": 6, "resnet_9blocks": 9}


class PlainBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(width, width, 3),
            nn.InstanceNorm2d(width),
            nn.ReLU(True),
            nn.ReflectionPad2d(1),
            nn.Conv2d(width, width, 3),
            nn.InstanceNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv_block(x)
        return out


class Plain(nn.Module):
    """A network of the public layout."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x)
        return out


def plain_generator(blocks: int, width: int = 64) -> Plain:
    def normed(convolution: nn.Module, channels: int) -> list[nn.Module]:
        return [convolution, nn.InstanceNorm2d(channels), nn.ReLU(True)]

    layers = [nn.ReflectionPad2d(3), *normed(nn.Conv2d(3, width, 7), width)]
    for wide in (width, 2 * width):
        layers += normed(nn.Conv2d(wide, 2 * wide, 3, stride=2, padding=1), 2 * wide)
    layers += [PlainBlock(4 * width) for _ in range(blocks)]
    for wide in (4 * width, 2 * width):
        up = nn.ConvTranspose2d(wide, wide // 2, 3, stride=2, padding=1, output_padding=1)
        layers += normed(up, wide // 2)
    return Plain(*layers, nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh())


def plain_discriminator(width: int = 64) -> Plain:
    layers: list[nn.Module] = [nn.Conv2d(3, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2, True)]
    for wide, stride in ((width, 2), (2 * width, 2), (4 * width, 1)):
        convolution = nn.Conv2d(wide, 2 * wide, 4, stride=stride, padding=1)
        layers += [convolution, nn.InstanceNorm2d(2 * wide), nn.LeakyReLU(0.2, True)]
    return Plain(*layers, nn.Conv2d(8 * width, 1, 4, padding=1))


class PlainTraining:
    """The public implementation's `optimize_parameters`."""

    def __init__(self, training: CycleGANTraining) -> None:
        self.G_A, self.G_B = (plain_generator(BLOCKS[training.options.generator]) for _ in range(2))
        self.D_A, self.D_B = (plain_discriminator() for _ in range(2))
        self.pool_a, self.pool_b = (ImagePool(50) for _ in range(2))
        generators = [*self.G_A.parameters(), *self.G_B.parameters()]
        discriminators = [*self.D_A.parameters(), *self.D_B.parameters()]
        self.optimizer_g = torch.optim.Adam(generators, 2e-4, betas=(0.5, 0.999))
        self.optimizer_d = torch.optim.Adam(discriminators, 2e-4, betas=(0.5, 0.999))

    def follow(self, training: CycleGANTraining) -> None:
        """Take over its parameters and pools."""
        for name in ("G_A", "G_B", "D_A", "D_B", "pool_a", "pool_b"):
            getattr(self, name).load_state_dict(getattr(training, name).state_dict())

    def step(self, real_a: Tensor, real_b: Tensor) -> Losses:
        def gan(judged: Tensor, label: float) -> Tensor:
            return F.mse_loss(judged, torch.tensor(label).expand_as(judged))

        fake_b = self.G_A(real_a)
        back_a = self.G_B(fake_b)
        fake_a = self.G_B(real_b)
        back_b = self.G_A(fake_a)

        for network in (self.D_A, self.D_B):
            network.requires_grad_(False)
        self.optimizer_g.zero_grad()
        losses = {
            "identity_A": F.l1_loss(self.G_A(real_b), real_b) * 10.0 * 0.5,
            "identity_B": F.l1_loss(self.G_B(real_a), real_a) * 10.0 * 0.5,
            "gan_A": gan(self.D_A(fake_b), 1.0),
            "gan_B": gan(self.D_B(fake_a), 1.0),
            "cycle_A": F.l1_loss(back_a, real_a) * 10.0,
            "cycle_B": F.l1_loss(back_b, real_b) * 10.0,
        }
        sum(losses.values(), torch.zeros(())).backward()  # type: ignore[no-untyped-call]
        self.optimizer_g.step()

        for network in (self.D_A, self.D_B):
            network.requires_grad_(True)
        self.optimizer_d.zero_grad()
        for name, network, real, fake in (
            ("D_A", self.D_A, real_b, self.pool_b.query(fake_b)),
            ("D_B", self.D_B, real_a, self.pool_a.query(fake_a)),
        ):
            losses[name] = (gan(network(real), 1.0) + gan(network(fake.detach()), 0.0)) * 0.5
            losses[name].backward()  # type: ignore[no-untyped-call]
        self.optimizer_d.step()
        return {name: loss.detach() for name, loss in losses.items()}


def pictures(seed: int, batch: int, side: int) -> Tensor:
    """Of both domains, (2, batch, 3, side, side) in [-1, 1]: smooth and colorful."""
    coarse = torch.rand(2 * batch, 3, 17, 17, generator=torch.Generator().manual_seed(seed))
    fine = F.interpolate(coarse, size=(side, side), mode="bicubic", align_corners=False).clamp(0, 1)
    return (2 * fine - 1).view(2, batch, 3, side, side)


def cpu_seconds(step: Step, real_a: Tensor, real_b: Tensor) -> tuple[float, Losses]:
    began = time.process_time()
    losses = step(real_a, real_b)
    return time.process_time() - began, losses


def ours(generator: str, precision: str) -> tuple[CycleGANTraining, Step]:
    training = CycleGANTraining(CycleGANOptions(generator=generator, precision=precision))  # type: ignore[arg-type]
    return training, lambda real_a, real_b: train_step(training, real_a, real_b)


class OperatorTimes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """CPU seconds by operator, backward passes too."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seconds: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        began = time.process_time()
        result = func(*args, **(kwargs or {}))
        self.seconds[func.overloadpacket.__name__] += time.process_time() - began  # type: ignore[assignment]
        return result


def print_operators(steps: dict[str, Step], side: int) -> None:
    found: dict[str, Counter[str]] = {}
    for name, step in steps.items():
        with OperatorTimes() as times:
            step(*pictures(0, 1, side))
        found[name] = times.seconds
    totals = Counter[str]()
    for seconds in found.values():
        totals |= seconds
    print(f"\n{'CPU seconds by operator':32}" + "".join(f"{name:>12}" for name in steps))
    for operator, _ in totals.most_common(16):
        print(f"{operator:32}" + "".join(f"{found[name][operator]:12.2f}" for name in steps))


def seconds_per_step(side: int, steps: int, ray_train: bool) -> tuple[float, float]:
    """CPU and wall-clock seconds of a step of a training in a folder and a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for domain, images in zip("ab", pictures(0, 8, side), strict=True):
            (folder / domain).mkdir()
            for number, image in enumerate(images):
                save_image((image + 1) / 2, folder / domain / f"{number}.png")
        command = [
            sys.executable,
            "-m",
            __spec__.name,
            "--one-job",
            name,
            "--side",
            str(side),
            "--steps",
            str(steps),
        ]
        subprocess.run([*command, *([] if ray_train else ["--no-ray"])], check=True, stdout=sys.stderr)
        cpu, wall = json.loads((folder / "seconds.json").read_text())
        return float(cpu), float(wall)


def one_job(folder: Path, side: int, steps: int, ray_train: bool) -> None:
    """The training job's own loop, in this process or in a worker of Ray Train."""
    from jobs.training.job import create_or_open_training
    from jobs.training.job_file import train_from_table
    from jobs.training.loop import LoopSetup
    from jobs.training.metrics import read_metrics

    table = {
        "a": str(folder / "a"),
        "b": str(folder / "b"),
        "output": str(folder / "out"),
        "model": {"generator": "resnet_6blocks", "generator_channels": 32, "discriminator_channels": 32},
        "data": {"load_size": side, "crop_size": side},
        "schedule": {"n_epochs": math.ceil(steps / 8), "n_epochs_decay": 0},
        "log": {"metrics_every": 10, "checkpoint_every": steps, "samples_every": 0},
    }
    job = create_or_open_training(train_from_table(table, folder))
    config = {"setup": LoopSetup.of(job), "to": str(folder / "cpu.txt")}
    if ray_train:
        import ray.train
        from ray.train.torch import TorchConfig, TorchTrainer

        TorchTrainer(
            measured,
            train_loop_config=config,
            torch_config=TorchConfig(backend="gloo"),
            scaling_config=ray.train.ScalingConfig(num_workers=1, resources_per_worker={"CPU": 1}),
            run_config=ray.train.RunConfig(storage_path=str(folder / "ray")),
        ).fit()
    else:
        measured(config)
    wall = statistics.median(row["seconds"] for row in read_metrics(job.store)[5:])
    cpu = float((folder / "cpu.txt").read_text()) / job.steps
    (folder / "seconds.json").write_text(json.dumps([cpu, wall]))


def measured(config: dict[str, Any]) -> None:
    from jobs.training.loop import train

    began = time.process_time()
    train(config["setup"])
    Path(config["to"]).write_text(str(time.process_time() - began))


def ray_train_overhead(side: int, steps: int, rounds: int) -> tuple[float, float]:
    """Of a step by the wall clock, and of CPU time."""
    ratios = []
    print(f"\n{'':5} {'plain':>17} {'in Ray Train':>17} {'ratio':>13}")
    print(f"{'round':>5}" + f" {'CPU s':>8} {'wall s':>8}" * 2 + f" {'CPU':>6} {'wall':>6}")
    for number in range(rounds):
        plain, inside = (seconds_per_step(side, steps, ray_train) for ray_train in (False, True))
        each = [there / here for here, there in zip(plain, inside, strict=True)]
        ratios.append(each)
        line = "".join(f" {seconds:8.3f}" for seconds in (*plain, *inside))
        print(f"{number:5}{line}" + "".join(f" {ratio:6.3f}" for ratio in each), flush=True)
    cpu, wall = (statistics.median(each) for each in zip(*ratios, strict=True))
    return wall, cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--side", type=int, default=256, help="pixels, a multiple of 4")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2], help="images of each domain")
    parser.add_argument("--rounds", type=int, default=3, help="after those that warm up")
    parser.add_argument("--warm-up", type=int, default=3, help="rounds until memory is mapped")
    parser.add_argument("--generator", default="resnet_9blocks", choices=BLOCKS)
    parser.add_argument("--steps", type=int, default=40, help="of each job that compares Ray Train")
    parser.add_argument("--no-ray", action="store_true", help="leave Ray Train out")
    parser.add_argument("--one-job", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one_job:
        one_job(arguments.one_job, arguments.side, arguments.steps, not arguments.no_ray)
        return
    torch.set_num_threads(1)
    training, exact = ours(arguments.generator, "float32")
    _, bfloat16 = ours(arguments.generator, "bfloat16")
    plain = PlainTraining(training)
    steps: dict[str, Step] = {"plain": plain.step, "float32": exact, "bfloat16": bfloat16}

    worst = 0.0
    ratios: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    print(f"{'batch':>5} {'':9} {'s/step':>8} {'images/s':>9} {'ratio':>6} {'spread':>11} {'loss diff':>10}")
    for batch in arguments.batches:
        seconds: dict[str, list[float]] = {name: [] for name in steps}
        differences = []
        for number in range(arguments.warm_up + arguments.rounds):
            plain.follow(training)
            losses: dict[str, Losses] = {}
            for name, step in steps.items():
                took, losses[name] = cpu_seconds(step, *pictures(number, batch, arguments.side))
                seconds[name] += [took] if number >= arguments.warm_up else []
            differences += [
                float((losses["float32"][name] - loss).abs() / loss.abs())
                for name, loss in losses["plain"].items()
            ]
        worst = max(worst, *differences)
        for name, times in seconds.items():
            s = statistics.median(times)
            each = sorted(plain_s / mine_s for plain_s, mine_s in zip(seconds["plain"], times, strict=True))
            line = f"{batch:5} {name:9} {s:8.2f} {2 * batch / s:9.3f}"
            if name != "plain":
                ratios[name].append(statistics.median(each))
                line += f" {ratios[name][-1]:6.2f} {each[0]:5.2f}-{each[-1]:5.2f}"
            print(line + (f" {max(differences):10.1e}" if name == "float32" else ""), flush=True)
    print_operators(steps, arguments.side)
    found = {
        "speed_ratio_exact": round(min(ratios["float32"]), 3),
        "speed_ratio_bf16": round(min(ratios["bfloat16"]), 3),
        "max_loss_difference": worst,
    }
    if not arguments.no_ray:
        wall, cpu = ray_train_overhead(arguments.side // 2, arguments.steps, arguments.rounds)
        found |= {"ray_train_overhead": round(wall, 3), "ray_train_cpu_overhead": round(cpu, 3)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
