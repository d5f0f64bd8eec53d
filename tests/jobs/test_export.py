"""`nst export`: a trained generator as a file for other programs."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from jobs.stores.store import LocalStore
from nst.cyclegan.method import generator_file
from nst.feed_forward.files import painter_file
from nst.feed_forward.learned import LearnedStyle, StyleName
from nst.feed_forward.method import FeedForward
from nst.gan import export as export_module
from tests.jobs.test_training import nst
from tests.nst.test_cyclegan import small
from tests.nst.test_feed_forward import made as made_painter
from tests.nst.test_modulated_method import made
from tests.nst.test_published_networks import made as published
from tests.nst.test_published_networks import saved


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    network, config = small(channels=1)
    path = tmp_path / "generator.safetensors"
    path.write_bytes(generator_file({"A2B": network}, config))
    return path


def test_a_generator_is_written_and_checked(weights: Path) -> None:
    out = weights.parent / "a" / "b.pt2"
    code, shown = nst("export", str(weights), str(out))
    assert code == 0, shown
    assert shown.startswith(f"{out}: ")
    assert "its pictures differ from the generator's by" in shown
    assert [path.name for path in out.parent.iterdir()] == ["b.pt2"]
    network, _ = small(channels=1)
    x = torch.rand(1, 3, 12, 20)
    torch.testing.assert_close(
        torch.export.load(str(out)).module()(x),
        network.eval()(x),
        rtol=0,
        atol=1e-5,  # type: ignore[arg-type]
    )


def test_a_file_in_the_root_is_written_there(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not where the command is called."""
    opened = []

    def open_store(url: str, _: object) -> LocalStore:
        opened.append(url)
        return LocalStore(str(weights.parent / "root"))

    monkeypatch.setattr("jobs.cli.export.open_store", open_store)
    code, shown = nst("export", str(weights), "/b.pt2")
    assert code == 0, shown
    assert opened == ["/"]


def test_a_painter_is_written_in_its_style(tmp_path: Path) -> None:
    """And a network of one style as PyTorch's examples publish them, which needs none."""
    (tmp_path / "p.safetensors").write_bytes(painter_file(made_painter()))
    (tmp_path / "candy.pth").write_bytes(saved(published()))
    code, shown = nst("export", str(tmp_path / "p.safetensors"), str(tmp_path / "p.pt2"), "--style", "swirls")
    assert code == 0, shown
    code, shown = nst("export", str(tmp_path / "candy.pth"), str(tmp_path / "c.pt2"))
    assert code == 0, shown
    for words, said in (
        (("p.safetensors", "x.pt2"), "style = None: is required"),
        (("candy.pth", "x.pt2", "--style", "swirls"), "has one style, and takes no other"),
        (("p.safetensors", "x.pt2", "--direction", "A2B"), "--direction = 'A2B': is for CycleGANs"),
    ):
        code, shown = nst("export", str(tmp_path / words[0]), str(tmp_path / words[1]), *words[2:])
        assert (code, said in shown) == (2, True), shown
    assert not (tmp_path / "x.pt2").exists()


def test_the_painter_that_comes_along_is_named_as_in_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless there is a file of this name."""
    written: list[FeedForward] = []
    monkeypatch.setattr(FeedForward, "exportable", lambda self, *_: written.append(self))
    monkeypatch.setattr(export_module, "export_torch", lambda _: (b"exported", 0.0))
    monkeypatch.chdir(tmp_path)
    code, shown = nst("export", "embedded", "p.pt2", "--style", "swirls", "--set", "method.strength=0.5")
    assert code == 0, shown
    assert [(each.weights, each.strength) for each in written] == [("embedded", 0.5)]
    (tmp_path / "embedded").write_bytes(b"no weights")
    code, shown = nst("export", "embedded", "p.pt2", "--style", "swirls")
    assert (code, "WEIGHTS = 'embedded': not a readable state dict" in shown) == (2, True), shown


def test_a_painter_of_several_styles_is_written_in_the_one_that_is_named(tmp_path: Path) -> None:
    """Without their pictures at hand. Which it is in has to be said."""
    names = [StyleName("waves", "1" * 64), StyleName("petals", "2" * 64)]
    painter, styles = made_painter(), []
    for number, _ in enumerate(names):
        styles.append(LearnedStyle(painter.config.colored))
        styles[-1].means[0].data.fill_(number)
    several = tmp_path / "several.safetensors"
    several.write_bytes(painter_file(painter, names, styles))
    photo = torch.rand(1, 3, 16, 24)
    pictures = []
    for name in ("waves", "petals"):
        code, shown = nst("export", str(several), str(tmp_path / f"{name}.pt2"), "--style", name)
        assert code == 0, shown
        pictures.append(torch.export.load(str(tmp_path / f"{name}.pt2")).module()(photo))
    assert not torch.equal(*pictures)
    code, shown = nst("export", str(several), str(tmp_path / "x.pt2"))
    assert (
        code,
        "--style = None: is required: the network learned several. Choices: waves, petals" in shown,
    ) == (2, True)
    assert not (tmp_path / "x.pt2").exists()


def test_what_is_asked_for_wrongly_is_said_and_nothing_is_written(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = weights.parent
    many = folder / "many.safetensors"
    many.write_bytes(made()[1])
    (folder / "no.pth").write_bytes(b"no weights")
    (folder / "cut.safetensors").write_bytes(b"12345678{")
    (folder / "other.safetensors").write_bytes(safetensors.torch.save({"layer.weight": torch.zeros(3)}))
    monkeypatch.setattr(export_module, "ONNX_PACKAGES", ("torch", "no_such_package"))
    monkeypatch.chdir(folder)
    cases = (
        (("none.pth", "x.pt2"), "WEIGHTS = 'none.pth': there is no such file"),
        (("no.pth", "x.pt2"), "WEIGHTS = 'no.pth': not a readable state dict"),
        (("cut.safetensors", "x.pt2"), "WEIGHTS = 'cut.safetensors': not a readable state dict"),
        (("other.safetensors", "x.pt2"), "WEIGHTS = 'other.safetensors': "),
        ((str(weights), "x.onnx"), "OUT = 'x.onnx': must end with .pt2"),
        ((str(weights), "x.pt2", "--onnx"), "OUT = 'x.pt2': must end with .onnx"),
        ((str(weights), "x.onnx", "--onnx"), "--onnx needs no_such_package: pip install 'nst[onnx]'"),
        ((str(weights), "x.pt2", "--direction", "B2A"), "no generator for direction = 'B2A'"),
        ((str(weights), "x.pt2", "--style", "pastel"), "--style = 'pastel': is for generators of many styles"),
        ((str(weights), "x.pt2", "--set", "model.x=1"), "--set = 'model'"),
        ((str(weights), "x.pt2", "--set", "method.chanels=3"), "method.chanels = 3: unknown option"),
        (
            (str(many), "x.pt2"),
            "--style = None: is required: the generator has many. Choices: photo, ukiyo-e, pastel",
        ),
        ((str(many), "x.pt2", "--style", "pastell"), "did you mean 'pastel'?"),
        (
            (str(many), "x.pt2", "--style", "pastel", "--direction", "A2B"),
            "--direction = 'A2B': is for CycleGANs",
        ),
    )
    for words, said in cases:
        code, shown = nst("export", *words)
        assert (code, said in shown) == (2, True), shown
    assert sorted(path.name for path in folder.iterdir()) == [
        "cut.safetensors",
        "generator.safetensors",
        "many.safetensors",
        "no.pth",
        "other.safetensors",
    ]
