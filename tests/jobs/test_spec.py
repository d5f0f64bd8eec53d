"""A job file becomes frozen dataclasses, or one error that names option, value and choices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.config.tables import read_toml
from jobs.errors import UsageError
from jobs.spec import (
    JobFile,
    Resources,
    apply_overrides,
    fingerprint,
    job_from_table,
    job_to_table,
    read_job_file,
)
from nst.errors import OptionError
from nst.style_transfer.method import StyleTransfer
from tests.methods import REGISTRY, Stub


def table(**changes: Any) -> dict[str, Any]:
    return {"photos": "in", "output": "out", "method": {"kind": "stub"}, **changes}


def resolve(base: Path, **changes: Any) -> JobFile:
    return job_from_table(table(**changes), base, REGISTRY)


def test_paths_are_taken_from_the_job_files_folder(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text(
        'photos = "in"\noutput = "s3://bucket/out"\n'
        '[method]\nkind = "style_transfer"\nstyle = "s.jpg"\nweights = "seeded"\n'
    )
    job = read_job_file(tmp_path / "job.toml")
    assert job.spec.photos == str(tmp_path / "in")
    assert job.spec.output == "s3://bucket/out"
    assert isinstance(job.spec.method, StyleTransfer)
    assert job.spec.method.style == str(tmp_path / "s.jpg")
    assert job.spec.method.weights == "seeded"
    assert job.spec.image.max_side_px == 512
    assert job.resources == Resources()


def test_so_are_all_in_a_list(tmp_path: Path) -> None:
    listed = ["a.jpg", "/b.jpg", "s3://bucket/c.jpg", "a.jpg"]
    job = resolve(tmp_path, method={"kind": "stub", "picture": "p.jpg", "pictures": listed})
    assert isinstance(job.spec.method, Stub)
    assert job.spec.method.picture == str(tmp_path / "p.jpg")
    a = str(tmp_path / "a.jpg")
    assert job.spec.method.pictures == (a, "/b.jpg", "s3://bucket/c.jpg", a)
    again = job_from_table(json.loads(json.dumps(job_to_table(job))), Path("/elsewhere"), REGISTRY)
    assert again == job
    with pytest.raises(OptionError, match=r"method\.pictures\[1\]"):
        resolve(tmp_path, method={"kind": "stub", "pictures": ["a.jpg", "https://me:secret@host/b.jpg"]})


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "examples").glob("[!t]*.toml")), ids=str)
def test_the_examples_are_job_files(path: Path) -> None:
    job = read_job_file(path)
    assert job_from_table(job_to_table(job), Path("/")) == job


def test_survives_json(tmp_path: Path) -> None:
    job = resolve(
        tmp_path,
        seed=7,
        image={"max_side_px": 0, "background": [0, 0.5, 1], "format": "png"},
        resources={"num_gpus": 0.5, "shard_size": 9},
        method={"kind": "style_transfer", "style": "x", "preset": "tutorial", "style_layers": {"relu1_1": 2}},
    )
    assert job.spec.image.max_side_px is None
    again = job_from_table(json.loads(json.dumps(job_to_table(job))), Path("/elsewhere"), REGISTRY)
    assert again == job


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"delay_s": 3}, r"^delay_s = 3: there is none outside of all tables; it is method\.delay_s$"),
        (
            {"image": {"batch_size": 3}},
            r"^image\.batch_size = 3: there is none in \[image\]; it is resources\.",
        ),
        (
            {"method": {"kind": "stub", "seed": 1}},
            r"^method\.seed = 1: there is none in \[method\]; it is seed$",
        ),
        ({"photo": "x"}, r"photo = 'x': unknown option .did you mean 'photos'.*Choices: photos, output"),
        ({"photos": None}, "photos = None: a path or URL is required"),
        ({"output": " "}, "output = ' ': a path or URL is required"),
        ({"photos": 3}, "photos = 3"),
        ({"seed": -1}, "seed = -1"),
        ({"seed": "x"}, "seed = 'x'"),
        (
            {"method": {}},
            "method.kind = None: is required. Choices: feed_forward, style_transfer, .*, modulated, stub",
        ),
        ({"method": {"kind": "stubb"}}, "method.kind = 'stubb': not one of the choices .*'stub'"),
        ({"method": {"kind": "stub", "delay": 1}}, "method.delay = 1: unknown option .*delay_s"),
        ({"method": {"kind": "stub", "delay_s": "slow"}}, "method.delay_s = 'slow': expected a number"),
        ({"method": {"kind": "stub", "delay_s": True}}, "method.delay_s = True: expected a number"),
        ({"image": {"quality": True}}, "image.quality = True: expected a whole number$"),
        ({"image": {"quality": 9.5}}, "image.quality = 9.5: expected a whole number$"),
        ({"image": {"background": [1, 1]}}, r"image.background = \[1, 1\]: expected a list of 3 numbers"),
        ({"image": {"background": [1, True, 1]}}, "image.background = .*: expected a list of 3 numbers"),
        ({"image": {"background": "white"}}, "image.background = 'white': expected a list of 3 numbers"),
        ({"method": {"kind": "stub", "delay_s": -1}}, "method.delay_s = -1"),
        ({"method": {"kind": "style_transfer"}}, "method.style = None: is required"),
        ({"method": {"kind": "style_transfer", "style": ""}}, "method.style = '': a path or URL is required"),
        (
            {"method": {"kind": "feed_forward", "style": ["a.jpg", " "]}},
            r"method.style\[1\] = ' ': a path or URL is required",
        ),
        ({"method": {"kind": "deepdream", "guide": ""}}, "method.guide = '': a path or URL is required"),
        (
            {"method": {"kind": "style_transfer", "style": "x", "init": "foto"}},
            "method.init = 'foto': .*Choices: photo, noise",
        ),
        (
            {"method": {"kind": "style_transfer", "style": "x", "content_layers": {"relu4_9": 1}}},
            "method.content_layers = 'relu4_9': embedded has no such layer .*relu4_2",
        ),
        (
            {"method": {"kind": "style_transfer", "style": "x", "style_layers": {"relu1_1": "much"}}},
            "method.style_layers = {'relu1_1': 'much'}: expected a table of numbers",
        ),
        (
            {"method": {"kind": "style_transfer", "style": 3}},
            "method.style = 3: expected text or list of texts",
        ),
        ({"image": {"format": "gif"}}, "image.format = 'gif': .*jpeg, png, webp, avif, tiff"),
        ({"image": {"bit_depth": 16}}, "image.bit_depth = 16: format = 'jpeg' has 8 bits.* png or tiff"),
        ({"image": {"bit_depth": 16, "format": "avif"}}, "image.bit_depth = 16: format = 'avif' has 8 bits"),
        ({"image": {"bit_depth": 12, "format": "png"}}, "image.bit_depth = 12: .*Choices: 8, 16"),
        ({"image": {"max_side_px": -5}}, "image.max_side_px = -5: must be at least 1, or 0: photographs keep"),
        ({"image": {"quality": 0}}, "image.quality = 0: must be from 1 to 100"),
        ({"image": {"background": [2, 0, 0]}}, "image.background"),
        ({"image": 3}, r"image = 3: must be a table: \[image\]"),
        ({"resources": {"pool": "dask"}}, "resources.pool = 'dask': .*Choices: auto, ray, local"),
        ({"resources": {"max_workers": 0}}, "resources.max_workers = 0: must be a finite number of at least 1"),
        (
            {"resources": {"min_workers": 5, "max_workers": 2}},
            "resources.min_workers = 5: more than max_workers = 2",
        ),
        ({"resources": {"timeout_s": float("nan")}}, "resources.timeout_s = nan"),
    ],
    ids=str,
)
def test_errors_name_option_value_and_choices(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        resolve(tmp_path, **changes)


def test_job_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.toml.*No such file"):
        read_job_file(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("photos = \n")
    with pytest.raises(UsageError, match=r"not valid TOML.*line 1"):
        read_job_file(tmp_path / "bad.toml")
    (tmp_path / "marked.toml").write_bytes(b'\xef\xbb\xbfphotos = "x"\r\n')
    assert read_toml(tmp_path / "marked.toml") == {"photos": "x"}, "as some editors save it"


def test_overrides_are_toml_or_text() -> None:
    found = apply_overrides(
        {"method": {"kind": "stub", "steps": 1}},
        ["method.steps=200", "method.style=a b.jpg", "image.format='png'", "method.layers={relu1_1 = 2.0}"],
    )
    assert found["method"] == {"kind": "stub", "steps": 200, "style": "a b.jpg", "layers": {"relu1_1": 2.0}}
    assert found["image"] == {"format": "png"}


def test_a_date_is_no_option(tmp_path: Path) -> None:
    """TOML has dates; taken for text without a word, `style = 2026-11-28` would be a folder of that name."""
    (tmp_path / "job.toml").write_text(
        'photos = "in"\noutput = "out"\n[method]\nkind = "style_transfer"\nstyle = ["a.jpg", 2026-11-28]\n'
    )
    with pytest.raises(OptionError, match=r"method\.style\[1\] = '2026-11-28': .*text stands in quotes"):
        read_job_file(tmp_path / "job.toml")
    assert apply_overrides({}, ["output=2026-11-28"]) == {"output": "2026-11-28"}


@pytest.mark.parametrize("bad", ["steps", "=3", "photos.x=1", "method.=3", ".a=1"])
def test_bad_overrides(bad: str) -> None:
    with pytest.raises(OptionError, match="--set"):
        apply_overrides({"photos": "in"}, [bad])


def test_the_fingerprint_is_of_what_pictures_depend_on(tmp_path: Path) -> None:
    def digest(assets: str = "a", manifest: str = "m", **changes: Any) -> str:
        return fingerprint(job_to_table(resolve(tmp_path, **changes)), {"style": assets}, manifest)

    plain = digest()
    assert digest(resources={"max_workers": 9, "num_gpus": 1}) == plain
    assert digest(output="elsewhere") == plain
    for other in (
        digest(assets="b"),
        digest(manifest="n"),
        digest(seed=1),
        digest(photos="others"),
        digest(method={"kind": "stub", "delay_s": 1}),
        digest(image={"quality": 90}),
    ):
        assert other != plain


def test_which_files_are_photographs(tmp_path: Path) -> None:
    """Options beside `photos`; a job that has none of them is as it was before they were there."""
    job = resolve(tmp_path, photos=["a", "/b"], exclude="*.png", not_in=["out-1"], hidden=True, separator=";")
    assert job.spec.photos == (str(tmp_path / "a"), "/b")
    assert job.spec.listing.exclude == ("*.png",)
    assert job.spec.listing.not_in == (str(tmp_path / "out-1"),)
    again = job_from_table(json.loads(json.dumps(job_to_table(job))), Path("/elsewhere"), REGISTRY)
    assert again == job
    assert resolve(tmp_path, photos=["a"]) == resolve(tmp_path, photos="a")
    plain = job_to_table(resolve(tmp_path))
    assert plain.keys() == {"photos", "output", "seed", "method", "image", "resources", "storage"}
    assert "truncated" not in plain["image"]
    assert job_to_table(resolve(tmp_path, image={"truncated": "keep"}))["image"]["truncated"] == "keep"


@pytest.mark.parametrize(
    "method",
    [{"kind": "cyclegan", "weights": "w"}, {"kind": "modulated", "generator": "g", "style": "x"}],
    ids=lambda method: method["kind"],
)
def test_options_that_came_later_leave_jobs_the_same(tmp_path: Path, method: dict[str, Any]) -> None:
    """They are recorded where they are set."""
    plain = job_to_table(resolve(tmp_path, method=method))["method"]
    assert "pass_memory_mb" not in plain
    assert method.keys() < plain.keys()
    job = resolve(tmp_path, method={**method, "pass_memory_mb": 500})
    assert job_to_table(job)["method"] == {**plain, "pass_memory_mb": 500}
    assert job_from_table(job_to_table(job), Path("/"), REGISTRY) == job


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"photos": []}, r"photos = \[\]: a path or URL is required"),
        ({"photos": ["a", 3]}, r"photos\[1\] = 3: a path or URL is required"),
        ({"exclude": [3]}, r"exclude = \[3\]: expected a list of texts"),
        ({"hidden": "perhaps"}, "hidden = 'perhaps': expected `true`, `false`"),
        ({"separator": ", "}, "separator = ', ': must be one character"),
        ({"not_in": ["s3://me:secret@b/x"]}, r"not_in\[0\] = 's3://\*\*\*'"),
        ({"image": {"truncated": "maybe"}}, "image.truncated = 'maybe': .*fail, keep"),
    ],
    ids=str,
)
def test_errors_of_listing_options(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        resolve(tmp_path, **changes)
