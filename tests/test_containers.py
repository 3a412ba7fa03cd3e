"""Pictures in tars (WebDataset) and Parquet tables, results as tables, and both through Ray Data."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

from segserve import ledger
from segserve.cli import main
from segserve.inputs import find
from segserve.journal import NAME, Run, open_journal
from tests.bundles import BLUE, GREEN, RED, Net, bands, encoded, write_bundle
from tests.containers import write_table, write_tar
from tests.ray_cluster import Cluster, cluster

FLAG, POLE = encoded(bands(RED, GREEN, BLUE, height=60, width=90)), encoded(bands(BLUE, GREEN, height=40, width=30))
SLOW = Net(turns=60_000)
"""A net that takes some hundredths of a second, on slow machines a tenth and more."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_bundle(folder)
    return folder


def segment(models: Path, *arguments: object) -> Result:
    return CliRunner().invoke(main, ["segment", *map(str, arguments), "--models", str(models)])


def mask_of(path: Path) -> NDArray[np.uint8]:
    return np.asarray(Image.open(path))


def rows_of(out: Path) -> dict[str, dict[str, Any]]:
    rows = [row for path in sorted(out.glob("masks-*.parquet")) for row in pq.read_table(path).to_pylist()]
    found = {row["path"]: row for row in rows}
    assert len(found) == len(rows)  # nothing is there twice
    return found


def test_a_tar_is_segmented_picture_by_picture(models: Path, tmp_path: Path) -> None:
    files = {"a/0001.png": FLAG, "a/0001.seg.png": POLE, "a/0001.json": b"{}", "0002.PNG": POLE, ".x.png": FLAG}
    tar = write_tar(tmp_path / "shard.tar", files)
    done = segment(models, tar, "-o", tmp_path / "out", "--views", "mask")
    assert done.exit_code == 0, done.output
    masks = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.mask.png")}
    assert masks == {"shard/a/0001.mask.png", "shard/0002.mask.png"}
    assert mask_of(tmp_path / "out/shard/a/0001.mask.png").shape == (60, 90)
    with (tmp_path / "out" / "summary.csv").open() as file:
        assert [row["path"] for row in csv.DictReader(file)] == [f"{tar}:0002.PNG", f"{tar}:a/0001.png"]
    again = segment(models, tar, "-o", tmp_path / "out", "--views", "mask")
    assert "0 done, 2 done before" in again.output


@pytest.mark.parametrize("wrap", [lambda data: data, lambda data: {"bytes": data, "path": "a.png"}])
def test_a_table_is_segmented_row_by_row(models: Path, tmp_path: Path, wrap: Any) -> None:
    table = write_table(tmp_path / "shard.parquet", [wrap(one) for one in (FLAG, POLE, FLAG, POLE, FLAG)])
    done = segment(models, table, "-o", tmp_path / "out", "--views", "mask")
    assert done.exit_code == 0, done.output
    shapes = [mask_of(tmp_path / f"out/shard/{number:07d}.mask.png").shape for number in range(5)]
    assert shapes == [(60, 90), (40, 30), (60, 90), (40, 30), (60, 90)]


def test_what_is_no_picture_fails_alone(models: Path, tmp_path: Path) -> None:
    table = write_table(tmp_path / "shard.parquet", [FLAG, None, b"no picture", POLE])
    done = segment(models, table, "-o", tmp_path / "out", "--json")
    report = json.loads(done.stdout.splitlines()[-1])
    assert (done.exit_code, report["done"]) == (1, 2)
    assert [failure["path"] for failure in report["failed"]] == [f"{table}:0000001", f"{table}:0000002"]
    assert "has no picture" in report["failed"][0]["reason"]


