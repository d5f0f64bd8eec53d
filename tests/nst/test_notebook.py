"""The library alone, as in a notebook; and the lines of docs/notebook.md."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
import torch

import nst
from nst.features import build_features
from nst.features.weights import SHIPPED_SHA256
from tests.conftest import encoded, picture
from tests.nst.test_style_transfer import image_of

pytestmark = pytest.mark.usefixtures("narrow_vggs")

ROOT = Path(__file__).parents[2]


@pytest.fixture
def photo() -> torch.Tensor:
    return nst.decode_image(encoded(picture(1, 48, 36), "PNG"))


@pytest.fixture
def style() -> torch.Tensor:
    return nst.decode_image(encoded(picture(2, 40, 40), "PNG"))


def test_progress_is_an_iterator_of_steps(photo: torch.Tensor, style: torch.Tensor) -> None:
    steps = list(nst.stylize(photo, style, weights="seeded", network="vgg16", coarse_steps=3, steps=4))
    assert [step.evaluations for step in steps][-4:] == [steps[-1].evaluations - 3 + n for n in range(4)]
    assert steps[-1].image.shape == photo.shape
    assert steps[-1].losses["loss"] <= steps[-4].losses["loss"]
    last = list(nst.dream(photo, weights="seeded", network="vgg16", steps=2, octaves=1))[-1]
    assert last.image.shape == photo.shape
    assert last.losses["objective"] > 0


def test_equals_the_method_that_jobs_run(photo: torch.Tensor, style: torch.Tensor) -> None:
    options = {"weights": "seeded", "preset": "tutorial", "network": "vgg16", "steps": 4}
    *_, last = nst.stylize(photo, style, seed=7, init="noise", **options)
    method = nst.StyleTransfer(style="s", init="noise", **options)  # type: ignore[arg-type]
    stylizer = method.build({"s": nst.encode_image(style, format="png")}, torch.device("cpu"))
    (outcome,) = stylizer([photo], [torch.Generator().manual_seed(7)])
    assert torch.equal(last.image, image_of(outcome))


def test_takes_a_state_dict(photo: torch.Tensor, style: torch.Tensor) -> None:
    network = build_features("vgg16", ["relu3_1"], seed=11)
    state = {name.removeprefix("body."): value for name, value in network.state_dict().items()}
    step = next(nst.stylize(photo, style, network="vgg16", state=state, preset="tutorial"))
    assert step.evaluations == 1
    with pytest.raises(nst.OptionError, match=r"weights = 'mine\.pth'.*imagenet, seeded"):
        next(nst.stylize(photo, style, weights="mine.pth"))


def test_too_small_is_a_typed_error(style: torch.Tensor) -> None:
    with pytest.raises(nst.ImageTooSmall):
        next(nst.stylize(torch.rand(3, 1, 5), style, weights="seeded"))


def test_the_pages_lines_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python block of docs/notebook.md, beside two small pictures of the names it uses."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/notebook.md").read_text(), re.S)
    notebook = [block for block in blocks if "nst.stylize" in block]
    assert len(notebook) == 1
    lines = [line for line in notebook[0].splitlines() if line and not line.startswith(("import", "from"))]
    assert len(lines) <= 4, "three lines from a picture file to a stylized picture, and one to save it"
    monkeypatch.chdir(tmp_path)
    Path("photo.jpg").write_bytes(encoded(picture(1, 64, 48)))
    Path("style.jpg").write_bytes(encoded(picture(2, 48, 48)))
    Path("block.py").write_text(notebook[0])
    runpy.run_path("block.py")
    assert nst.decode_image(Path("stylized.png").read_bytes()).shape == (3, 48, 64)


def test_what_is_no_picture_is_refused_by_its_name(photo: torch.Tensor, style: torch.Tensor) -> None:
    """Levels from 0 to 255, or a picture of one channel, would be painted as something else."""
    broken = photo.clone()
    broken[0, 0, 0] = torch.nan
    cases = (
        ((photo * 255, style), "photo = 'torch.float32, (3, 36, 48), from "),
        (
            ((photo * 255).byte(), style),
            r"photo = 'torch.uint8, (3, 36, 48)': must be a tensor (3, H, W), RGB in",
        ),
        ((photo[:1], style), "photo = 'torch.float32, (1, 36, 48)': "),
        ((photo, broken), "style = 'torch.float32, (3, 36, 48), from nan to nan': "),
        ((photo, [style]), "style = 'list': "),
        ((Path("a.jpg"), style), "photo = "),
    )
    for arguments, said in cases:
        with pytest.raises(nst.OptionError, match=re.escape(said)):
            next(nst.stylize(*arguments, weights="seeded", network="vgg16"))  # type: ignore[arg-type]
    for guide in ("x", style[None], broken):
        with pytest.raises(nst.OptionError, match="guide = "):
            next(nst.dream(photo, guide=guide, weights="seeded", network="vgg16"))  # type: ignore[arg-type]


def test_options_are_refused_by_their_names(photo: torch.Tensor, style: torch.Tensor) -> None:
    with pytest.raises(nst.OptionError, match=r"step = 3: unknown option \(did you mean 'steps'\?\)"):
        next(nst.stylize(photo, style, step=3))
    with pytest.raises(nst.OptionError, match=r"step = 3: unknown option \(did you mean 'steps'\?\)"):
        next(nst.dream(photo, step=3))
    with pytest.raises(nst.OptionError, match=r"layers = .*: must be a table of layers and their weights"):
        next(nst.dream(photo, layers=["relu5_1"]))
    with pytest.raises(nst.OptionError, match="quality = 500: must be at most 100"):
        nst.encode_image(photo, quality=500)
    with pytest.raises(TypeError, match="data must be the bytes of a file"):
        nst.decode_image(Path("photo.jpg"))  # type: ignore[arg-type]


def test_values_of_another_type_are_refused_by_the_options_names(
    photo: torch.Tensor, style: torch.Tensor
) -> None:
    """Where they ended in an error of Python's, somewhere within."""
    whole, number = "must be a whole number", "must be a number"
    for options, said in (
        ({"steps": 10.0}, f"steps = 10.0: {whole}"),
        ({"steps": "10"}, f"steps = '10': {whole}"),
        ({"steps": True}, f"steps = True: {whole}"),
        ({"pass_memory_mb": 99.5}, rf"pass_memory_mb = 99.5: {whole}"),
        ({"border_px": "2"}, f"border_px = '2': {whole}"),
    ):
        for begun in (nst.stylize(photo, style, **options), nst.dream(photo, **options)):
            with pytest.raises(nst.OptionError, match=said):
                next(begun)
    for options, said in (
        ({"octave_scale": "2"}, f"octave_scale = '2': {number}"),
        ({"octaves": 1.5}, f"octaves = 1.5: {whole}"),
        ({"jitter_px": 2.5}, f"jitter_px = 2.5: {whole}"),
        ({"step_size": None}, f"step_size = None: {number}"),
    ):
        with pytest.raises(nst.OptionError, match=said):
            next(nst.dream(photo, **options))
    right = {"octave_scale": 2, "layers": None, "pass_memory_mb": None, "steps": 1, "octaves": 1}
    next(nst.dream(photo, weights="seeded", network="vgg16", **right))
    with pytest.raises(nst.OptionError, match=f"style_weight = '5': {number}"):
        next(nst.stylize(photo, style, style_weight="5"))


