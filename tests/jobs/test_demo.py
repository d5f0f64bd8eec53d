"""The demonstration prepares real photographs and runs offline."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch

from jobs.demo import demo_jobs
from jobs.driver.job import plan
from jobs.errors import UsageError
from jobs.training import embedded as train_features
from nst.features import build_features, read_state_dict
from nst.features.embedded.data import is_held_out
from nst.features.weights import published_bytes
from nst.images.codec import decode_image
from nst.synthetic import brush_strokes
from tests.conftest import picture


def test_prepares_photographs_style_and_three_jobs(tmp_path: Path) -> None:
    jobs = demo_jobs(tmp_path, "local")
    found = []
    for job in jobs:
        planned = plan(job)
        assert [note for note in planned.notes if "CPUs busy" not in note] == []
        found.append((job.spec.kind, planned.manifest.rows, planned.assets[-1].url))
    assert found == [
        ("feed_forward", 6, "nst:painter"),
        ("style_transfer", 3, "nst:embedded"),
        ("deepdream", 3, "nst:embedded"),
    ]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    demo_jobs(tmp_path, "local")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert decode_image((tmp_path / "photos/astronaut.jpg").read_bytes()).shape == (3, 512, 512)


def test_without_scikit_image_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(UsageError, match=r"nst\[demo\]"):
        demo_jobs(tmp_path, "local")


def test_brush_strokes_are_a_function_of_seed_and_size() -> None:
    first = brush_strokes((64, 96), seed=3)
    assert first.shape == (64, 96, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, brush_strokes((64, 96), seed=3))
    assert not np.array_equal(first, brush_strokes((64, 96), seed=4))
    blue, orange = first[..., 2] > first[..., 0] + 40, first[..., 0] > first[..., 2] + 40
    assert blue.mean() > 0.2
    assert orange.mean() > 0.1


def test_a_short_training_of_the_network_gives_equal_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Twice in this process, as `make features` runs it; and with what is held out it learns nothing else."""
    photos = tmp_path / "photos"
    photos.mkdir()
    kept = next(name for name in (f"{number}.png" for number in range(99)) if is_held_out(name))
    for seed, name in enumerate(("a.jpg", "b.webp", "d.png")):
        picture(seed, 100, 90).save(photos / name)
    (photos / "notes.txt").write_text("no picture")
    teacher = tmp_path / "vgg16.safetensors"
    network = build_features("vgg16", ["relu5_2"], seed=1)
    state = {name: value.contiguous() for name, value in network.body.state_dict().items()}
    safetensors.torch.save_file(state, teacher)
    files = []
    for name in ("a", "b"):
        out = tmp_path / f"{name}.safetensors"
        given = {"photos": photos, "teacher": teacher, "threads": 1, "patches": 12, "patch-px": 48, "side": 32}
        steps = {"steps": 2, "batch-size": 2, "in-work": 3, "beginning": 2}
        options = [part for option, value in (given | steps).items() for part in (f"--{option}", str(value))]
        train_features.main([str(out), *options])
        files.append(out.read_bytes())
        picture(9, 100, 90).save(photos / kept)
    assert "12 patches of 3 photographs" in capsys.readouterr().out
    assert files[0] == files[1]
    assert safetensors.torch.load(files[0]).keys() == read_state_dict(published_bytes("nst:embedded")).keys()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "--photos .*: there is no photograph"),
        (["--patch-px", "64", "--side", "96"], "--patch-px 64: .* 96"),
        (["--photos", "nowhere"], "--photos nowhere: there is no such folder"),
        (["--pictures", "nowhere"], "--pictures nowhere: there is no such folder"),
        (
            ["--teacher", "nowhere"],
            "--teacher nowhere: No such file or directory; it is a file of VGG16's weights",
        ),
    ],
)
def test_what_the_training_cannot_do_is_said(tmp_path: Path, given: list[str], said: str) -> None:
    if given:
        picture(1, 100, 90).save(tmp_path / "a.png")
    teacher = tmp_path / "teacher"
    teacher.write_bytes(b"")
    with pytest.raises(SystemExit, match=said):
        train_features.main(["out", "--teacher", str(teacher), "--photos", str(tmp_path), *given])
