"""`nst doctor`: what it says of machines that are made up, and that it finds what is broken on purpose."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import Result
from torch.overrides import TorchFunctionMode
from typer.testing import CliRunner

import jobs.doctor.device
import jobs.doctor.machine
from jobs.cli.app import app
from jobs.doctor.advice import Advice, advise, check_gpus, per_hour
from jobs.doctor.device import examine_apart
from jobs.doctor.facts import Check, Device, Disk, Gpu, Machine, Speed, attempt
from jobs.doctor.machine import driver_version, look_around
from jobs.doctor.places import check_store
from jobs.doctor.report import examined
from jobs.doctor.self_check import self_check, short_check
from jobs.doctor.text import describe_advice, describe_device, describe_machine
from jobs.pools.capacity import Capacity, fit
from jobs.spec import job_from_table
from jobs.stores.store import FsspecStore, LocalStore, Store
from nst.cyclegan.method import CycleGANStylizer
from nst.features import build_features
from nst.style_transfer.method import StyleTransfer
from nst.style_transfer.stylizer import StyleTransferStylizer
from nst.stylizer import Stylized

ROOT = Path(__file__).parents[2]
FINE = Check(name="losses", ok=True, text="off by 0")
WRONG = Check(name="losses", ok=False, text="off by 1")
HERE = Machine(
    python="3.12.1",
    nst="0.1.0",
    torch="2.15.0",
    ray="2.60.0",
    computes_on="CUDA 13.0",
    nvidia=False,
    driver=None,
    visible=None,
    gpus=0,
    gpu_trouble="Found no NVIDIA driver on your system.",
    cpus=4,
    machine_cpus=8,
    cpu_limit=4.0,
    memory_bytes=16 * 10**9,
    used_share=0.25,
    load=0.1,
    disks=(Disk(use="weights", folder="/cache", free_bytes=10**10),),
    weights_folder="/cache",
    weights=(),
    formats={"HEIC": True, "RAW": False},
)


def with_gpus(count: int, memory_gb: float, cpus: int, **more: Any) -> tuple[Machine, list[Device]]:
    """A machine, and its GPUs, each painting a draft in 0.02 s."""
    machine = replace(
        HERE, gpus=count, nvidia=True, driver="580.95", cpus=cpus, memory_bytes=512 * 10**9, **more
    )
    memory = round(memory_gb * 1e9)
    gpu = Gpu(name="H", capability="9.0", memory_bytes=memory, free_bytes=memory)
    return machine, [
        Device(
            name=f"cuda:{index}",
            gpu=gpu,
            bfloat16=True,
            checks=(FINE,),
            speeds=(speed("draft", 0.02), speed("best", 0.5)),
            bytes_per_pixel=3500.0,
        )
        for index in range(count)
    ]


def speed(quality: Any, seconds: float, memory_bytes: int | None = None) -> Speed:
    return Speed(
        quality=quality,
        width=1152,
        height=864,
        seconds=seconds,
        file_seconds=0.05,
        memory_bytes=memory_bytes,
    )


def cpu(*checks: Check, memory_bytes: int = 10**9) -> Device:
    return Device(
        name="cpu",
        gpu=None,
        bfloat16=False,
        checks=checks or (FINE,),
        speeds=(speed("draft", 1.0), speed("best", 50.0, memory_bytes)),
        bytes_per_pixel=3500.0,
    )


def said(advice: Advice, devices: list[Device]) -> str:
    return "\n".join(describe_advice(advice, per_hour(advice, devices), devices))


# Advice


def test_eight_large_gpus_and_few_cores() -> None:
    machine, gpus = with_gpus(8, 80, cpus=16)
    advice = advise(machine, gpus)
    assert advice.resources == {"max_workers": 8, "num_gpus": 1, "num_cpus": 2, "batch_size": 8}
    assert "2 CPU cores for each GPU: some qualities paint faster" in advice.notes[0]
    # 0.05 s of a core for each file, of which a worker has two
    assert per_hour(advice, gpus) == {"draft": pytest.approx(8 * 3600 / 0.025), "best": 8 * 3600 / 0.5}


def test_one_small_gpu() -> None:
    machine, gpus = with_gpus(1, 8, cpus=8)
    advice = advise(machine, gpus)
    assert advice.resources == {
        "max_workers": 1,
        "num_gpus": 1,
        "num_cpus": 8,
        "batch_size": 6,
    }


def test_more_gpus_than_cores() -> None:
    machine, gpus = with_gpus(8, 80, cpus=3)
    advice = advise(machine, gpus)
    assert advice.resources["max_workers"] == 3
    assert "5 of 8 GPUs stay idle" in advice.notes[0]
    assert per_hour(advice, gpus)["best"] == 3 * 3600 / 0.5


def test_no_gpu() -> None:
    advice = advise(HERE, [cpu()])
    assert advice.resources == {"max_workers": 4, "num_gpus": 0, "num_cpus": 1, "batch_size": 1}
    assert advice.notes == ()
    assert per_hour(advice, [cpu()])["draft"] == pytest.approx(4 * 3600 / 1.05)
    assert check_gpus(HERE) is None


def test_little_memory() -> None:
    advice = advise(replace(HERE, memory_bytes=5 * 10**9), [cpu(memory_bytes=2 * 10**9)])
    assert advice.resources["max_workers"] == 2
    assert "memory is for 2 workers: each takes 2.0 GB" in advice.notes[0]


def test_what_was_measured_beside_other_work_is_said_to_be() -> None:
    assert "busy (load 3.5)" in advise(replace(HERE, load=3.5), [cpu()]).notes[0]


@pytest.mark.parametrize(
    ("visible", "left"), [(None, "0,2"), ("4,5,7", "4,7"), ("GPU-a,GPU-b,GPU-c", "GPU-a,GPU-c")]
)
def test_a_gpu_that_computes_wrong_is_left_out(visible: str | None, left: str) -> None:
    machine, gpus = with_gpus(3, 80, cpus=32, visible=visible)
    gpus[1] = replace(gpus[1], checks=(FINE, WRONG))
    advice = advise(machine, gpus)
    assert advice.resources["max_workers"] == 2
    assert f"CUDA_VISIBLE_DEVICES={left} leaves them out" in advice.notes[-1]
    assert per_hour(advice, gpus)["best"] == 2 * 3600 / 0.5


def test_no_gpu_that_computes_right() -> None:
    machine, gpus = with_gpus(1, 80, cpus=4)
    advice = advise(machine, [replace(gpus[0], checks=(WRONG,))])
    assert advice.resources["num_gpus"] == 0
    assert per_hour(advice, gpus) == {}


@pytest.mark.parametrize(
    ("gpus", "memory_gb", "cpus"), [*itertools.product((0, 1, 3, 8), (4, 24, 141), (1, 2, 7, 64))]
)
def test_advice_is_taken_and_fits(gpus: int, memory_gb: float, cpus: int) -> None:
    machine, devices = with_gpus(gpus, memory_gb, cpus)
    advice = advise(machine, devices or [cpu()])
    head, _, rest = said(advice, devices or [cpu()]).partition("[resources]")
    assert head == "to set in a job file:\n\n"
    tables = tomllib.loads("[resources]" + rest.partition("\n\nnote")[0].partition("\n\nphotographs")[0])
    assert tables["resources"] == advice.resources
    method = {"kind": "style_transfer", "style": "a.jpg"}
    job = job_from_table({"photos": "p", "output": "o", **tables, "method": method}, Path("/work"))
    there = Capacity(place="here", cpus=cpus, gpus=gpus, memory_bytes=machine.memory_bytes)
    assert fit(job.resources, there).notes == ()


def test_the_page_says_what_fits() -> None:
    """The table of cards."""
    found = re.findall(r"^\| (\d+) \| ([\d.]+) \| ([\d.]+) \|$", (ROOT / "docs/gpu.md").read_text(), re.M)
    assert [int(memory) for memory, *_ in found] == [8, 24, 48, 80, 141]
    methods = [StyleTransfer(style="/a"), StyleTransfer(style="/a", preset="gatys")]
    pixels = [
        geometry.bytes_per_pixel
        for method in methods
        if (geometry := build_features(method.network or "", layers_of(method)).geometry) is not None
    ]
    for memory, *megapixels in found:
        fitting = [int(memory) * 1e9 / 2 / each / 1e6 for each in pixels]
        assert [float(each) for each in megapixels] == pytest.approx(fitting, abs=0.05)


def layers_of(method: StyleTransfer) -> list[str]:
    return [*(method.content_layers or ()), *(method.style_layers or ())]


# What is said


@pytest.mark.parametrize(
    ("machine", "text"),
    [
        (
            replace(HERE, nvidia=True, driver="580.95", torch="2.15.0+cpu", computes_on="CPUs"),
            "driver 580.95 is here, and torch 2.15.0+cpu is a build for CPUs only: install one for CUDA",
        ),
        (
            replace(
                HERE, nvidia=True, driver="470.1", gpu_trouble="The NVIDIA driver on your system is too old"
            ),
            "driver 470.1 is here, and torch 2.15.0, a build for CUDA 13.0, cannot use it; "
            "it says: The NVIDIA driver on your system is too old",
        ),
        (replace(HERE, nvidia=True, visible="0"), "a device of NVIDIA's is here, and torch"),
    ],
)
def test_why_torch_has_no_gpu(machine: Machine, text: str) -> None:
    found = check_gpus(machine)
    assert found is not None
    assert not found.ok
    assert text in found.text


@pytest.mark.parametrize("visible", ["", "-1"])
def test_gpus_that_are_hidden_are_no_fault(visible: str) -> None:
    assert check_gpus(replace(HERE, nvidia=True, visible=visible)) is None


def test_a_machine_is_told() -> None:
    text = "\n".join(describe_machine(replace(HERE, driver="580.95", visible="")))
    for part in (
        "Python 3.12.1, nst 0.1.0, Ray 2.60.0",
        "torch 2.15.0, a build for CUDA 13.0",
        "CPUs: 4 to be used, the machine has 8, limited to 4; load 0.1",
        "memory: 16.0 GB, 12.0 GB of them free",
        "disk for weights: 10.0 GB free, /cache",
        "none; the embedded networks need none",
        "reads HEIC; not RAW",
        "GPUs: none, driver 580.95, CUDA_VISIBLE_DEVICES = ''",
    ):
        assert part in text
    _, gpus = with_gpus(1, 80, cpus=4)
    assert list(describe_device(replace(gpus[0], checks=(FINE, WRONG)))) == [
        "cuda:0: H, compute capability 9.0, 80.0 GB, 80.0 GB of them free, bfloat16 in hardware",
        "  ok     losses: off by 0",
        "  FAILED losses: off by 1",
    ]


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024",
            "550.54.15",
        ),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build", "580.95.05"),
        ("", None),
    ],
)
def test_the_drivers_version_is_read(text: str, version: str | None) -> None:
    assert driver_version(text) == version


def test_this_machine_is_looked_at() -> None:
    found = look_around()
    assert found.cpus >= 1
    assert found.memory_bytes > 10**8
    assert found.formats["HEIC"]
    assert all(disk.free_bytes > 0 for disk in found.disks)
    assert (found.gpus == 0) == (found.gpu_trouble is not None)


def test_weights_that_are_there_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert look_around().weights == ()
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    (tmp_path / "hub/checkpoints/vgg19-dcbb9e9d.pth").touch()
    assert look_around().weights == ("vgg19",)


def test_an_error_is_a_failed_check() -> None:
    def work() -> tuple[bool, str]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore of it\n")

    assert attempt("a", work).text == "OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB."


# Devices that are broken on purpose


class _Convolutions(TorchFunctionMode):
    """Convolutions but for those in float64 are broken."""

    def __init__(self, broken: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self._broken = broken

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        is_broken = getattr(function, "__name__", "") == "conv2d" and made.dtype != torch.float64
        return self._broken(made) if is_broken else made


def failed(checks: list[Check]) -> dict[str, str]:
    return {check.name: check.text for check in checks if not check.ok}


def test_a_sound_device_passes() -> None:
    checks = list(self_check(torch.device("cpu")))
    assert failed(checks) == {}
    assert [check.name for check in checks] == [
        "losses and gradient, float32",
        "losses and gradient, bfloat16",
        "style_transfer",
        "deepdream",
        "feed_forward, float32",
        "feed_forward, bfloat16",
        "cyclegan, float32",
    ]


def test_convolutions_that_are_off_by_a_hundredth_are_found() -> None:
    with _Convolutions(lambda made: 1.01 * made):
        found = failed(list(self_check(torch.device("cpu"))))
    assert {"losses and gradient, float32", "feed_forward, float32", "cyclegan, float32"} <= set(found)
    assert re.match(
        r"losses off by [\d.]+e-03 \(0.0001 allowed\), gradient by", found["losses and gradient, float32"]
    )


def test_the_short_check_is_the_first_of_them() -> None:
    assert short_check(torch.device("cpu")).ok
    with _Convolutions(lambda made: 1.01 * made):
        found = short_check(torch.device("cpu"))
    assert not found.ok
    assert found.name == "losses and gradient, float32"


def test_what_is_not_a_number_is_found() -> None:
    with _Convolutions(lambda made: made * float("nan")):
        checks = list(self_check(torch.device("cpu")))
    assert len(failed(checks)) == len(checks)


def test_out_of_memory_is_told_and_the_others_go_on() -> None:
    def full(made: torch.Tensor) -> torch.Tensor:
        if made.dtype == torch.bfloat16:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return made

    with _Convolutions(full):
        checks = list(self_check(torch.device("cpu")))
    assert failed(checks) == dict.fromkeys(
        ("losses and gradient, bfloat16", "feed_forward, bfloat16"),
        "OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB.",
    )


def test_a_method_that_gives_the_photograph_back_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CycleGANStylizer, "translate", lambda _self, images: images)
    assert set(failed(list(self_check(torch.device("cpu"))))) == {"cyclegan, float32"}


@pytest.mark.parametrize(("added", "losses"), [(0.0, (2.0, 1.0)), (0.1, (1.0, 2.0))])
def test_steps_that_lead_nowhere_are_found(
    added: float, losses: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The photograph comes back, or the loss rises."""

    def stylize(_self: object, images: list[torch.Tensor], _generators: object) -> list[Stylized]:
        return [Stylized(image + added, curve={"loss": losses}) for image in images]

    monkeypatch.setattr(StyleTransferStylizer, "__call__", stylize)
    assert set(failed(list(self_check(torch.device("cpu"))))) == {"style_transfer"}