def test_a_name_that_leads_out_of_the_results_is_refused(models: Path, tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "shard.tar", {"../../evil.png": FLAG, "/evil.png": FLAG, "good.png": FLAG})
    done = segment(models, tar, "-o", tmp_path / "out")
    assert done.exit_code == 1
    assert done.output.count("leads out of the folder of results") == 2
    assert {path.name for path in tmp_path.rglob("*.mask.png")} == {"good.mask.png"}


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.tar", b"x" * 1000, "is no tar"),
        ("a.parquet", b"x" * 1000, "is no Parquet file"),
        ("b.parquet", None, "has no column 'image' with the pictures' bytes; it has photo"),
    ],
)
def test_a_container_that_is_none_is_said_in_a_line(
    models: Path, tmp_path: Path, name: str, data: bytes | None, words: str
) -> None:
    if data is None:
        pq.write_table(pa.table({"photo": [b""]}), tmp_path / name)
    else:
        (tmp_path / name).write_bytes(data)
    done = segment(models, tmp_path / name, "-o", tmp_path / "out")
    assert (done.exit_code, words in done.output) == (1, True), done.output


def test_a_damaged_tar_does_not_stop_the_others(models: Path, tmp_path: Path) -> None:
    good = write_tar(tmp_path / "good.tar", {"a.png": FLAG})
    (tmp_path / "bad.tar").write_bytes(b"x" * 1000)
    (tmp_path / "c.tar.gz").write_bytes(b"x")
    done = segment(models, tmp_path / "bad.tar", good, tmp_path / "c.tar.gz", "-o", tmp_path / "out")
    assert (done.exit_code, "1 done, 0 done before, 2 failed" in done.output) == (1, True), done.output
    assert "is a compressed tar" in done.output


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # of pycocotools
def test_results_as_a_table_hold_the_same_masks_and_shares(models: Path, tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "shard.tar", {"flag.png": FLAG, "pole.png": POLE})
    segment(models, tar, "-o", tmp_path / "files", "--views", "mask")
    done = segment(models, tar, "-o", tmp_path / "rows", "--format", "parquet")
    assert done.exit_code == 0, done.output
    row = rows_of(tmp_path / "rows")[f"{tar}:flag.png"]
    assert (row["width"], row["height"]) == (90, 60)
    assert dict(row["shares"]) == pytest.approx({"red": 1 / 3, "green": 1 / 3, "blue": 1 / 3})
    mask = mask_of(tmp_path / "files/shard/flag.mask.png")
    for entry in row["masks"]:
        rle = {"size": entry["rle"]["size"], "counts": entry["rle"]["counts"].encode()}
        assert np.array_equal(coco.decode(rle), mask == entry["id"])  # type: ignore[arg-type]


def test_tables_go_on_where_they_were(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "SHARD", 2)
    out, folder = tmp_path / "out", tmp_path / "photos"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.png").write_bytes(FLAG)
    segment(models, folder / "0.png", folder / "1.png", "-o", out, "--format", "parquet")
    done = segment(models, folder, "-o", out, "--format", "parquet")
    assert "3 done, 2 done before" in done.output
    assert len(rows_of(out)) == 5
    # What a run leaves that was cut off between its table and its journal, and what a user removes.
    pq.write_table(pq.read_table(out / "masks-00001.parquet"), out / "masks-00009.parquet")
    with (out / NAME).open("a") as journal:
        journal.write('{"table": "masks-00009.parquet"}\n')
    (out / "masks-00002.parquet").unlink()
    done = segment(models, folder, "-o", out, "--format", "parquet")
    assert "2 done, 3 done before" in done.output
    assert len(rows_of(out)) == 5
    (folder / "3.png").write_bytes(POLE)
    done = segment(models, folder, "-o", out, "--format", "parquet")
    assert (done.exit_code, "it has changed since it became a row" in done.output) == (1, True)
    assert "5 done" in segment(models, folder, "-o", out, "--format", "parquet", "--overwrite").output
    assert rows_of(out)[str(folder / "3.png")]["height"] == 40
    assert segment(models, folder, "-o", out).exit_code == 2  # files would be another run
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "3.png").write_bytes(FLAG)
    done = segment(models, tmp_path / "other", "-o", out, "--format", "parquet")
    assert (done.exit_code, f"{folder / '3.png'} has its name in" in done.output) == (1, True), done.output


def test_a_table_of_somebody_else_stays(models: Path, tmp_path: Path) -> None:
    table = write_table(tmp_path / "masks-00001.parquet", [FLAG])
    before = table.read_bytes()
    done = segment(models, table, "-o", tmp_path, "--format", "parquet")
    assert (done.exit_code, "not of this command" in done.output) == (2, True), done.output
    named = write_table(tmp_path / "masks-train.parquet", [FLAG])
    assert segment(models, named, "-o", tmp_path / "out", "--format", "parquet").exit_code == 0
    assert (table.read_bytes(), named.exists()) == (before, True)


