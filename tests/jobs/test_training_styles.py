"""A training of one generator for many styles ends the same wherever it is interrupted, and what it makes is
what the batch job takes."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from jobs.errors import JobMismatch
from jobs.training.evaluate import evaluate
from jobs.training.job import TrainJob, create_or_open_training, reopen_training
from jobs.training.job_file import read_train_file, train_from_table, train_to_table
from jobs.training.layout import (
    STOP,
    best_step,
    checkpoint_steps,
    generator_steps,
    read_skipped,
    sample_path,
    sample_steps,
)
from jobs.training.loop import train
from jobs.training.metrics import means, read_metrics
from jobs.training.report import build_training_report
from jobs.training.status import train_status
from jobs.training.tensorboard import write_events
from nst.errors import OptionError
from nst.gan.sampling import style_pair
from nst.modulated.directions import direction_means
from nst.modulated.method import Modulated
from nst.stylizer import Stylized
from tests.jobs.test_training import _events, curve, kill_at_any_write, nst, setup

MODEL: dict[str, Any] = {
    "generator": "modulated",
    "generator_channels": 2,
    "blocks": 1,
    "latent": 4,
    "discriminator_channels": 2,
    "discriminator_layers": 1,
    "penalty_every": 3,
    "ema_decay": 0.5,
    "lambda_identity": 0.5,
}
COUNTS = {"photo": 5, "ukiyo-e": 4, "pastel": 3}
DIRECTIONS = [f"{a}_to_{b}" for a in COUNTS for b in COUNTS if a != b]


@pytest.fixture
def styles(tmp_path: Path) -> Path:
    """Folders of three styles; one photograph of `pastel` is none."""
    generator = torch.Generator().manual_seed(0)
    for style, count in COUNTS.items():
        (tmp_path / style).mkdir()
        for number in range(count):
            levels = torch.randint(0, 256, (20, 24, 3), generator=generator, dtype=torch.uint8)
            Image.fromarray(levels.numpy()).save(tmp_path / style / f"{number}.png")
    (tmp_path / "pastel/1.png").write_text("no picture")
    return tmp_path


def table(folder: Path, **changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "styles": {style: str(folder / style) for style in COUNTS},
        "output": str(folder / "out"),
        "batch_size": 3,
        "model": MODEL,
        "data": {"load_size": 18, "crop_size": 16},
        "schedule": {"n_epochs": 1, "n_epochs_decay": 1, "lr_policy": "plateau"},
        "log": {"metrics_every": 2, "checkpoint_every": 4, "samples_every": 5, "samples": 2},
        "resources": {"loader_workers": 0},
    }
    return {**base, **changes}


def begun(folder: Path, **changes: Any) -> TrainJob:
    return create_or_open_training(train_from_table(table(folder, **changes), folder))


def test_ends_with_losses_of_every_direction_samples_and_a_generator(styles: Path) -> None:
    job = begun(styles)
    assert (job.epoch_steps, job.steps) == (6, 12), (
        "18 samples: three rounds of six directions, for 5 photographs"
    )
    assert train(setup(job)) == 12
    rows = curve(job.store)
    assert [row["step"] for row in rows] == list(range(1, 13))
    kinds = ("gan", "cycle", "images")
    names = {f"{kind}_{direction}" for kind in kinds for direction in DIRECTIONS} | {"penalty"}
    names |= {f"{kind}_{style}" for kind in ("D", "identity") for style in COUNTS}
    assert rows[0].keys() == names | {"step", "epoch", "learning_rate"}
    assert [row["penalty"] > 0 for row in rows] == [True, False, False] * 4
    assert checkpoint_steps(job.store) == [8, 12]
    assert generator_steps(job.store) == [12]
    assert sample_steps(job.store) == [5, 10, 12]
    with Image.open(io.BytesIO(job.store.read(sample_path(5)))) as grid:
        assert grid.size == ((1 + 3) * 16, 3 * 2 * 16), "two photographs of each style, in every style"
    (skipped,) = read_skipped(job.store).values()
    assert skipped["url"].endswith("pastel/1.png")


def test_a_sample_is_of_its_directions_styles_and_all_photographs_come_before_any_again(styles: Path) -> None:
    job = begun(styles)
    counts = {name: manifest.rows for name, manifest in job.manifests.items()}
    names = list(COUNTS)
    came: dict[tuple[str, str], list[int]] = {}
    for sample in range(6 * 10):
        chosen = job.file.spec.recipe.choose(sample, counts, 0)
        assert [each.collection for each in chosen] == [names[style] for style in style_pair(sample, 3, 0)]
        for role, each in zip("AB", chosen, strict=True):
            came.setdefault((role, each.collection), []).append(each.place)
    for (_, name), places in came.items():
        count = COUNTS[name]
        rounds = [places[start : start + count] for start in range(0, len(places) - count + 1, count)]
        assert len(rounds) >= 4
        assert all(sorted(each) == list(range(count)) for each in rounds)
    assert came["A", "photo"] != came["B", "photo"]


@pytest.mark.slow
def test_killed_at_any_write_it_ends_as_if_it_was_not(styles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the lazy penalty. Quick, of another training: test_training.py; the loop is the same."""
    kill_at_any_write(begun, styles, monkeypatch, before=True)


