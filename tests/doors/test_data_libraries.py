"""Libraries that open URLs by fsspec, as they are, on a machine whose files are on another one."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from minga.control import ControlClient
from tests.doors.networks import Doors, doors

fsspec = pytest.importorskip("fsspec", reason="no fsspec: make doors installs it")
np = pytest.importorskip("numpy", reason="no numpy: make doors installs it")

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300), pytest.mark.filterwarnings("default")]

ROWS = 200_000
RUN_SECONDS = 100


class Machine:
    """The second machine of a network: its daemon is used, and the first one has the files."""

    def __init__(self, portal: BlockingPortal, network: Doors) -> None:
        self._portal = portal
        self.network = network

    def received_bytes(self) -> int:
        """What this machine's peer got from others until now."""

        async def ask() -> int:
            async with ControlClient(self.network.second.control) as control:
                return (await control.status()).received_bytes

        return self._portal.call(ask)

    def environment(self) -> dict[str, str]:
        return {"MINGA_LOCATOR": self.network.net.locator_url, "MINGA_CONTROL": str(self.network.second.control)}

    def run(self, program: str, *arguments: str) -> str:
        """What a Python program prints that ends well."""
        ended = subprocess.run(
            [sys.executable, "-W", "ignore", program, *arguments],
            env=os.environ | self.environment(),
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(doors(tmp_path_factory.mktemp("net"))) as network,
    ):
        yield Machine(portal, network)


@pytest.fixture
def machine(running: Machine, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """With its settings in the environment, as people have them."""
    for name, value in running.environment().items():
        monkeypatch.setenv(name, value)
    return running


@pytest.fixture
def fs(machine: Machine) -> Any:
    return fsspec.filesystem("minga")


@pytest.fixture
def share(machine: Machine, fs: Any) -> Any:
    """A function that writes a file on the first machine, by a function of its path, and waits until it is found."""

    def put(name: str, write: Any) -> int:
        path = machine.network.first.share_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)
        for _ in range(400):
            if fs.exists(name):
                return path.stat().st_size
            machine._portal.call(asyncio.sleep, 0.05)
        pytest.fail(f"{name} was not found")

    return put


def frame() -> Any:
    pandas = pytest.importorskip("pandas")
    random = np.random.default_rng(7)
    columns = {f"c{number}": random.standard_normal(ROWS) for number in range(8)}
    return pandas.DataFrame({"step": range(ROWS), "part": [f"p{number % 3}" for number in range(ROWS)], **columns})


def test_pandas_reads_and_writes_tables(machine: Machine, share: Any) -> None:
    """CSV, compressed or not, and Parquet: of that, only the columns that are wanted."""
    pandas = pytest.importorskip("pandas")
    table = frame()
    share("tables/a.csv", lambda path: table[:1000].to_csv(path, index=False))
    pandas.testing.assert_frame_equal(pandas.read_csv("minga://tables/a.csv"), table[:1000])
    size_bytes = share("tables/a.parquet", lambda path: table.to_parquet(path, row_group_size=20_000))
    before = machine.received_bytes()
    found = pandas.read_parquet("minga://tables/a.parquet", columns=["c3"])
    pandas.testing.assert_frame_equal(found, table[["c3"]])
    assert machine.received_bytes() - before < size_bytes * 0.8
    pandas.testing.assert_frame_equal(pandas.read_parquet("minga://tables/a.parquet"), table)

    table[:500].to_parquet("minga://tables/b.parquet")
    table[:10].to_csv("minga://tables/b.csv.gz", index=False)
    options = {"locator": machine.network.net.locator_url, "standalone": True}
    pandas.testing.assert_frame_equal(
        pandas.read_parquet("minga://tables/b.parquet", storage_options=options), table[:500]
    )
    pandas.testing.assert_frame_equal(pandas.read_csv("minga://tables/b.csv.gz"), table[:10])
    with pytest.raises(FileNotFoundError):
        pandas.read_csv("minga://tables/none.csv")


