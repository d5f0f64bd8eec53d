"""What every method and its stylizer must do."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from jobs.cli.options import options_of
from jobs.config.tables import parse_table
from jobs.spec import job_from_table, job_to_table
from nst.errors import DecodeError, ImageTooSmall, OptionError, WeightsError
from nst.methods import METHODS
from nst.stylizer import Assets, IterativeMethod, IterativeStylizer, Method, Outcome, Stylized, Stylizer

CPU = torch.device("cpu")
SIZES = ((40, 48), (33, 57), (40, 48), (64, 37))


def photographs() -> list[Tensor]:
    """One of each of `SIZES`, with smooth parts and sharp ones."""
    generator = torch.Generator().manual_seed(7)
    photos = []
    for height, width in SIZES:
        coarse = torch.rand(1, 3, 5, 5, generator=generator)
        photo = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0]
        photo[:, height // 3 : height // 2, width // 4 : width // 2] = 0.9
        photos.append(photo.contiguous())
    return photos


def seeded(count: int, first: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(first + number) for number in range(count)]


def image_of(outcome: Outcome) -> Tensor:
    assert isinstance(outcome, Stylized), outcome
    return outcome.image


class MethodContract:
    """Inherit, say the `KIND`, and provide the fixtures `options` (of a job file, quick) and `assets`."""

    KIND: str

    @pytest.fixture
    def kind(self) -> str:
        return self.KIND

    @pytest.fixture
    def method(self, kind: str, options: dict[str, Any]) -> Method:
        return parse_table(METHODS[kind], options, "method")

    @pytest.fixture
    def stylizer(self, method: Method, assets: Assets) -> Stylizer:
        return method.build(assets, CPU)

    # The description

    def test_is_frozen_and_takes_keywords_only(self, method: Any) -> None:
        field = dataclasses.fields(method)[0]
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(method, field.name, getattr(method, field.name))
        assert not hasattr(method, "__dict__"), "slots"
        assert all(each.kw_only for each in dataclasses.fields(method))

    def test_comes_back_from_pickle_and_from_a_job_file(self, kind: str, method: Any) -> None:
        assert pickle.loads(pickle.dumps(method)) == method
        table = {"photos": "/p", "output": "/o", "method": {"kind": kind, **dataclasses.asdict(method)}}
        job = job_from_table(table, Path("/"))
        again = job_from_table(job_to_table(job), Path("/"))
        assert again == job
        assert again.spec.method == job.spec.method

    def test_every_option_is_documented(self, method: Any) -> None:
        for option in options_of(type(method)):
            assert len(option.help) > 10, f"{option.name} says nothing"

    def test_an_unknown_option_is_refused_with_the_choices(self, kind: str, options: dict[str, Any]) -> None:
        with pytest.raises(OptionError, match=r"method\.invented.*Choices"):
            parse_table(METHODS[kind], {**options, "invented": 1}, "method")

    def test_its_files_are_named_by_its_options(self, method: Method, assets: Assets) -> None:
        names = {field.name for field in dataclasses.fields(method)}  # type: ignore[arg-type]
        refs = method.assets()
        assert {ref.url for ref in refs} == set(assets)
        assert all(ref.option.partition("[")[0] in names for ref in refs)
        assert all(isinstance(note, str) and note for note in method.notes(assets))

    def test_damaged_files_are_typed_errors(self, method: Method, assets: Assets) -> None:
        """Cut in half, empty, and another's."""
        for ref in method.assets():
            for damaged in (assets[ref.url][: len(assets[ref.url]) // 2], b"", b"neither one nor the other"):
                with pytest.raises((WeightsError, DecodeError, OptionError)):
                    method.build({**assets, ref.url: damaged}, CPU)

    # What it builds

    def test_keeps_sizes_and_the_range(self, stylizer: Stylizer) -> None:
        photos = photographs()
        for photo, outcome in zip(photos, stylizer(photos, seeded(len(photos))), strict=True):
            image = image_of(outcome)
            assert image.shape == photo.shape
            assert image.dtype == torch.float32
            assert not image.requires_grad
            assert bool(image.isfinite().all())
            assert 0 <= float(image.min()) <= float(image.max()) <= 1
            assert not torch.equal(image, photo), "it does something"

    def test_evaluations_are_counted_and_as_many_as_were_said(self, method: Method, stylizer: Stylizer) -> None:
        if not isinstance(method, IterativeMethod):
            pytest.skip("it does not go step by step")
        assert isinstance(stylizer, IterativeStylizer)
        said = sum(number for _, number in method.schedule)
        assert stylizer.evaluations == 0
        photo = photographs()[0]
        stylizer([photo], seeded(1))
        once = stylizer.evaluations
        assert 0 < once <= said
        stylizer([photo, photo], seeded(2))
        assert stylizer.evaluations == 3 * once
        small_to_large = [scale for scale, _ in method.schedule]
        assert small_to_large == sorted(small_to_large)
        assert small_to_large[-1] == 1

    def test_photographs_are_not_modified(self, stylizer: Stylizer) -> None:
        photos = photographs()
        before = [photo.clone() for photo in photos]
        stylizer(photos, seeded(len(photos)))
        assert all(torch.equal(photo, old) for photo, old in zip(photos, before, strict=True))

    def test_a_batch_is_its_photographs_one_by_one(self, stylizer: Stylizer) -> None:
        """To the byte, in the order of the photographs, whatever that is."""
        photos = photographs()
        alone = [
            image_of(stylizer([photo], [generator])[0])
            for photo, generator in zip(photos, seeded(len(photos)), strict=True)
        ]
        together = [image_of(each) for each in stylizer(photos, seeded(len(photos)))]
        backward = [image_of(each) for each in stylizer(photos[::-1], seeded(len(photos))[::-1])][::-1]
        for one, two, three in zip(alone, together, backward, strict=True):
            assert torch.equal(one, two)
            assert torch.equal(one, three)

    def test_the_generator_is_the_only_randomness(self, stylizer: Stylizer) -> None:
        photo = photographs()[0]
        torch.manual_seed(1)
        first = image_of(stylizer([photo], seeded(1))[0])
        state = torch.random.get_rng_state()
        torch.manual_seed(2)
        second = image_of(stylizer([photo], seeded(1))[0])
        assert torch.equal(first, second)
        torch.manual_seed(1)
        assert torch.equal(state, torch.random.get_rng_state()), "it draws nothing from torch's own generator"

    def test_no_photographs_are_no_outcomes(self, stylizer: Stylizer) -> None:
        assert stylizer([], []) == []

    def test_a_photograph_that_is_too_small_fails_alone(self, stylizer: Stylizer) -> None:
        """Or it is done; its batch mates are what they are without it."""
        photo = photographs()[0]
        tiny = torch.full((3, 1, 1), 0.5)
        expected = image_of(stylizer([photo], seeded(1))[0])
        first, second = stylizer([tiny, photo], [seeded(1)[0], seeded(1)[0]])
        assert isinstance(first, ImageTooSmall) or image_of(first).shape == tiny.shape
        assert torch.equal(image_of(second), expected)
