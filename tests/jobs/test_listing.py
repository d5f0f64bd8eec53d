"""What photographs there are, under which keys."""

from __future__ import annotations

import json
import os
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.errors import JobMismatch, UsageError
from jobs.ledger.listing import Photo, list_photos
from jobs.ledger.manifest import SCHEMA, Manifest, write_manifest
from jobs.stores.filesystems import read_url
from jobs.stores.store import LocalStore
from nst.errors import OptionError
from tests.conftest import encoded, picture


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"12345")


def keys(source: object) -> list[str]:
    return [photo.key for photo in list_photos(str(source))]


def test_a_folder_keeps_tree_and_names(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "b.jpg",
        "a.JPEG",
        "sub/c d.png",
        "sub/deep/é+%.webp",
        "notes.txt",
        ".hidden.jpg",
        ".git/x.jpg",
    )
    photos = list(list_photos(str(tmp_path)))
    assert [photo.key for photo in photos] == ["a", "b", "sub/c d", "sub/deep/é+%"]
    assert photos[2].url == f"{tmp_path}/sub/c d.png"
    assert photos[2].size_bytes == 5


def test_equal_stems_keep_their_extension(tmp_path: Path) -> None:
    touch(tmp_path, "x.jpg", "x.png", "y.jpg", "Z.jpg", "z.png", "x.png.tif")
    found = keys(tmp_path)
    assert len({key.casefold() for key in found}) == 6
    assert {"y", "Z.jpg", "z.png", "x.jpg"} <= set(found)


def test_names_that_differ_only_in_case(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "A.jpg", "a.JPG")
    found = keys(tmp_path)
    assert len({key.casefold() for key in found}) == 3


def test_odd_names_become_safe_keys(tmp_path: Path) -> None:
    touch(tmp_path, "back\\slash.jpg", "new\nline.jpg", "c:drive.jpg")
    (Path(str(tmp_path)) / "ok.jpg").write_bytes(b"")
    bad = bytes(tmp_path) + b"/\xff\xfe.jpg"
    open(bad, "wb").close()
    assert sorted(keys(tmp_path)) == ["%FF%FE", "back%5Cslash", "c%3Adrive", "new%0Aline", "ok"]
    assert all(read_url(photo.url) == b"12345"[: photo.size_bytes] for photo in list_photos(str(tmp_path)))
    info = write_manifest(list_photos(str(tmp_path)), tmp_path / "manifest.parquet", None)
    assert info.rows == 5