def test_digests_are_not_passed_over(photo: torch.Tensor, style: torch.Tensor) -> None:
    wrong, right = "0" * 64, SHIPPED_SHA256["nst:embedded"]
    with pytest.raises(nst.OptionError, match=f"weights_sha256 = '0+': the SHA-256 of 'embedded' is {right}"):
        next(nst.stylize(photo, style, network="embedded", weights_sha256=wrong))
    next(nst.dream(photo, network="embedded", weights_sha256=right.upper(), octaves=1, steps=1))
    network = build_features("vgg16", ["relu3_1"], seed=11)
    state = {name.removeprefix("body."): value for name, value in network.state_dict().items()}
    with pytest.raises(
        nst.OptionError, match=r"weights_sha256 = '0+': parameters given as `state` have no file"
    ):
        next(nst.stylize(photo, style, network="vgg16", state=state, weights_sha256=wrong))
    with pytest.raises(nst.OptionError, match=r"guide_sha256 = '0+': pictures are given as tensors"):
        next(nst.dream(photo, guide=style, guide_sha256=wrong))
    with pytest.raises(nst.OptionError, match=r"style_sha256 = '0+': pictures are given as tensors"):
        next(nst.stylize(photo, style, style_sha256=wrong))


def test_a_choice_is_not_suggested_for_itself() -> None:
    """Of a value that is right, in the wrong place."""
    reason = "only without --key"
    assert str(nst.OptionError("--marked", "keep", choices=("keep", "again"), reason=reason)) == (
        "--marked = 'keep': only without --key. Choices: keep, again"
    )