def test_a_device_that_is_not_there() -> None:
    found = examine_apart("cuda:99")
    assert found.gpu is None
    assert re.match(r"its process ended with exit code 1: \w+", failed(list(found.checks))["answers"])


def test_each_gpu_is_looked_at_as_a_worker_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone, as its process's first: of parts of GPUs no process sees more than one."""
    asked = []

    def run(command: list[str], env: dict[str, str], **_: object) -> SimpleNamespace:
        asked.append((command[-1], env["CUDA_VISIBLE_DEVICES"]))
        _, (device,) = with_gpus(1, 24, 4)
        return SimpleNamespace(returncode=0, stdout=json.dumps(dataclasses.asdict(device)), stderr="")

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-a,MIG-b")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(jobs.doctor.device.subprocess, "run", run)
    assert [examine_apart(f"cuda:{number}").name for number in (0, 1)] == ["cuda:0", "cuda:1"]
    assert asked == [("cuda:0", "MIG-a"), ("cuda:0", "MIG-b")]


def test_a_process_that_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho some last words >&2\nkill -SEGV $$\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    text = "its process ended with signal 11: some last words"
    assert failed(list(examine_apart("cpu").checks)) == {"answers": text}
    script.write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(jobs.doctor.device, "_LONGEST_S", 0.2)
    assert failed(list(examine_apart("cpu").checks)) == {"answers": "no answer in 0 seconds"}