def test_a_dangling_link_is_listed(tmp_path: Path) -> None:
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    (photo,) = list_photos(str(tmp_path))
    assert photo.key == "gone"
    assert photo.size_bytes is None


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It must not pass for an empty one: its photographs would be missing and nobody would know."""
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.jpg").touch()
    real = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("b"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(PermissionError):
        list(list_photos(str(tmp_path)))
    memory = fsspec.filesystem("memory")
    for name in ("a", "b", "c"):
        memory.pipe_file(f"/partly/{name}/x.jpg", b"")
    listed = type(memory).ls

    def ls(self: object, path: str, *args: object, **options: object) -> object:
        if path.endswith("b"):
            raise OSError("slow down")
        return listed(self, path, *args, **options)

    monkeypatch.setattr(type(memory), "ls", ls)
    with pytest.raises(OSError, match="slow down"):
        list(list_photos("memory://partly"))


def test_long_names_are_cut_and_stay_apart(tmp_path: Path) -> None:
    for end in ("png", "jpg"):
        (tmp_path / f"{'x' * 251}.{end}").touch()
    keys = [photo.key for photo in list_photos(str(tmp_path))]
    assert len(set(keys)) == 2
    assert all(len(key) == 200 and key.startswith("x" * 191 + "~") for key in keys)


def test_local_names_in_a_table_are_no_urls(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("url\nIMG#1.png\nIMG#2.png\nb%41.png\nIMG:003.jpg\n")
    found = list(list_photos(str(tmp_path / "list.csv")))
    assert [photo.key for photo in found] == ["IMG#1", "IMG#2", "b%2541", "IMG%3A003"]
    assert found[3].url == str(tmp_path / "IMG:003.jpg")


def test_the_output_folder_is_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "out/images/a.jpg", "outer/b.jpg")
    found = [photo.key for photo in list_photos(str(tmp_path), exclude=f"{tmp_path}/out")]
    assert found == ["a", "outer/b"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["a", "b"]),
        ("?.jpg", ["a", "b"]),
        ("s*/*.jpg", ["s1/c", "s2/d"]),
        ("**/*.jpg", ["a", "b", "s1/c", "s1/t/e", "s2/d"]),
        ("s1/**", ["c", "t/e"]),
        ("[a]*", ["a"]),
    ],
)
def test_globs(tmp_path: Path, pattern: str, expected: list[str]) -> None:
    touch(tmp_path, "a.jpg", "b.jpg", "s1/c.jpg", "s1/t/e.jpg", "s2/d.jpg")
    assert sorted(keys(f"{tmp_path}/{pattern}")) == sorted(expected)


@pytest.mark.parametrize("pattern", ["*.{jpg,png}", "{s1,s2}/*.jpg", "{a,b}.jpg"])
def test_braces_are_said_to_be_no_part_of_a_glob(tmp_path: Path, pattern: str) -> None:
    touch(tmp_path, "a.jpg", "b.jpg", "s1/c.jpg")
    with pytest.raises(OptionError, match=r"; \{\w+,\w+\} is for shells to understand, outside of quotes"):
        keys(f"{tmp_path}/{pattern}")
    (tmp_path / pattern.replace("*", "x")).parent.mkdir(exist_ok=True)
    (tmp_path / pattern.replace("*", "x")).write_bytes(encoded(picture(1)))
    assert len(keys(f"{tmp_path}/{pattern}")) == 1, "it may be a name"


def test_a_folder_whose_name_looks_like_a_glob(tmp_path: Path) -> None:
    touch(tmp_path, "trip [2024]/a.jpg")
    assert keys(tmp_path / "trip [2024]") == ["a"]


def test_a_glob_below_a_folder_whose_name_looks_like_one(tmp_path: Path) -> None:
    touch(tmp_path, "trip [2024]/day 1?/a.jpg", "trip [2024]/day 1?/b.png", "trip 2/day 1x/c.jpg")
    assert keys(f"{tmp_path}/trip [2024]/*/*.jpg") == ["day 1%3F/a"]
    assert keys(f"{tmp_path}/trip [2024]/day 1?/*") == ["a", "b"]
    assert keys(f"{tmp_path}/trip [0-9]/*/*") == ["trip 2/day 1x/c"], "it may be one"
    fsspec.filesystem("memory").pipe_file("/brackets/trip [2024]/a.jpg", b"123")
    assert keys("memory://brackets/trip [2024]/*.jpg") == ["a"]


def test_prefixes_of_an_object_store() -> None:
    memory = fsspec.filesystem("memory")
    for name in ("b.jpg", "x/a.jpg", "x/notes.txt"):
        memory.pipe_file(f"/bucket/{name}", b"123")
    photos = list(list_photos("memory://bucket"))
    assert [(photo.key, photo.size_bytes) for photo in photos] == [("b", 3), ("x/a", 3)]
    assert photos[1].url == "memory://bucket/x/a.jpg"


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_tables(tmp_path: Path, format: str) -> None:
    rows = [
        {"url": "a.jpg", "key": "one"},
        {"url": "/abs/b.jpg", "key": "t/two"},
        {"url": "s3://x/c.jpg", "key": "3"},
    ]
    path = tmp_path / f"list.{format}"
    if format == "csv":
        path.write_text("﻿url,key\n" + "".join(f'"{row["url"]}",{row["key"]}\n' for row in rows), "utf-8")
    elif format == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    photos = list(list_photos(str(path)))
    assert [photo.key for photo in photos] == ["one", "t/two", "3"]
    assert [photo.url for photo in photos] == [f"{tmp_path}/a.jpg", "/abs/b.jpg", "s3://x/c.jpg"]


def test_a_table_without_keys_takes_the_names(tmp_path: Path) -> None:
    (tmp_path / "list.jsonl").write_text('{"url": "https://host/a/b%20c.jpg?size=3"}\n{"url": "d.png"}\n')
    assert keys(tmp_path / "list.jsonl") == ["b c", "d"]


def test_of_a_table_no_other_columns_are_read(tmp_path: Path) -> None:
    """They may hold pictures: here, one that cannot be read at all."""
    path = tmp_path / "list.parquet"
    table = pa.table({"image": [b"x" * 1000], "url": ["a.jpg"], "key": ["one"]})
    pq.write_table(table, path, compression="none", use_dictionary=False)
    about = pq.ParquetFile(path).metadata.row_group(0).column(0)
    assert about.path_in_schema == "image"
    data = bytearray(path.read_bytes())
    data[about.data_page_offset : about.data_page_offset + 64] = b"\xff" * 64
    path.write_bytes(data)
    with pytest.raises(OSError, match="page header"):
        pq.ParquetFile(path).read()
    assert keys(path) == ["one"]
    pq.write_table(table.drop(["url"]), path)
    with pytest.raises(UsageError, match="row 1 has no `url`; columns: image, key"):
        keys(path)


class _Plain(BaseHTTPRequestHandler):
    """Of the web: a server that tells no size, and sends no parts."""

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(b"url,key\n" + b"".join(b"%d.jpg,k%d\n" % (each, each) for each in range(30_000)))

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *_: object) -> None:
        pass


def test_a_table_of_the_web_is_read_whole() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Plain) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}"
        photos = list(list_photos(f"{base}/list.csv"))
        server.shutdown()
    assert len(photos) == 30_000
    assert photos[7] == Photo("k7", f"{base}/7.jpg")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"uri": "a.jpg"}', "row 1 has no `url`; columns: uri"),
        ('{"url": "a.jpg"}\n{"url": ""}', "row 2 has no place: its `url` is empty"),
        ('{"url": 7}', "row 1 has no place: its `url` is 7, which is no text"),
        ("[1]", r"line 1: expected one JSON object, got '\[1\]'"),
        ('{"url": "a", "key": "../x"}', "key '../x'"),
        ('{"url": "a", "key": "/x"}', "key '/x'"),
        ('{"url": "a", "key": "a//b"}', "key 'a//b'"),
        ('{"url": "a", "key": "c:\\\\x"}', "key"),
        ('{"url": "a", "key": "a\\u0000b"}', "key"),
        ('{"url": "a", "key": "' + "x" * 300 + '"}', "key 'x{40}'... is too long: at most 200 bytes between"),
        ('{"url": "a", "key": "' + "x/" * 500 + 'x"}', "key .* is too long: .* and 900 in all"),
    ],
)
def test_bad_tables(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "list.jsonl").write_text(text)
    with pytest.raises(UsageError, match=said):
        list(list_photos(str(tmp_path / "list.jsonl")))


def test_a_line_that_is_no_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "list.jsonl").write_text('{"url": "a.jpg"}\n\n{"url": "b.jpg"\n')
    with pytest.raises(OptionError, match=r"not a readable table: line 3 is no JSON: .*, at character 17"):
        list(list_photos(str(tmp_path / "list.jsonl")))


def test_a_separator_is_asked_for_though_rows_have_commas(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text('url;caption\na.jpg;"Rome, in May"\n')
    with pytest.raises(UsageError, match="row 1 has no `url`; columns: url;caption; `separator` says what is"):
        list(list_photos(str(tmp_path / "list.csv")))


@pytest.mark.parametrize("column", ["key", "style"])
def test_blanks_around_the_name_of_a_column_are_told(tmp_path: Path, column: str) -> None:
    """Else nobody reads what is in it, and nobody is told."""
    path = tmp_path / "list.csv"
    path.write_text(f"url, {column}\na.jpg, b\n")
    with pytest.raises(UsageError, match=rf"the name of the column ' {column}' has blanks around it"):
        keys(path)
    path.write_text(f"url,{column},  caption\na.jpg,b, c\n")
    assert len(keys(path)) == 1, "of what is not read nothing is said"


@pytest.mark.parametrize(("name", "separator"), [("list.csv", ","), ("list.tsv", "\t")])
def test_a_separator_within_a_name_is_not_taken_for_one_between_columns(
    tmp_path: Path, name: str, separator: str
) -> None:
    """Else the row is another file under the rest of its name as its key, which nobody is told."""
    path = tmp_path / name
    rows = [["url", "key"], ["a.jpg", "a"], ["Rome, May\t.jpg", "b"], ["c.jpg"], ["d.jpg", "d", ""]]
    path.write_text("\n".join(map(separator.join, rows)))
    with pytest.raises(UsageError, match=rf"{name}: line 3 has more cells than the header; .* double quotes"):
        keys(path)
    rows[2][0] = f'"{rows[2][0]}"'
    path.write_text("\n".join(map(separator.join, rows)))
    found = list(list_photos(str(path)))
    assert [photo.key for photo in found] == ["a", "b", "c", "d"], "empty cells at an end say nothing"
    assert found[1].url == f"{tmp_path}/Rome, May\t.jpg"


@pytest.mark.parametrize("rest", ['"open\nc.jpg,3\n', '"12" long\nc.jpg,3\n', '"open\nc.jpg,"3"\n'])
@pytest.mark.parametrize(("name", "separator"), [("list.csv", ","), ("list.tsv", "\t")])
def test_a_quote_that_nobody_closes_takes_no_photographs_with_it(
    tmp_path: Path, name: str, separator: str, rest: str
) -> None:
    """Else all rows that follow are one cell of a column that nobody reads: lost, and nobody is told."""
    path = tmp_path / name
    path.write_text(f"url,caption\na.jpg,1\nb.jpg,{rest}".replace(",", separator))
    with pytest.raises(UsageError, match=rf"{name}: the row after line 2 cannot be read: .* double quote"):
        keys(path)
    path.write_text('url,caption\na.jpg,5" nails\nb.jpg,"two\nlines, ""quoted"""\nc.jpg,3\n')
    if separator == ",":
        assert keys(path) == ["a", "b", "c"]


