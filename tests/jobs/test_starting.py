"""Trainings that begin with weights: of their own kind, of the public implementation, with a style more."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from jobs.training.job import TrainJob, plan_training, reopen_training
from jobs.training.job_file import train_from_table, train_to_table
from jobs.training.layout import checkpoint_path, generator_path
from jobs.training.loop import train
from jobs.training.metrics import read_metrics
from nst.cyclegan.training import CycleGANTraining
from nst.errors import OptionError, WeightsError
from nst.modulated.training import ManyStylesTraining
from tests.jobs import test_training, test_training_styles
from tests.jobs.test_training import TINY, begun, nst, photos, setup
from tests.jobs.test_training_styles import MODEL, styles

__all__ = ["photos", "styles"]  # the fixtures
CPU = torch.device("cpu")


def cycle_loss(job: TrainJob, steps: slice) -> float:
    rows = read_metrics(job.store)[steps]
    return sum(row["cycle_A"] + row["cycle_B"] for row in rows) / len(rows)


@pytest.mark.parametrize(("first", "then"), [(60, 10), pytest.param(200, 200, marks=pytest.mark.slow)])
def test_fine_tuning_begins_at_the_loss_that_the_training_ended_with(
    photos: Path, first: int, then: int
) -> None:
    """From its own weights: seen in the metrics. A random start is far from it."""
    for side, shade in (("a", 50), ("b", 210)):  # always the same images: losses are those of the networks
        for path in (photos / side).iterdir():
            path.unlink()
        noise = np.random.default_rng(shade).integers(-20, 20, (16, 16, 3))
        Image.fromarray((noise + shade).astype(np.uint8)).save(photos / side / f"{shade}.png")

    def trained(steps: int, output: str, rate: float, **changes: Any) -> TrainJob:
        job = begun(
            photos,
            output=str(photos / output),
            model={**TINY, "generator_channels": 4, "learning_rate": rate},
            batch_size=1,
            data={"preprocess": "none", "flip": False},
            log={"metrics_every": 50, "checkpoint_every": 100, "samples_every": 0},
            schedule={
                "n_epochs": steps // 10,
                "n_epochs_decay": 0,
                "lr_policy": "cosine",
                "steps_per_epoch": 10,
            },
            **changes,
        )
        assert train(setup(job)) == steps
        return job

    job = trained(first, "first", 2e-3)
    ended = cycle_loss(job, slice(-5, None))
    assert ended < 0.7 * cycle_loss(job, slice(0, 10)), "it has learned something"
    init = {"weights": f"{job.store.url}/{checkpoint_path(first)}", "networks": "both"}
    tuned = trained(then, "tuned", 1e-6, init=init)
    assert cycle_loss(tuned, slice(0, 10)) == pytest.approx(ended, rel=0.05)


def test_files_of_the_public_implementation_are_told_by_their_names(photos: Path) -> None:
    job = begun(photos)
    trainer = job.file.spec.recipe.build(seed=7, device=CPU)
    assert isinstance(trainer, CycleGANTraining)
    for name, network in {**trainer.generators, **trainer.discriminators}.items():
        torch.save(network.state_dict(), photos / f"latest_net_{name}.pth")
    places = [str(photos / f"latest_net_{name}.pth") for name in ("G_B", "D_A", "G_A", "D_B")]
    other = job.file.spec.recipe.build(seed=8, device=CPU)
    assert isinstance(other, CycleGANTraining)
    files = {place: Path(place).read_bytes() for place in places}
    assert other.start_from(files, "both", strict=True) == []
    for name in ("G_A", "G_B", "D_A", "D_B"):
        one, two = (each._networks()[name].state_dict() for each in (trainer, other))
        assert all(torch.equal(one[key], two[key]) for key in one), name
    assert other.averages
    assert all(
        torch.equal(a, b)
        for a, b in zip(other.averages["G_B"].parameters(), other.G_B.parameters(), strict=True)
    )

    alone = {"weights": "latest_net_G_A.pth"}
    with pytest.raises(OptionError, match=r"^init\.weights = '/.*G_A\.pth': there is no G_B in it, and strict"):
        plan_training(train_from_table(test_training.table(photos, init=alone), photos))
    planned = plan_training(
        train_from_table(test_training.table(photos, init={**alone, "strict": False}), photos)
    )
    assert [note.partition(" layers")[0] for note in planned.notes if note.startswith("init")] == [
        "init: G_A: 18 of 18",
        "init: G_B: 0 of 18",
    ]


@pytest.mark.parametrize(
    ("init", "said"),
    [
        ({"weights": "nowhere.pth"}, r"init\.weights = '/.*nowhere\.pth': there is no such file"),
        ({"weights": "a/0.png"}, r"init\.weights = .*: not a readable state dict"),
        ({"networks": "G"}, r"init\.networks = 'G'.*generator.*discriminator.*both"),
        ({"networks": "both"}, r"init\.weights = \(\): the other options of this table are of no use without"),
        ({"weight": "x"}, r"init\.weight = 'x': unknown option \(did you mean 'weights'\?\)"),
    ],
    ids=str,
)
def test_what_cannot_be_begun_with_is_refused_and_nothing_is_written(
    photos: Path, init: dict[str, Any], said: str
) -> None:
    with pytest.raises(OptionError, match=said):
        begun(photos, init=init)
    assert not (photos / "out").exists()


def test_the_file_must_be_the_same_until_it_was_taken(photos: Path) -> None:
    source = begun(photos, output=str(photos / "source"))
    train(setup(source))
    path = photos / "source" / generator_path(12)
    job = begun(photos, init={"weights": str(path)})
    record = json.loads(job.store.read("job.json"))
    assert record["assets"]["init.weights"]["url"] == str(path)
    assert record["job"]["init"] == {"weights": str(path), "networks": "generator", "strict": True}
    assert reopen_training(job.store).files.starts == job.files.starts
    path.write_bytes(source.store.read(checkpoint_path(12)))
    with pytest.raises(
        OptionError, match=r"init\.weights = .*: its SHA-256 is \w+; the training was begun with \w+$"
    ):
        reopen_training(job.store)
    with pytest.raises(OptionError, match="the training was begun with"):
        begun(photos, init={"weights": str(path)})


def test_a_training_without_weights_is_what_it_was(photos: Path) -> None:
    file = train_from_table(test_training.table(photos), photos)
    assert "init" not in train_to_table(file)
    code, shown = nst("options", "training.init")
    assert code == 0
    for name in ("weights", "networks", "strict"):
        assert name in shown


# A style more


@pytest.mark.slow
def test_a_style_is_added_to_a_generator(styles: Path) -> None:
    """And to its discriminator; those that were there are taken by their names, in whichever order."""
    job = test_training_styles.begun(styles)
    train(setup(job))
    weights = f"{job.store.url}/{checkpoint_path(12)}"
    more = {name: str(styles / name) for name in ("pastel", "photo", "ukiyo-e")}
    new = {**more, "sketch": str(styles / "photo")}
    init = {"weights": weights, "networks": "both", "strict": False}
    longer = test_training_styles.begun(styles, output=str(styles / "longer"), styles=new, init=init)
    notes = [note for note in longer.notes if note.startswith("init")]
    assert notes[-1] == "init: styles begun at random: sketch"
    assert all("begun at random" not in note for note in notes[:-1]), notes
    assert train(setup(longer)) == longer.steps

    def built(places: dict[str, str], seed: int) -> ManyStylesTraining:
        table = test_training_styles.table(styles, styles=places)
        trainer = train_from_table(table, styles).spec.recipe.build(seed=seed, device=CPU)
        assert isinstance(trainer, ManyStylesTraining)
        return trainer

    before = built(dict(job.file.spec.collections), 0)
    state = torch.load(io.BytesIO(job.store.read(checkpoint_path(12))), weights_only=True)
    before.load_state_dict(state["training"])
    data = {"x": job.store.read(checkpoint_path(12))}
    after = built(new, 5)
    after.start_from(data, "both", strict=False)
    image = torch.rand(1, 3, 16, 16) * 2 - 1
    olds, news = list(job.file.spec.collections), list(new)
    for name in more:
        old, now = torch.tensor([olds.index(name)]), torch.tensor([news.index(name)])
        with torch.no_grad():
            for one, other in ((before.best["G"], after.best["G"]), (before.D, after.D)):
                # The discriminator has other numbers of channels, and rounds otherwise.
                torch.testing.assert_close(other(image, now), one(image, old))
    reordered = built(more, 5)
    assert reordered.start_from(data, "generator", strict=True) == []
    with pytest.raises(WeightsError, match="its styles are photo, ukiyo-e, pastel; strict = false"):
        built(new, 5).start_from(data, "generator", strict=True)
    with pytest.raises(WeightsError, match="one file at a time"):
        built(more, 5).start_from({**data, "y": data["x"]}, "generator", strict=True)
    assert MODEL["ema_decay"]
