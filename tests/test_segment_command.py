"""`segserve segment`, `models` and `completion` as users type them: here, against a server, interrupted, resumed."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, get_args
from zipfile import ZipFile

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from segserve.cli import main
from segserve.inputs import find
from segserve.interrupt import INTERRUPTED
from segserve.journal import NAME
from segserve.progress import clock
from segserve.views import ENDINGS
from service.render import View
from tests.bundles import BLUE, GREEN, RED, Net, bands, encoded, write_bundle
from tests.containers import write_table, write_tar
from tests.load import wait_for
from tests.server import Server, free_port, running

ROOT = Path(__file__).parent.parent
FLAG = bands(RED, GREEN, BLUE, height=60, width=90)
ALL = ",".join(ENDINGS)
MANY = 500
SLOW = Net(turns=15_000)
"""A net that takes some hundredths of a second."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_bundle(folder)
    return folder


@pytest.fixture(scope="module")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(models, tmp_path_factory.mktemp("server") / "log") as started:
        yield started


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Pictures in folders: flag.jpg, deep/er/flag.png, and what is none of ours."""
    folder = tmp_path / "photos"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    (folder / "flag.jpg").write_bytes(encoded(FLAG, "JPEG"))
    (folder / "deep" / "er" / "flag.PNG").write_bytes(encoded(FLAG[:, :60]))
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden" / "flag.png").write_bytes(encoded(FLAG))
    return folder


def segserve(*arguments: object, code: int = 0, given: str = "") -> Result:
    done = CliRunner().invoke(main, [str(argument) for argument in arguments], input=given)
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    assert done.exit_code == code, done.output
    return done


def files(folder: Path) -> dict[str, Path]:
    """Every file below a folder but its journal and summary, by relative name."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path for name, path in found.items() if name not in (NAME, "summary.csv")}


def content(path: Path) -> object:
    """A file's content; of a zip, its files, since the zip itself tells the time."""
    if path.suffix != ".zip":
        return path.read_bytes()
    with ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_here_and_there_and_over_http_the_results_are_the_same(
    models: Path, server: Server, photos: Path, tmp_path: Path
) -> None:
    options = ["--views", ALL, "--alpha", "0.3", "--classes", "red,1"]
    segserve("segment", photos, "-o", tmp_path / "here", "--models", models, *options)
    segserve("segment", photos, "-o", tmp_path / "there", "--url", server.url, *options)
    here, there = files(tmp_path / "here"), files(tmp_path / "there")
    assert len(here) == 2 * len(ENDINGS)
    assert {"flag.overlay.jpg", "flag.json", "deep/er/flag.overlay.png", "deep/er/flag.geojson"} <= set(here)
    assert {name: content(path) for name, path in here.items()} == {name: content(path) for name, path in there.items()}
    assert (tmp_path / "here" / "summary.csv").read_bytes() == (tmp_path / "there" / "summary.csv").read_bytes()
    for view in ENDINGS:
        asked = {"output": view, "store": "false"}
        asked |= {"alpha": "0.3"} if view == "overlay" else {}
        asked |= {} if view in ("mask", "color", "confidence") else {"classes": "red,1"}
        with (photos / "flag.jpg").open("rb") as picture:
            answer = httpx.post(f"{server.url}/segment", params=asked, files={"image": picture})
        (own,) = (here[name] for name in here if name in {f"flag.{ending}" for ending in ENDINGS[view]})
        if view == "json":
            wanted = {name: value for name, value in answer.json().items() if name not in ("id", "stored", "links")}
            assert json.loads(own.read_text()) == wanted
        elif view == "zip":
            with ZipFile(BytesIO(answer.content)) as archive:
                assert {name: archive.read(name) for name in archive.namelist()} == content(own)
        else:
            assert own.read_bytes() == answer.content


def test_results_do_not_stay_on_the_server(server: Server, photos: Path, tmp_path: Path) -> None:
    segserve("segment", photos / "flag.jpg", "-o", tmp_path / "out", "--url", server.url)
    *_, result = re.findall(r"GET /results/([^/ ]+)/overlay", server.log.read_text())
    assert httpx.get(f"{server.url}/results/{result}").status_code == 404


def test_the_views_of_the_command_are_those_of_the_service() -> None:
    assert tuple(ENDINGS) == get_args(View)