def test_cells_that_nobody_reads_may_be_large(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(f"url,picture\na.jpg,{'x' * 1_000_000}\nb.jpg,\n")
    assert keys(tmp_path / "list.csv") == ["a", "b"]


@pytest.mark.parametrize("value", ["[" * 100_000 + "]" * 100_000, "1" * 5000], ids=["nested", "long"])
def test_a_line_that_no_parser_takes_is_named(tmp_path: Path, value: str) -> None:
    (tmp_path / "list.jsonl").write_text(f'{{"url": "a.jpg"}}\n{{"url": "b.jpg", "x": {value}}}\n')
    with pytest.raises(OptionError, match=r"not a readable table: line 2: "):
        keys(tmp_path / "list.jsonl")


@pytest.mark.parametrize("name", ["list.jsonl", "list.parquet", "list.csv"])
def test_what_is_no_table_is_said_once(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"{\n\xff")
    with pytest.raises(OptionError) as caught:
        list(list_photos(str(path)))
    assert re.match(
        f"photos = '{re.escape(str(path))}': not a readable table: (?!.*photos =)", str(caught.value)
    )


def test_places_that_are_nothing(tmp_path: Path) -> None:
    for place, said in (
        (tmp_path / "none", "no such folder or file"),
        (tmp_path / "none.csv", "no such file"),
        (f"{tmp_path}/none/*.jpg", "there is no folder"),
    ):
        with pytest.raises(OptionError, match=said):
            list_photos(str(place))


# The manifest


def manifest_of(tmp_path: Path, count: int, shard_size: int | None) -> Manifest:
    touch(tmp_path, *(f"in/{number:05d}.jpg" for number in range(count)))
    (tmp_path / "job").mkdir(exist_ok=True)
    write_manifest(list_photos(str(tmp_path / "in")), tmp_path / "job" / "manifest.parquet", shard_size)
    return Manifest(LocalStore(str(tmp_path / "job")))


@pytest.mark.parametrize(("count", "shard_size"), [(1, 1), (7, 3), (6, 3), (5, 24), (24, None), (300, None)])
def test_shards_cover_every_row_once(tmp_path: Path, count: int, shard_size: int | None) -> None:
    manifest = manifest_of(tmp_path, count, shard_size)
    rows = [row for shard in range(manifest.shards) for row in manifest.shard(shard)]
    assert [row.index for row in rows] == list(range(count))
    assert [row.key for row in rows] == [f"{number:05d}" for number in range(count)]
    assert [len(manifest.shard(shard)) for shard in range(manifest.shards)] == [
        manifest.rows_in(shard) for shard in range(manifest.shards)
    ]
    assert manifest.rows == count


def test_small_jobs_are_cut_for_several_workers(tmp_path: Path) -> None:
    assert manifest_of(tmp_path, 24, None).shards == 24
    assert 16 <= manifest_of(tmp_path, 300, None).shards <= 32


def test_the_digest_does_not_depend_on_the_cut(tmp_path: Path) -> None:
    first = manifest_of(tmp_path, 20, 3).sha256
    assert manifest_of(tmp_path, 20, 7).sha256 == first
    touch(tmp_path, "in/more.jpg")
    assert manifest_of(tmp_path, 20, 7).sha256 != first


def test_no_photographs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no photographs found"):
        write_manifest(list_photos(str(tmp_path)), tmp_path / "m.parquet", None)


def test_equal_keys_are_refused_also_in_other_case(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("url,key\na.jpg,x\nb.jpg,y\nc.jpg,X\n")
    with pytest.raises(UsageError, match=r"'x' \(.*a\.jpg\) and 'X' \(.*c\.jpg\)"):
        write_manifest(list_photos(str(tmp_path / "list.csv")), tmp_path / "m.parquet", None)


def test_a_row_group_holds_many_shards(tmp_path: Path) -> None:
    """What is known of a row group takes memory in every process of a job."""
    rows = 10_000
    photos = (Photo(f"{number:05d}", f"{number:05d}.jpg") for number in range(rows))
    info = write_manifest(photos, tmp_path / "manifest.parquet", None)
    manifest = Manifest(LocalStore(str(tmp_path)))
    assert (info.shards, manifest.shards) == (157, 157)
    assert pq.read_metadata(tmp_path / "manifest.parquet").num_row_groups == 3
    for shard in (0, 63, 64, 127, 156):
        found = manifest.shard(shard)
        assert [row.index for row in found] == list(range(64 * shard, min(64 * shard + 64, rows)))
        assert [row.key for row in found] == [f"{row.index:05d}" for row in found]
    for shard in (-1, 157):
        with pytest.raises(IndexError, match="157"):
            manifest.shard(shard)


def test_a_manifest_with_a_row_group_per_shard_can_be_read(tmp_path: Path) -> None:
    """As jobs have that were begun with version 0.1."""
    table = pa.table(
        {"key": list("abcde"), "url": list("ABCDE"), "size_bytes": [None, 1, 2, 3, 4]}, schema=SCHEMA
    )
    meta = {"nst": json.dumps({"sha256": "", "shard_size": 2})}
    pq.write_table(table.replace_schema_metadata(meta), tmp_path / "manifest.parquet", row_group_size=2)
    manifest = Manifest(LocalStore(str(tmp_path)))
    assert [[row.key for row in manifest.shard(shard)] for shard in range(3)] == [["a", "b"], ["c", "d"], ["e"]]


def test_row_groups_that_are_not_whole_shards_are_damage(tmp_path: Path) -> None:
    table = pa.table({"key": list("abcde"), "url": list("ABCDE"), "size_bytes": [0] * 5}, schema=SCHEMA)
    meta = {"nst": json.dumps({"sha256": "", "shard_size": 2})}
    pq.write_table(table.replace_schema_metadata(meta), tmp_path / "manifest.parquet", row_group_size=1)
    with pytest.raises(JobMismatch, match="whole shards"):
        Manifest(LocalStore(str(tmp_path))).shard(0)
