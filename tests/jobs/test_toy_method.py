"""A method is one file and one line of the registry: it runs, resumes, is reported and is listed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from jobs.cli.app import app
from nst.images.codec import decode_image
from nst.methods import METHODS
from nst.stylizer import Assets
from tests.contracts.method import MethodContract


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line in the registry."""
    monkeypatch.setitem(METHODS._places, "toy", "tests.jobs.toy_method:Toy")  # type: ignore[attr-defined]


class TestToy(MethodContract):
    KIND = "toy"

    @pytest.fixture
    def options(self) -> dict[str, Any]:
        return {"strength": 0.3}

    @pytest.fixture
    def assets(self) -> Assets:
        return {}


def nst(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.output


def test_it_runs_resumes_and_is_reported(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(5):
        Image.new("RGB", (24, 16 + number), (40 * number, 90, 200)).save(tmp_path / f"photos/{number}.png")
    (tmp_path / "job.toml").write_text(
        'photos = "photos"\noutput = "out"\n[method]\nkind = "toy"\nstrength = 0.25\n'
        '[image]\nformat = "png"\n[resources]\npool = "local"\nmax_workers = 1\nshard_size = 2\n'
    )
    job, out = str(tmp_path / "job.toml"), tmp_path / "out"
    code, said = nst("run", job, "--dry-run")
    assert (code, out.exists()) == (0, False), said
    assert nst("run", job)[0] == 0
    receipts = sorted((out / "results").iterdir())
    before = [pq.read_table(receipt).to_pylist() for receipt in receipts]
    assert [row["status"] for rows in before for row in rows] == ["ok"] * 5
    photo, picture = (
        decode_image((folder / "3.png").read_bytes()) for folder in (tmp_path / "photos", out / "images")
    )
    expected = 0.75 * photo + 0.25 * torch.tensor([1.0, 0.5, 0.0]).view(3, 1, 1)
    torch.testing.assert_close(picture, expected, rtol=0, atol=0.5 / 255 + 1e-6)

    receipts[1].unlink()
    for path in (out / "journal/shard-00001").iterdir():
        path.unlink()
    (out / "images/2.png").unlink()
    assert "3 of 5" in nst("status", str(out))[1]
    assert nst("resume", str(out))[0] == 0
    again = [pq.read_table(receipt).to_pylist() for receipt in receipts]
    assert [[row["output_sha256"] for row in rows] for rows in again] == [
        [row["output_sha256"] for row in rows] for rows in before
    ]
    assert nst("verify", str(out))[0] == 0
    assert nst("report", str(out))[0] == 0
    assert "toy" in (out / "report.html").read_text()


def test_it_is_listed_with_its_options() -> None:
    code, shown = nst("options", "toy")
    assert code == 0
    for text in ("A wash of color.", "strength", "0.5", "How much of the color there is"):
        assert text in " ".join(shown.split())
    assert "strength" in nst("methods")[1]
    code, said = nst("options", "watercolor")
    assert code == 2
    assert "toy" in said