def test_the_summary_tells_the_shares_in_csv_and_parquet(tmp_path: Path, photos: Path) -> None:
    write_bundle(tmp_path / "models", classes=("red", "path", "blue"))
    for summary in ("shares.csv", "shares.parquet"):
        place = ["--models", tmp_path / "models", "--summary", tmp_path / summary]
        segserve("segment", photos, "-o", tmp_path / f"out.{summary}.d", "--views", "mask", *place)
    table, lines = pq.read_table(tmp_path / "shares.parquet").to_pylist(), rows(tmp_path / "shares.csv")
    assert list(lines[0]) == ["path", "width", "height", "red", "path (class)", "blue"]
    assert [{name: str(value) for name, value in row.items()} for row in table] == lines
    assert [Path(row["path"]).name for row in table] == ["flag.PNG", "flag.jpg"]
    assert (table[0]["width"], table[0]["height"], table[0]["red"], table[0]["blue"]) == (60, 60, 0.5, 0.0)


def test_pictures_that_differ_in_their_suffix_keep_it(models: Path, tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for name, kind in (("a.jpg", "JPEG"), ("a.png", "PNG"), ("A.bmp", "BMP"), ("b.png", "PNG")):
        (photos / name).write_bytes(encoded(FLAG, kind))
    segserve("segment", photos, photos / "a.png", "-o", out, "--models", models, "--views", "mask")
    assert set(files(out)) == {"a.jpg.mask.png", "a.png.mask.png", "A.bmp.mask.png", "b.mask.png"}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "b.png").write_bytes(encoded(FLAG))
    done = segserve("segment", photos, tmp_path / "other", "-o", out, "--models", models, code=2)
    assert "b.png" in done.output and "-o of its own" in done.output


def test_out_inside_a_folder_of_pictures_is_not_searched(photos: Path) -> None:
    items, unreadable = find([photos], photos / "deep")
    assert ([item.stem for item in items], unreadable) == (["flag"], [])


def test_a_second_run_does_only_what_is_not_done(models: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["segment", photos, "-o", out, "--models", models, "--json", "--views"]

    def counts(*arguments: object, code: int = 0) -> tuple[int, int]:
        report = json.loads(segserve(*arguments, code=code).stdout)
        return report["done"], report["skipped"]

    assert counts(*command, "mask,overlay") == (2, 0)
    assert counts(*command, "mask") == (0, 2)
    assert counts(*command, "json") == (2, 0)
    assert counts(*command, "mask,json,overlay") == (0, 2)
    (out / "flag.mask.png").unlink()
    assert counts(*command, "mask") == (1, 1)
    (photos / "flag.jpg").write_bytes(encoded(FLAG[:30], "JPEG"))
    assert counts(*command, "mask") == (1, 1)
    assert np.asarray(Image.open(out / "flag.mask.png")).shape == (30, 90)
    assert not (out / "flag.json").exists()  # it told of another picture
    assert counts(*command, "mask", "--overwrite") == (2, 0)
    done = segserve(*command, "mask", "--alpha", "0.7", code=2)
    assert "alpha None, not 0.7" in done.output and "--overwrite" in done.output
    assert counts(*command, "mask", "--alpha", "0.7", "--overwrite") == (2, 0)
    assert [row["path"] for row in rows(out / "summary.csv")] == sorted(map(str, photos.rglob("flag.[jP]*")))


def test_a_file_of_somebody_else_is_not_overwritten(models: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "flag.mask.png").write_text("the truth, drawn by hand")
    command = ["segment", photos, "-o", out, "--models", models, "--json"]
    report = json.loads(segserve(*command, code=1).stdout)
    assert (report["done"], [failure["path"] for failure in report["failed"]]) == (1, [str(photos / "flag.jpg")])
    assert "--overwrite" in report["failed"][0]["reason"]
    assert (out / "flag.mask.png").read_text() == "the truth, drawn by hand"
    segserve(*command, "--overwrite")
    assert np.asarray(Image.open(out / "flag.mask.png")).shape == (60, 90)


def test_a_table_of_somebody_else_is_not_overwritten(models: Path, photos: Path, tmp_path: Path) -> None:
    out, table = tmp_path / "out", tmp_path / "results.csv"
    command = ["segment", photos, "-o", out, "--models", models]
    segserve(*command)
    table.write_text("figures of another kind")
    done = segserve(*command, "--summary", table, code=2)
    assert "not of an earlier run" in done.stderr
    assert table.read_text() == "figures of another kind"
    segserve(*command, "--summary", table, "--overwrite")
    segserve(*command, "--summary", table)
    assert len(rows(table)) == 2
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "summary.csv").write_text("figures of another kind")
    for _ in range(2):
        done = segserve("segment", photos, "-o", tmp_path / "other", "--models", models, code=2)
        assert "not of an earlier run" in done.stderr


