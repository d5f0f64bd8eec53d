"""Whole jobs of `kind = "modulated"`: the job's style or blend, and photographs with styles of their own."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from jobs.driver.job import Job, create_or_open, plan, reopen
from jobs.driver.run import run
from jobs.driver.todo import retry_work
from jobs.inspect.verify import verify
from jobs.ledger.listing import Photo, list_photos
from jobs.ledger.manifest import SCHEMA, Manifest, row_digest, write_manifest
from jobs.spec import job_from_table, job_to_table, read_job_file
from jobs.stores.store import LocalStore
from nst.errors import OptionError
from nst.images.codec import decode_photo, encode_image
from nst.modulated.method import Modulated, ModulatedConfig, modulated_file
from nst.ops.equalized import draw_parameters
from nst.stylizer import Stylized
from tests.conftest import encoded, picture
from tests.jobs.test_stylize import images, rows
from tests.methods import REGISTRY

STYLES = ("photo", "ukiyo-e", "pastel")
BLEND = {"ukiyo-e": 0.7, "pastel": 0.3}


def published(folder: Path) -> Path:
    """A generator that nobody trained."""
    config = ModulatedConfig(styles=STYLES, channels=4, blocks=1, latent=4)
    network = config.build()
    draw_parameters(network, torch.Generator().manual_seed(0))
    path = folder / "generator.safetensors"
    path.write_bytes(modulated_file(network, config))
    return path


def listed(folder: Path, styles: list[str | None]) -> dict[str, str | None]:
    """Photographs of a few sizes, in a manifest with a style each, or none; gives the styles by key."""
    (folder / "in").mkdir()
    records = []
    for number, style in enumerate(styles):
        name = f"in/{number:02d}.jpg"
        (folder / name).write_bytes(encoded(picture(number, 24 + 5 * (number % 3), 16 + number % 2)))
        records.append({"url": name, "style": style})
    with (folder / "list.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["url", "style"])
        writer.writeheader()
        writer.writerows(records)
    return {f"{number:02d}": style for number, style in enumerate(styles)}


def table(folder: Path, **changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "photos": "list.csv",
        "output": "out",
        "method": {"kind": "modulated", "generator": str(published(folder)), "style": "ukiyo-e"},
        "image": {"format": "png"},
        "resources": {"pool": "local", "max_workers": 1},
    }
    return {
        name: {**base[name], **changes.get(name, {})}
        if isinstance(base[name], dict)
        else changes.get(name, base[name])
        for name in base
    }


def begin(folder: Path, **changes: Any) -> Job:
    return create_or_open(job_from_table(table(folder, **changes), folder, REGISTRY), REGISTRY)


def expected(folder: Path, styles: dict[str, str | None], own: str | dict[str, float]) -> dict[str, bytes]:
    """The pictures by inference here, one photograph after the other."""
    torch.set_num_threads(1)
    data = published(folder).read_bytes()
    found = {}
    for key, style in styles.items():
        stylizer = Modulated(generator="g", style=own if style is None else style).build(
            {"g": data}, torch.device("cpu")
        )
        photo = decode_photo((folder / f"in/{key}.jpg").read_bytes(), max_side_px=512)
        (outcome,) = stylizer([photo.image], [torch.Generator()])
        assert isinstance(outcome, Stylized)
        found[key] = encode_image(outcome.image, format="png", exif=photo.exif)
    return found


def pictures_of(job: Job) -> dict[str, bytes]:
    return {Path(path).stem: job.store.read(path) for path in job.store.find("images")}


# Listings


def _csv(path: Path) -> None:
    path.write_text("url,style\na.jpg,pastel\nb.jpg,\n")


def _jsonl(path: Path) -> None:
    path.write_text('{"url": "a.jpg", "style": "pastel"}\n{"url": "b.jpg"}\n')


def _parquet(path: Path) -> None:
    pq.write_table(pa.table({"url": ["a.jpg", "b.jpg"], "style": ["pastel", None]}), path)


@pytest.mark.parametrize(("name", "write"), [("l.csv", _csv), ("l.jsonl", _jsonl), ("l.parquet", _parquet)])
def test_a_column_of_a_table_gives_photographs_styles(
    tmp_path: Path, name: str, write: Callable[[Path], None]
) -> None:
    write(tmp_path / name)
    assert [photo.style for photo in list_photos(str(tmp_path / name))] == ["pastel", None]
    info = write_manifest(list_photos(str(tmp_path / name)), tmp_path / "manifest.parquet", 1, styled=True)
    manifest = Manifest(LocalStore(str(tmp_path)))
    assert [row.style for shard in range(2) for row in manifest.shard(shard)] == ["pastel", None]
    plain = write_manifest(list_photos(str(tmp_path / name)), tmp_path / "plain.parquet", 1)
    assert plain.sha256 != info.sha256
    assert pq.read_schema(tmp_path / "plain.parquet").names == SCHEMA.names
    assert [row.style for row in Manifest(LocalStore(str(tmp_path)), "plain.parquet").shard(0)] == [None]


def test_a_manifest_without_styles_is_what_it_was(tmp_path: Path) -> None:
    assert row_digest("k", "u") == row_digest("k", "u", None) == b"k\0u\n" != row_digest("k", "u", "s")
    photos = [Photo("a", "/a.jpg", 3), Photo("b", "/b.jpg", 4)]
    infos = [
        write_manifest(photos, tmp_path / f"{styled}.parquet", 2, styled=styled) for styled in (True, False)
    ]
    assert infos[0] == infos[1]


@pytest.mark.parametrize("style", [3, {"a": 1}, "\ud800", 2.5, True], ids=str)
def test_what_is_no_name_of_a_style_is_text(tmp_path: Path, style: Any) -> None:
    (tmp_path / "l.jsonl").write_text(json.dumps({"url": "a.jpg", "style": style}))
    write_manifest(list_photos(str(tmp_path / "l.jsonl")), tmp_path / "manifest.parquet", 1, styled=True)
    (row,) = Manifest(LocalStore(str(tmp_path))).shard(0)
    assert row.style


# Jobs


def test_rows_have_the_jobs_style_or_their_own_or_an_error(tmp_path: Path) -> None:
    styles = listed(tmp_path, [None, "pastel", "pastell", "photo", None, "ukiyo-e"])
    job = begin(tmp_path, method={"style": BLEND}, resources={"batch_size": 3, "shard_size": 6})
    there = "there are 'pastel', 'photo', 'ukiyo-e'"
    assert f"1 photograph will fail, of unknown styles: 'pastell'; {there}" in job.notes
    summary = run(job)
    assert summary.exit_code == 3
    found = {result.key: result for result in rows(job)}
    failed = found.pop("02")
    assert (failed.status, failed.error_type) == ("failed", "UnknownStyle")
    assert failed.error is not None
    assert "style = 'pastell'" in failed.error
    assert "Choices: photo, ukiyo-e, pastel" in failed.error
    own = {"style:ukiyo-e": 0.7, "style:pastel": 0.3}
    for key, result in found.items():
        assert result.status == "ok"
        style = styles[key]
        assert dict(result.stats) == ({f"style:{style}": 1.0} if style else own)
    del styles["02"]
    assert pictures_of(job) == expected(tmp_path, styles, BLEND)
    assert list(verify(job.store)) == []
    assert [work.rows for work in retry_work(job)] == [(2,)]


def test_bytes_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    styles = listed(tmp_path, [None, "pastel", "photo", "pastel", "ukiyo-e", None, "photo"])
    wanted = expected(tmp_path, styles, "pastel")
    for batch_size in (1, 7):
        output, resources = str(tmp_path / f"out{batch_size}"), {"batch_size": batch_size, "shard_size": 7}
        job = begin(tmp_path, output=output, method={"style": "pastel"}, resources=resources)
        assert run(job).exit_code == 0
        assert pictures_of(job) == wanted


@pytest.mark.parametrize("style", ["pastell", {"ukiyo-e": 1.0, "pastell": 1.0}], ids=str)
def test_an_unknown_style_is_refused_before_any_work(tmp_path: Path, style: Any) -> None:
    listed(tmp_path, [None])
    for prepare in (begin, lambda folder, **changes: plan(job_from_table(table(folder, **changes), folder))):
        with pytest.raises(
            OptionError, match=r"method.style = .*unknown style 'pastell'.*photo, ukiyo-e, pastel"
        ):
            prepare(tmp_path, method={"style": style})
    assert not (tmp_path / "out").exists()


def test_another_digest_or_no_generator_is_refused(tmp_path: Path) -> None:
    listed(tmp_path, [None])
    with pytest.raises(OptionError, match=r"method.generator = .*its SHA-256 is"):
        begin(tmp_path, method={"generator_sha256": "0" * 64})
    with pytest.raises(OptionError, match=r"method.generator = .*no such file"):
        begin(tmp_path, method={"generator": "nowhere.safetensors"})


def test_methods_that_take_no_styles_refuse_them(tmp_path: Path) -> None:
    listed(tmp_path, [None, "pastel"])
    given = {**table(tmp_path), "method": {"kind": "stub"}}
    with pytest.raises(OptionError, match=r"photos = .*'01' has the style 'pastel'.*'stub' takes none"):
        create_or_open(job_from_table(given, tmp_path, REGISTRY), REGISTRY)
    assert not (tmp_path / "out").exists()


def test_styles_are_part_of_the_job(tmp_path: Path) -> None:
    """A listing that was never published is made again, with them; another one is refused."""
    listed(tmp_path, ["pastel", None])
    job = begin(tmp_path)
    (tmp_path / "out/manifest.parquet").unlink()
    again = reopen(job.store, registry=REGISTRY)
    assert again.fingerprint == job.fingerprint
    assert again.manifest.shard(0)[0].style == "pastel"
    (tmp_path / "out/manifest.parquet").unlink()
    (tmp_path / "list.csv").write_text("url,style\nin/00.jpg,photo\nin/01.jpg,\n")
    with pytest.raises(Exception, match="the photographs have changed since"):
        reopen(job.store, registry=REGISTRY)


def test_job_files_come_back(tmp_path: Path) -> None:
    for style in ("pastel", BLEND):
        file = job_from_table(table(tmp_path, method={"style": style}), tmp_path)
        assert file.spec.method.style == style  # type: ignore[attr-defined]
        assert job_from_table(job_to_table(file), Path("/")) == file
    example = read_job_file(Path(__file__).parents[2] / "examples/styles.toml")
    assert example.spec.method.style == {"painting": 0.7, "dream": 0.3}  # type: ignore[attr-defined]
    override = read_job_file(
        Path(__file__).parents[2] / "examples/styles.toml", ["method.style={ukiyo-e = 1, pastel = 2}"]
    )
    assert override.spec.method.style == {"ukiyo-e": 1, "pastel": 2}  # type: ignore[attr-defined]
    for style, said in (
        (3, "method.style"),
        ({"pastel": "much"}, "method.style"),
        ({"a": -1}, r"method.style.a = -1"),
    ):
        with pytest.raises(OptionError, match=said):
            job_from_table(table(tmp_path, method={"style": style}), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("own", ["pastel", BLEND], ids=["style", "blend"])
def test_sixty_photographs_through_ray_are_those_of_inference_here(
    tmp_path: Path, ray_session: str, own: Any
) -> None:
    choices = (None, *STYLES)
    styles = listed(tmp_path, [choices[number % 4] for number in range(60)])
    wanted = expected(tmp_path, styles, own)
    for batch_size in (1, 4, 7):
        resources = {"pool": "ray", "address": ray_session, "max_workers": 2, "batch_size": batch_size}
        output = str(tmp_path / f"out{batch_size}")
        job = begin(tmp_path, output=output, method={"style": own}, resources={**resources, "shard_size": 15})
        assert run(job).exit_code == 0
        assert len(images(job)) == 60
        assert pictures_of(job) == wanted