# Stores that are broken on purpose


class _Replacing(LocalStore):
    """Ignores create-only."""

    def publish(self, path: str, data: bytes, *, create_only: bool = False) -> None:  # noqa: ARG002
        super().publish(path, data)


class _Forgetting(LocalStore):
    """Shows nothing in its lists."""

    def names(self, folder: str) -> list[str]:  # noqa: ARG002
        return []


class _Garbling(LocalStore):
    """Gives back something else."""

    def read(self, path: str) -> bytes:
        return super().read(path)[:-1] + b"?"


class _Keeping(LocalStore):
    """Removes nothing."""

    def remove(self, path: str) -> None:
        pass


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (LocalStore, set()),
        (_Replacing, {"create-only"}),
        (_Forgetting, {"list"}),
        (_Garbling, {"read", "create-only"}),
        (_Keeping, {"remove"}),
    ],
)
def test_stores_are_tried(kind: type[LocalStore], names: set[str], tmp_path: Path) -> None:
    assert set(failed(check_store(kind(str(tmp_path / "a/b"))))) == names
    assert (tmp_path / "a").exists() == (kind is _Keeping)


def test_a_store_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("x")
    check_store(LocalStore(str(tmp_path)))
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    store: Store = FsspecStore("memory://doctor-test")
    assert failed(check_store(store)) == {}
    assert list(store.find()) == []


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    checks = check_store(LocalStore(str(tmp_path / "file")))
    assert [check.name for check in checks] == ["write"]
    assert checks[0].text.startswith("NotADirectoryError: ")