def test_tables_and_views_exclude_each_other(models: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(FLAG)
    done = segment(models, tmp_path / "a.png", "-o", tmp_path / "out", "--format", "parquet", "--views", "mask")
    assert (done.exit_code, "name one of them" in done.output) == (2, True)


def test_a_run_that_is_cut_off_forgets_nothing_that_was_done(models: Path, tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "shard.tar", {"a.png": FLAG, "b.png": POLE})
    segment(models, tar, "-o", tmp_path / "out", "--views", "mask")
    out, run = tmp_path / "out", Run("rgb", 1, None, None)
    with open_journal(out, out / "summary.csv", run, (), overwrite=False) as journal:
        for item in find([tar], out)[0]:
            journal.begin(item)  # as a run with more views does
    assert "0 done, 2 done before" in segment(models, tar, "-o", tmp_path / "out", "--views", "mask").output


def test_ray_asks_no_server(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(FLAG)
    arguments = ["segment", str(tmp_path), "-o", str(tmp_path / "out"), "--ray", "--url", "http://localhost:1"]
    refused = CliRunner().invoke(main, arguments)
    assert (refused.exit_code, "name one of them" in refused.output) == (2, True)


def test_without_ray_its_package_is_named(models: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(FLAG)
    code = "import sys; sys.modules['ray'] = None; from segserve.cli import main; main()"
    command = ["segment", str(tmp_path), "-o", str(tmp_path / "out"), "--ray", "--models", str(models)]
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "pip install 'segserve[ray]'" in done.stderr


@pytest.mark.long
def test_two_nodes_go_on_after_a_kill_with_nothing_lost_or_doubled(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", nets=SLOW)
    tar = write_tar(tmp_path / "shard.tar", {f"{number:03d}.png": FLAG for number in range(100)})
    table = write_table(tmp_path / "more.parquet", [POLE] * 60 + [b"no picture"], rows=20)
    files = tmp_path / "files"
    command = ["segment", str(tar), str(table), "--models", str(tmp_path / "models"), "--ray", "--json"]
    command += ["-o", str(files), "--views", "mask"]
    with cluster([1, 1]) as two:
        start = [str(Path(sys.executable).with_name("segserve")), *command]
        process = subprocess.Popen(start, env=two.environment(), start_new_session=True, stderr=subprocess.PIPE)
        journal = files / ".segserve.jsonl"
        while not journal.exists() or done_in(journal) < 20:
            assert process.poll() is None, process.communicate()
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        with Killer(two, journal):
            resumed = report_of(two.run("segserve", *command))
        assert (resumed["done"] + resumed["skipped"], resumed["skipped"] >= 20) == (160, True)
        assert len(list(files.rglob("*.mask.png"))) == 160


class Killer(threading.Thread):
    """Kills the process of a run that has worked most, once there are pictures that this run has done."""

    def __init__(self, nodes: Cluster, journal: Path) -> None:
        super().__init__()
        self._nodes = nodes
        self._journal = journal
        self._before = done_in(journal)
        self._over = threading.Event()
        self.killed = False

    def run(self) -> None:
        while not self.killed and not self._over.wait(0.1):
            if done_in(self._journal) == self._before:
                continue
            worked: dict[psutil.Process, float] = {}
            for process in (child for node in self._nodes.nodes for child in node.children()):
                with suppress(psutil.NoSuchProcess):
                    if "MapWorker" in " ".join(process.cmdline()):
                        worked[process] = process.cpu_times().user
            with suppress(psutil.NoSuchProcess, ValueError):  # none is there any more
                max(worked, key=worked.__getitem__).kill()
                self.killed = True

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()
        assert self.killed


def done_in(journal: Path) -> int:
    """Pictures that a run's journal says are done."""
    return journal.read_text().count('"done"')


def report_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The report of a run in which the one picture that is none failed."""
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, len(report["failed"])) == (1, 1), done.stderr
    return report