@pytest.mark.slow  # quick: the contract of recipes
def test_stopped_and_reopened_it_goes_on(styles: Path) -> None:
    """From its folder alone."""
    job = begun(styles)
    job.store.publish(STOP, b"")
    assert train(setup(job)) == 1
    job.store.remove(STOP)
    again = reopen_training(job.store, overrides={"log": {"metrics_every": 5}})
    assert again.file.spec == job.file.spec
    assert train(setup(again)) == 12
    whole = begun(styles, output=str(styles / "whole"))
    train(setup(whole))
    assert curve(job.store) == curve(whole.store)


def test_only_the_generators_losses_decide_on_a_plateau(styles: Path) -> None:
    job = begun(styles, schedule={"n_epochs": 2, "n_epochs_decay": 0, "lr_policy": "plateau"})
    train(setup(job))
    state = torch.load(
        io.BytesIO(job.store.read("checkpoints/step-000000012.pt")), map_location="cpu", weights_only=True
    )
    rows = curve(job.store)
    epochs = [
        sum(
            loss
            for row in rows[start : start + 6]
            for name, loss in row.items()
            if name.split("_")[0] in ("gan", "cycle", "identity")
        )
        / 6
        for start in (0, 6)
    ]
    assert state["scheduler"]["best"] in [pytest.approx(epoch) for epoch in epochs]


def test_an_order_of_styles_is_part_of_the_training(styles: Path) -> None:
    job = begun(styles)
    turned = {style: str(styles / style) for style in reversed(COUNTS)}
    with pytest.raises(JobMismatch, match=r"model.styles: \['photo', 'ukiyo-e', 'pastel'\] in the folder"):
        begun(styles, styles=turned)
    assert begun(styles, styles=turned, output=str(styles / "turned")).fingerprint != job.fingerprint
    with pytest.raises(JobMismatch, match=r"model.penalty_every: 3 in the folder, 4 asked for"):
        begun(styles, model={**MODEL, "penalty_every": 4})
    assert begun(styles, log={"metrics_every": 3}).fingerprint == job.fingerprint