def test_pyarrow_reads_and_writes_datasets(fs: Any) -> None:
    """Of many files in folders, with partitions; filters leave files out."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import dataset

    table = pyarrow.Table.from_pandas(frame()[:3000], preserve_index=False)
    dataset.write_dataset(
        table, "sets/one", filesystem=fs, format="parquet", partitioning=["part"], partitioning_flavor="hive"
    )
    assert len(fs.find("sets/one")) == 3
    found = dataset.dataset("sets/one", filesystem=fs, format="parquet", partitioning="hive")
    some = found.to_table(filter=(dataset.field("part") == "p1") & (dataset.field("step") < 100), columns=["step"])
    assert sorted(some["step"].to_pylist()) == [step for step in range(100) if step % 3 == 1]
    assert found.count_rows() == 3000


def test_zarr_reads_and_writes_arrays(machine: Machine, fs: Any) -> None:
    """Groups of chunked arrays, by URL; again as another program would."""
    zarr = pytest.importorskip("zarr")
    values = np.arange(64 * 48, dtype="float32").reshape(64, 48)
    group = zarr.open_group("minga://arrays/a.zarr", mode="w")
    array = group.create_array("x", shape=values.shape, chunks=(16, 16), dtype="float32")
    array[:] = values
    array[:16, :16] = 5
    group.attrs["made"] = "here"
    values[:16, :16] = 5
    again = zarr.open_group("minga://arrays/a.zarr", mode="r")
    assert list(again.array_keys()) == ["x"]
    assert again.attrs["made"] == "here"
    np.testing.assert_array_equal(again["x"][10:40, 5:33], values[10:40, 5:33])
    np.testing.assert_array_equal(again["x"][:], values)
    assert len(fs.find("arrays/a.zarr/x/c")) == 12


def test_duckdb_reads_by_fsspec_and_by_http(machine: Machine, share: Any, fs: Any) -> None:
    """Its own httpfs needs no Minga: the peer's gateway is a web server."""
    duckdb = pytest.importorskip("duckdb")
    table = frame()
    share("duck/a.parquet", lambda path: table.to_parquet(path, row_group_size=20_000))
    share("duck/b.parquet", lambda path: table[:7].to_parquet(path))
    query = "SELECT count(*), max(step), round(sum(c3), 3) FROM read_parquet('{}')"
    wanted = (ROWS, ROWS - 1, pytest.approx(table["c3"].sum(), abs=0.01))
    connection = duckdb.connect()
    connection.register_filesystem(fs)
    assert connection.sql(query.format("minga://duck/a.parquet")).fetchone() == wanted
    assert connection.sql("SELECT count(*) FROM 'minga://duck/*.parquet'").fetchone() == (ROWS + 7,)
    connection.sql("COPY (SELECT 1 AS x) TO 'minga://duck/made.csv'")
    assert fs.cat_file("duck/made.csv").split() == [b"x", b"1"]

    httpfs = pytest.importorskip("duckdb_extension_httpfs", reason="no httpfs for DuckDB on this machine")
    (extension,) = Path(httpfs.__file__).parent.rglob("httpfs.duckdb_extension")
    connection = duckdb.connect()
    connection.load_extension(str(extension))
    found = connection.sql(query.format(f"{machine.network.url}/files/duck/a.parquet")).fetchone()
    assert found == wanted


def test_one_tensor_of_many_is_read(machine: Machine, share: Any, fs: Any) -> None:
    """safetensors tells in its head where each one is."""
    safetensors = pytest.importorskip("safetensors.numpy")
    tensors = {f"layer{number}": np.random.default_rng(number).random((1024, 1024)) for number in range(4)}
    size_bytes = share("models/m.safetensors", lambda path: safetensors.save_file(tensors, path))
    before = machine.received_bytes()
    with fs.open("models/m.safetensors", cache_type="none") as file:
        length = int.from_bytes(file.read(8), "little")
        head = json.loads(file.read(length))
        start, end = head["layer2"]["data_offsets"]
        file.seek(8 + length + start)
        layer = np.frombuffer(file.read(end - start), "float64").reshape(head["layer2"]["shape"])
    np.testing.assert_array_equal(layer, tensors["layer2"])
    assert machine.received_bytes() - before < size_bytes / 2
    whole = safetensors.load(fs.cat_file("models/m.safetensors"))
    np.testing.assert_array_equal(whole["layer0"], tensors["layer0"])


def test_hugging_face_datasets_load_files(machine: Machine, share: Any, tmp_path: Path) -> None:
    """Into its cache, and as a stream."""
    pytest.importorskip("datasets")
    table = frame()[:5000]
    for number in range(2):
        share(f"hf/{number}.parquet", lambda path, rows=table[number::2]: rows.to_parquet(path, index=False))
    program = tmp_path / "program.py"
    program.write_text(DATASETS)
    assert machine.run(str(program), str(tmp_path / "cache")).split() == ["5000", str(table["step"].sum()), "5000"]


DATASETS = """
import os, sys
os.environ["HF_HOME"] = sys.argv[1]
import datasets
files = "minga://hf/*.parquet"
loaded = datasets.load_dataset("parquet", data_files=files, split="train")
print(len(loaded), sum(loaded["step"]))
print(sum(1 for _ in datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)))
"""


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_workers_of_a_data_loader_read(machine: Machine, share: Any, tmp_path: Path, start_method: str) -> None:
    """Forked or started anew, with a file system, and a file, that the parent has used."""
    pytest.importorskip("torch", reason="no PyTorch here")
    share("loader/rows.bin", lambda path: path.write_bytes(np.arange(256, dtype="<i8").tobytes()))
    program = tmp_path / "program.py"
    program.write_text(LOADER)
    assert machine.run(str(program), start_method).split() == [str(sum(range(256))), "2", str(sum(range(256)))]


LOADER = """
import os, sys
import fsspec
import torch
from torch.utils.data import DataLoader, Dataset

class Rows(Dataset):
    def __init__(self):
        self.fs = fsspec.filesystem("minga")
        self.size = self.fs.size("loader/rows.bin") // 8
        self.file = self.fs.open("loader/rows.bin", block_size=64)
        self.file.read(8)
    def __len__(self):
        return self.size
    def __getitem__(self, number):
        if number % 2:
            data = self.fs.cat_file("loader/rows.bin", number * 8, number * 8 + 8)
        else:
            self.file.seek(number * 8)
            data = self.file.read(8)
        return torch.tensor([int.from_bytes(data, "little"), os.getpid()])

if __name__ == "__main__":
    rows = Rows()
    loader = DataLoader(rows, batch_size=16, num_workers=2, multiprocessing_context=sys.argv[1])
    found = torch.cat(list(loader))
    print(int(found[:, 0].sum()), len(set(found[:, 1].tolist()) - {os.getpid()}))
    print(sum(int(rows[number][0]) for number in range(len(rows))))
"""