def test_a_file_whose_name_is_not_unicode_fails_alone(models: Path, photos: Path, tmp_path: Path) -> None:
    with open(os.fsencode(photos) + b"/\xff.png", "wb") as file:  # noqa: PTH123 - a name that Path cannot say
        file.write(encoded(FLAG))
    done = segserve("segment", photos, "-o", tmp_path / "out", "--models", models, "--json", code=1)
    report = json.loads(done.stdout)
    assert (report["done"], len(report["failed"])) == (2, 1)
    assert report["failed"][0] == {"path": f"{photos}/\\udcff.png", "reason": "its name is not UTF-8"}


def test_files_of_a_picture_that_was_another_go_even_after_a_failure(
    models: Path, photos: Path, tmp_path: Path
) -> None:
    out, path = tmp_path / "out", photos / "flag.jpg"
    command = ["segment", photos, "-o", out, "--models", models, "--views"]
    segserve(*command, "mask,overlay")
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    segserve(*command, "mask", code=1)
    path.write_bytes(encoded(FLAG[:30], "JPEG"))
    segserve(*command, "mask")
    assert np.asarray(Image.open(out / "flag.mask.png")).shape == (30, 90)
    assert not (out / "flag.overlay.jpg").exists()
    assert (out / "deep" / "er" / "flag.overlay.png").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["photos"], ["--out"]),
        (["-o", "out"], ["PATH"]),
        (["none", "-o", "out"], ["none"]),
        (["photos", "-o", "out", "--views", "mask,picture"], ["picture", "geojson"]),
        (["photos", "-o", "out", "--model", "none"], ["none", "rgb"]),
        (["photos", "-o", "out", "--version", "7"], ["version 7", "has: 1"]),
        (["photos", "-o", "out", "--classes", "red,purple"], ["purple", "red, green, blue"]),
        (["photos", "-o", "out", "--classes", ","], ["empty"]),
        (["photos", "-o", "out", "--alpha", "2"], ["alpha"]),
        (["photos", "-o", "out", "--url", "localhost:8000"], ["http://HOST:PORT"]),
        (["photos", "-o", "out", "--url", "http://here", "--models", "models"], ["one of them"]),
        (["photos", "-o", "out", "--models", "none"], ["no such folder"]),
        (["photos", "-o", "photos"], ["another folder"]),
        (["photos", "-o", "out.png"], ["folder"]),
        (["photos", "-o", "out", "--summary", "table.xlsx"], [".csv", ".parquet"]),
    ],
)
def test_wrong_usage_is_said_in_a_line_with_the_way_out(
    arguments: list[str], words: list[str], models: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    monkeypatch.setenv("SEGSERVE_MODELS", str(models))
    done = segserve("segment", *arguments, code=2)
    for word in words:
        assert word in done.stderr
    assert not (photos.parent / "out").exists()


def test_the_server_says_which_models_and_classes_there_are(server: Server, photos: Path, tmp_path: Path) -> None:
    place = ["segment", photos, "-o", tmp_path / "out", "--url", server.url]
    for option, value, word in (
        ("--model", "none", "rgb"),
        ("--version", "7", "it has: 1"),
        ("--classes", "x", "green"),
    ):
        assert word in segserve(*place, option, value, code=2).stderr


def test_what_cannot_work_fails_with_one_line(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    nobody = segserve("segment", photos, "-o", out, "--url", f"http://127.0.0.1:{free_port()}", code=1)
    assert "segserve serve" in nobody.stderr and nobody.stderr.count("\n") == 1
    (tmp_path / "empty").mkdir()
    assert "--url" in segserve("segment", photos, "-o", out, "--models", tmp_path / "empty", code=1).stderr
    assert "no pictures" in segserve("segment", tmp_path / "empty", "-o", out, code=1).stderr
    monkeypatch.setattr("segserve.summary.find_spec", lambda name: None)
    missing = segserve("segment", photos, "-o", out, "--summary", "table.parquet", code=1)
    assert "pip install pyarrow" in missing.stderr


def test_a_server_that_goes_away_ends_the_run(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segserve.remote.RETRIES", 0)
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for index in range(30):
        (photos / f"{index:02}.png").write_bytes(encoded(FLAG))
    with running(models, tmp_path / "log") as server:
        url = server.url
        from segserve.remote import open_remote

        engine = open_remote(url, None, None, None, _wanted())
    monkeypatch.setattr("segserve.remote.open_remote", lambda *_: engine)
    done = segserve("segment", photos, "-o", out, "--url", url, "--jobs", "1", "--json", code=1)
    report = json.loads(done.stdout)
    assert (report["done"], report["interrupted"]) == (0, False)
    assert 4 <= len(report["failed"]) < 30 and len(report["failed"]) + report["left"] == 30
    assert "the server has gone" in done.stderr and "the same command" in done.stderr


def _wanted() -> Any:
    from segserve.engine import Wanted

    return Wanted(("mask",))


@pytest.fixture(scope="module")
def slow_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slow")
    write_bundle(folder, nets=SLOW)
    return folder


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """500 small pictures in ten folders; the last but ten is broken."""
    folder = tmp_path_factory.mktemp("many")
    for index in range(MANY):
        path = folder / f"{index // 50}" / f"{index:03}.png"
        path.parent.mkdir(exist_ok=True)
        data = encoded(bands(RED, GREEN, BLUE, height=8 + index % 5, width=12))
        path.write_bytes(data[:40] if index == MANY - 10 else data)
    return folder


def lines_done(out: Path) -> list[str]:
    with suppress(FileNotFoundError):
        return re.findall(r'^\{"done": "([^"\n]+)"', (out / NAME).read_text(), re.MULTILINE)
    return []


def interrupted(command: list[str], out: Path, number: signal.Signals, after: int) -> tuple[int, str]:
    """Run a command and send it a signal once `after` pictures more are done; its exit code and stderr."""
    wanted = len(lines_done(out)) + after
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        end = time.monotonic() + 30
        while len(lines_done(out)) < wanted and process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        process.send_signal(number)
        told = process.stderr.read()
    return process.returncode, told


def test_making_all_anew_is_gone_on_with_when_it_is_interrupted(slow_models: Path, many: Path, tmp_path: Path) -> None:
    out, some = tmp_path / "out", many / "0"
    command = [sys.executable, "-m", "segserve", "segment", str(some), "-o", str(out), "--models", str(slow_models)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    before = (out / "000.mask.png").stat().st_mtime_ns
    anew = [*command, "--views", "mask", "--overwrite"]
    process = subprocess.Popen(anew, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: (out / "000.mask.png").stat().st_mtime_ns > before, "the first mask")
    process.send_signal(signal.SIGINT)
    assert "the same command without --overwrite goes on with them" in process.communicate()[1]
    made = len(lines_done(out))
    done = subprocess.run([*anew[:-1], "--json"], capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    assert (report["done"], report["skipped"], report["failed"]) == (50 - made, made, [])


def test_five_hundred_pictures_interrupted_killed_and_gone_on_with(
    slow_models: Path, many: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "segserve", "segment", str(many), "-o", str(out), "--models", str(slow_models)]
    command += ["--views", "mask,json", "--json", "--progress"]
    code, told = interrupted(command, out, signal.SIGINT, after=40)
    first = lines_done(out)
    assert code == INTERRUPTED, told
    assert "pictures/s" in told and f"/{MANY} [" in told
    assert "the same command goes on" in told and "Traceback" not in told
    assert 40 <= len(first) < MANY
    assert len(rows(out / "summary.csv")) == len(first)
    assert {name for name in files(out) if name.endswith(".mask.png")} == {f"{stem}.mask.png" for stem in first}
    code, _ = interrupted(command, out, signal.SIGKILL, after=40)
    second = lines_done(out)
    assert code == -signal.SIGKILL
    with (out / NAME).open("a") as journal:
        journal.write('{"done": "cut o')
    times = {stem: (out / f"{stem}.mask.png").stat().st_mtime_ns for stem in second}
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    assert done.returncode == 1, done.stderr
    assert (report["done"], report["skipped"], report["left"]) == (MANY - 1 - len(second), len(second), 0)
    (failure,) = report["failed"]
    assert failure["path"].endswith("490.png") and "corrupt" in failure["reason"]
    assert f"{failure['path']}: {failure['reason']}" in done.stderr
    assert {stem: (out / f"{stem}.mask.png").stat().st_mtime_ns for stem in second} == times
    everything = lines_done(out)
    assert len(everything) == len(set(everything)) == MANY - 1
    assert not list(out.rglob("*.part"))
    assert set(files(out)) == {f"{stem}.{ending}" for stem in everything for ending in ("mask.png", "json")}
    table = rows(out / "summary.csv")
    assert [row["path"] for row in table] == [str(path) for path in sorted(many.rglob("*.png")) if path.stem != "490"]
    assert all(sum(float(row[name]) for name in ("red", "green", "blue")) == pytest.approx(1) for row in table)


def test_without_a_terminal_there_are_lines_and_no_bar(
    models: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segserve.progress.LINE_SECONDS", 0.0)
    told = segserve("segment", photos, "-o", tmp_path / "out", "--models", models).stderr
    assert "2 of 2 pictures" in told and " left" in told and "|" not in told
    assert re.search(r"2 done, 0 done before, 0 failed in 0:0\d, [\d.]+ pictures/s; files in ", told)
    assert (clock(62), clock(7207), clock(0.4)) == ("1:02", "2:00:07", "0:00")


@pytest.mark.parametrize("place", ["--models", "--url"])
def test_models_are_listed(place: str, models: Path, server: Server) -> None:
    where = [place, models if place == "--models" else server.url]
    head, row = segserve("models", *where).stdout.splitlines()
    assert head.split() == ["name", "version", "classes", "licence", "proved", "variant", "mIoU"]
    assert row.split() == ["rgb", "*", "1", "3", "Apache-2.0", "yes", "fp32", "-"]
    (entry,) = json.loads(segserve("models", *where, "--json").stdout)["models"]
    (wanted,) = httpx.get(f"{server.url}/models").json()["models"]
    assert {**entry, "trials": []} == {**wanted, "trials": []}


def test_the_shipped_models_and_their_score_are_listed(tmp_path: Path) -> None:
    shown = segserve("models", "--models", ROOT / "models").stdout
    assert re.search(r"camvid-lite \* +1 +11 +LicenseRef-CamVid-research-only +yes +(fp32|int8) +0\.745", shown)


def test_a_refused_model_is_told_with_the_reason(tmp_path: Path) -> None:
    write_bundle(tmp_path, name="good")
    (write_bundle(tmp_path, name="bad") / "model.onnx").write_bytes(b"damaged")
    done = segserve("models", "--models", tmp_path)
    assert "good" in done.stdout and "bad" not in done.stdout
    assert re.search(r"refused: bad version 1: .*sha256", done.stderr)
    (tmp_path / "photo.png").write_bytes(encoded(FLAG))
    command = ["segment", tmp_path / "photo.png", "-o", tmp_path / "out", "--models", tmp_path]
    assert "--model" in segserve(*command, code=2).stderr
    assert "sha256" in segserve(*command, "--model", "bad", code=1).stderr
    segserve(*command, "--model", "good")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script(shell: str) -> None:
    assert "_SEGSERVE_COMPLETE" in segserve("completion", shell).stdout


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("seg", ["segment"]),
        ("", ["completion", "key", "models", "segment", "serve"]),
        ("segment --views mask,o", ["mask,overlay"]),
        ("segment --model r", ["rgb"]),
        ("segment --ov", ["--overwrite"]),
        ("completion z", ["zsh"]),
    ],
)
def test_commands_options_models_and_views_are_completed(typed: str, wanted: list[str], models: Path) -> None:
    words = {"COMP_WORDS": f"segserve {typed}", "COMP_CWORD": str(max(len(typed.split()), 1))}
    done = subprocess.run(
        [Path(sys.executable).with_name("segserve")],
        env=os.environ | words | {"_SEGSERVE_COMPLETE": "bash_complete", "SEGSERVE_MODELS": str(models)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert [line.split(",", 1)[1] for line in done.stdout.splitlines()] == wanted


def test_the_examples_of_the_documents_run(
    server: Server, models: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = photos.parent
    write_bundle(home / "models", classes=("road", "car", "sky"))
    (home / "photo.jpg").write_bytes(encoded(FLAG, "JPEG"))
    write_tar(home / "shard-0001.tar", {"a.png": encoded(FLAG)})
    write_table(home / "train.parquet", [encoded(FLAG)])
    monkeypatch.chdir(home)
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "cli.md").read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    for line in lines:
        before, _, command = line.rpartition("| ")
        program, *arguments = shlex.split(command.replace("http://localhost:8000", server.url))
        assert program == "segserve"
        segserve(*arguments, given="a-key" if before else "")
    assert len(lines) >= 7
    assert pq.read_table(home / "shares.parquet").num_rows == 3