def test_the_example_is_a_job_file() -> None:
    file = read_train_file(Path(__file__).parents[2] / "examples/train_styles.toml")
    assert list(file.spec.collections) == ["photo", "painting", "dream"]
    assert train_from_table(train_to_table(file), Path("/")) == file


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": {"generator": "modulate"}}, r"styles = .*with model.kind = 'modulated'"),
        (
            {"model": {**MODEL, "pool_size": 3}},
            r"model.pool_size = 3: is an option of .*model.kind = 'cyclegan'.*blocks",
        ),
        ({"model": {**MODEL, "form": "joined"}}, r"model.form = 'joined'.*grouped, scaled"),
        ({"model": {**MODEL, "kind": "modulate"}}, r"model.kind = 'modulate'.*did you mean 'modulated'"),
        ({"model": {**MODEL, "kind": "cyclegan"}}, r"styles = .*with model.kind = 'modulated'"),
        ({"model": {"kind": "modulated", "generator": "unet_128"}}, r"model.generator = 'unet_128'.*modulated"),
        ({"model": 3}, r"model = 3: must be a table"),
        ({"model": {**MODEL, "blcks": 3}}, r"model.blcks = 3: unknown option .*'blocks'"),
        (
            {"model": {}},
            r"styles = .*is an option of trainings with model.kind = 'modulated'. Choices: a, b, output",
        ),
        ({"model": {**MODEL, "gan_mode": "wgangp"}}, r"model.gan_mode = 'wgangp'.*hinge"),
        ({"model": {**MODEL, "styles": ["photo", "pastel"]}}, r"model.styles = .*\[styles\] has \['photo'"),
        ({"model": {**MODEL, "styles": 3}}, r"model.styles = 3"),
        (
            {"a": "x"},
            r"a = 'x': is an option of trainings with model.kind = 'cyclegan'. Choices: styles, output",
        ),
        ({"styles": None}, r"styles = None: must be a table"),
        ({"styles": {"photo": "x"}}, r"styles = \['photo'\]: at least two"),
        ({"styles": {"photo": "x", "a_b": "y"}}, r"styles.a_b = 'y': a style's name has letters, digits and -"),
        ({"styles": {"photo": "x", "../b": "y"}}, r"styles.../b = 'y': a style's name"),
        ({"styles": {"photo": "x", "Photo": "y"}}, r"differ in case only"),
        ({"styles": {"photo": "x", "b": ""}}, r"styles.b = '': a path or URL is required"),
        ({"styles": {"photo": "x", "b": "s3://id:secret@bucket/x"}}, r"styles.b = 's3://\*\*\*'"),
        ({"styles": {"photo": "x", "a_b": "s3://id:secret@bucket/x"}}, r"styles.a_b = 's3://\*\*\*'"),
        ({"a": "s3://id:secret@bucket/x"}, r"a = 's3://\*\*\*'"),
        ({"data": {"preprocess": "none"}}, r"data.preprocess = 'none': images of two styles.*resize_and_crop"),
        ({"data": {"crop_size": 18}}, "data.crop_size = 18.*multiple of 4"),
        ({"data": {"crop_size": 4}}, "data.crop_size = 4: the networks.*need 8"),
        ({"evaluation": {"directions": 0}}, "evaluation.directions = 0"),
    ],
    ids=str,
)
def test_bad_options_are_named(styles: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        train_from_table(table(styles, **changes), styles)


def test_what_is_of_the_other_generator_says_so(styles: Path) -> None:
    sides = {"a": str(styles / "photo"), "b": str(styles / "pastel"), "output": str(styles / "out")}
    with pytest.raises(OptionError, match=r"model.latent = 4: is an option of .*model.kind = 'modulated'"):
        train_from_table({**sides, "model": {"latent": 4}}, styles)
    with pytest.raises(OptionError, match=r"styles = None: a table of photographs by style is required"):
        train_from_table({"output": "x", "model": {"generator": "modulated"}}, styles)


def test_the_smallest_crop_that_is_allowed_trains(styles: Path) -> None:
    model = {**MODEL, "discriminator_layers": 3}
    with pytest.raises(OptionError, match="discriminator_layers = 3, need 16"):
        begun(styles, model=model, data={"load_size": 18, "crop_size": 12})
    job = begun(styles, model=model, schedule={"n_epochs": 1, "n_epochs_decay": 0, "steps_per_epoch": 1})
    assert train(setup(job)) == 1


def test_places_without_photographs_are_named(styles: Path) -> None:
    nowhere = {**table(styles)["styles"], "pastel": str(styles / "nowhere")}
    with pytest.raises(OptionError, match=r"styles.pastel = .*nowhere"):
        begun(styles, styles=nowhere)
    with pytest.raises(OptionError, match=r"output = .*is the folder of pastel's photographs"):
        begun(styles, output=str(styles / "pastel"))
    assert not (styles / "out").exists()


def test_the_command_line_plans_and_states(styles: Path) -> None:
    shown = nst("train", "options")[1]
    for text in ('[model] kind = "modulated"', "penalty_every", "[styles]", "upsample"):
        assert text in shown, text
    places = "".join(f'{style} = "{style}"\n' for style in COUNTS)
    (styles / "job.toml").write_text(f'output = "out"\n[styles]\n{places}[model]\ngenerator = "modulated"\n')
    code, shown = nst("train", "cyclegan", str(styles / "job.toml"), "--dry-run")
    said = "5 (photo), 4 (ukiyo-e) and 3 (pastel) photographs, 3600 steps, 18 per epoch; nothing was written"
    assert (code, shown.splitlines()[-1]) == (0, said)
    job = begun(styles)
    train(setup(job))
    code, shown = nst("status", job.store.url)
    assert code == 0
    for text in ("5 of photo, 4 of ukiyo-e, 3 of pastel", "photo to ukiyo-e", "D "):
        assert text in shown, text
    assert "images_" not in shown
    assert json.loads(nst("status", job.store.url, "--json")[1])["losses"].keys() >= {"gan_photo_to_pastel"}


def test_losses_are_shown_by_direction_and_by_style(styles: Path) -> None:
    job = begun(styles)
    train(setup(job))
    rows, grouped = read_metrics(job.store), job.file.spec.recipe.grouped
    losses = means(rows)
    groups = grouped(losses)
    assert list(groups["loss"]) == ["gan", "cycle", "identity", "D", "penalty"]
    assert groups.keys() == {"loss", *DIRECTIONS, *COUNTS}
    for kind in ("gan", "cycle", "identity", "D"):
        parts = [loss for name, loss in losses.items() if name.startswith(f"{kind}_")]
        assert groups["loss"][kind] == pytest.approx(sum(parts))
    for direction in DIRECTIONS:
        for kind in ("gan", "cycle"):
            assert groups[direction][kind] == direction_means(losses)[f"{kind}_{direction}"]
    for row in rows[:3]:  # not yet of all directions equally
        one = means([row])
        got = {b: sum(one[f"images_{a}_to_{b}"] for a in COUNTS if a != b) for b in COUNTS}
        had = {a: sum(one[f"images_{a}_to_{b}"] for b in COUNTS if a != b) for a in COUNTS}
        for kind, shares in (("D", got), ("identity", had)):
            for style, share in shares.items():
                mean = grouped(one).get(style, {}).get(kind)
                assert (mean is None) == (share == 0)
                assert (mean or 0) * share == pytest.approx(one[f"{kind}_{style}"])
    values = {value.tag: value.simple_value for value in _events(write_events(rows, grouped))[1].summary.value}
    assert values["photo_to_pastel/gan"] == pytest.approx(groups["photo_to_pastel"]["gan"])
    assert values["loss/cycle"] == pytest.approx(groups["loss"]["cycle"])
    html = build_training_report(job.store)
    for text in (
        "photo to ukiyo-e",
        "photo to ukiyo-e: cycle",
        "these as photo, ukiyo-e, pastel",
        "pastel/1.png",
    ):
        assert text in html, text
    assert "images_" not in html
    assert html.count("<polyline") == 9 + 2 * len(DIRECTIONS) + 2 * len(COUNTS)


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        pytest.param(12, [*DIRECTIONS[:2], "ukiyo-e_to_photo", "pastel_to_photo"], marks=pytest.mark.slow),
        (1, ["photo_to_ukiyo-e"]),
    ],
    ids=["all", "one"],
)
def test_distances_are_those_of_directions(styles: Path, most: int, expected: list[str]) -> None:
    evaluation = {"every": 6, "photos": 4, "layer": "relu1_1", "directions": most}
    job = begun(styles, evaluation=evaluation)
    train(setup(job))
    assets = {asset.url: asset.data for asset in job.assets}
    found = {step: evaluate(job.file, setup(job).urls, assets, step) for step in (6, 12)}
    assert list(found[12]) == [f"{metric}_{name}" for name in expected for metric in ("fid", "kid")]
    assert all(found[12][f"fid_{name}"] > 0 for name in expected)
    sums = {step: sum(found[step][f"fid_{name}"] for name in expected) for step in found}
    assert best_step(found, "fid") == min(sums, key=lambda step: sums[step])
    assert f"fid_{expected[0]}" in build_training_report(job.store)
    assert train_status(job.store).evaluations[12] == found[12]


def test_the_generator_is_what_the_batch_job_takes(styles: Path) -> None:
    job = begun(styles)
    train(setup(job))
    data = job.store.read("generators/step-000000012.safetensors")
    average = torch.load(
        io.BytesIO(job.store.read("checkpoints/step-000000012.pt")), map_location="cpu", weights_only=True
    )["training"]["averages"]["G"]
    stylizer = Modulated(generator="x", style="pastel").build({"x": data}, torch.device("cpu"))
    assert stylizer.network.styles == tuple(COUNTS)
    for name, tensor in stylizer.network.state_dict().items():
        assert torch.equal(tensor, average[name]), name
    (found,) = stylizer([torch.rand(3, 21, 30)], [torch.Generator()])
    assert isinstance(found, Stylized)
    assert found.image.shape == (3, 21, 30)