# The command


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The command on a machine without a GPU, whose one device is as the given one."""

    def asked(
        *arguments: str, device: Callable[[str], Device] = lambda _: cpu(), machine: Machine = HERE
    ) -> Result:
        monkeypatch.setattr(jobs.doctor.machine, "look_around", lambda: machine)
        monkeypatch.setattr(jobs.doctor.device, "examine_apart", device)
        return CliRunner().invoke(app, ["doctor", *arguments])

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return asked


def test_all_is_well(ask: Callable[..., Result], tmp_path: Path) -> None:
    done = ask("--output", str(tmp_path / "out"))
    assert done.exit_code == 0, done.output
    assert "FAILED" not in done.stdout
    assert "ok     create-only: what is there is left alone" in done.stdout
    assert "\n[resources]\nmax_workers = 4\n" in done.stdout
    assert re.search(
        r"of 4 workers, measured here, a few seconds each:\n  draft +14,000  of 1152 x 864", done.stdout
    )


def test_a_failed_check_is_the_exit_code(ask: Callable[..., Result]) -> None:
    done = ask(device=lambda _: cpu(FINE, WRONG))
    assert done.exit_code == 1
    assert "  FAILED losses: off by 1\n" in done.stdout
    found = ask("--json", device=lambda _: cpu(FINE, WRONG))
    assert found.exit_code == 1
    assert json.loads(found.stdout)["ok"] is False


@pytest.mark.parametrize("broken", [lambda made: 1.01 * made, lambda made: made.new_empty(0).view(2)])
def test_broken_devices_are_the_exit_code(
    ask: Callable[..., Result], broken: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    def look_at(name: str) -> Device:
        with _Convolutions(broken):
            return replace(cpu(), checks=tuple(self_check(torch.device(name))))

    done = ask(device=look_at)
    assert done.exit_code == 1
    assert "  FAILED losses and gradient, float32: " in done.stdout
    assert "[resources]" in done.stdout


def test_a_store_that_ignores_create_only_is_the_exit_code(
    ask: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalStore, "publish", _publish_anyway)
    done = ask("--output", str(tmp_path))
    assert done.exit_code == 1
    assert "FAILED create-only: what is there is replaced" in done.stdout


def _publish_anyway(self: LocalStore, path: str, data: bytes, *, create_only: bool = False) -> None:  # noqa: ARG001
    (self.root / path).parent.mkdir(exist_ok=True)
    (self.root / path).write_bytes(data)


def test_a_driver_beside_a_build_for_cpus(ask: Callable[..., Result]) -> None:
    done = ask(machine=replace(HERE, nvidia=True, driver="580.95", torch="2.15.0+cpu", computes_on="CPUs"))
    assert done.exit_code == 1
    assert "FAILED GPUs: driver 580.95 is here, and torch 2.15.0+cpu is a build for CPUs only" in done.stdout
    assert "num_gpus = 0" in done.stdout


def test_every_gpu_is_looked_at_by_its_number(ask: Callable[..., Result]) -> None:
    machine, gpus = with_gpus(3, 80, cpus=32)
    found = json.loads(ask("--json", machine=machine, device=lambda name: gpus[int(name[5:])]).stdout)
    assert [device["name"] for device in found["devices"]] == ["cuda:0", "cuda:1", "cuda:2"]
    assert [Device.from_json(device) for device in found["devices"]] == gpus
    assert found["advice"]["resources"]["max_workers"] == 3


def test_a_cluster_that_is_not_there_is_a_failed_check(ask: Callable[..., Result]) -> None:
    done = ask("--address", "127.0.0.1:1")
    assert done.exit_code == 1
    assert re.search(r"FAILED cluster: OptionError: .*127\.0\.0\.1:1", done.stdout)
    assert "[resources]" in done.stdout


def test_a_cluster_is_told() -> None:
    there = Capacity(place="the cluster at h:1", cpus=64, gpus=8, memory_bytes=5e11, grows=True)
    lines: list[str] = []
    report = examined(HERE, lambda _: cpu(), cluster=lambda: there, say=lines.append)
    assert report.ok
    assert "ok     cluster: the cluster at h:1: 64 CPUs, 8 GPUs, 500.0 GB of memory" in lines
    assert json.loads(json.dumps(report.to_json()))["cluster"]["gpus"] == 8


def test_a_place_that_cannot_be_is_asked_for_wrongly(ask: Callable[..., Result]) -> None:
    assert ask("--output", "nosuch://bucket/out").exit_code == 2
    assert ask("--set", "storage.nothing_like_it=1", "--output", "out").exit_code == 2


def test_the_command_as_it_is(tmp_path: Path) -> None:
    """In processes of its own, on whatever this machine has."""
    done = subprocess.run(
        [sys.executable, "-m", "jobs", "doctor", "--json", "--output", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    found = json.loads(done.stdout)
    assert found["ok"], found
    assert done.returncode == 0
    assert set(found["photographs_per_hour"]) == {"draft", "best", "dream"}
    assert all(rate > 0 for rate in found["photographs_per_hour"].values())
    assert not (tmp_path / "out").exists()
