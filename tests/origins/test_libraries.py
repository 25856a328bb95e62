"""transformers and datasets, which ask the hub by its client: unchanged but for `HF_ENDPOINT`."""

import asyncio
import json
from pathlib import Path

import pytest

from minga_cli.localprocess import module_command
from tests.origins.hubs import ENVIRONMENTS, LIBRARIES, Hubs, client, python
from tests.origins.programs import run
from tests.support.hub import LARGE, Repository

pytestmark = pytest.mark.e2e

CONFIG = {
    "model_type": "bert",
    "architectures": ["BertModel"],
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "vocab_size": 20_005,
}
WORDS = "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{number}" for number in range(20_000))])
MODEL = {
    "config.json": json.dumps(CONFIG).encode(),
    "tokenizer_config.json": b'{"tokenizer_class": "BertTokenizer", "do_lower_case": true}',
    "vocab.txt": WORDS.encode(),
}
ROWS = 20_000
WRITE_TABLE = """
import sys, pyarrow, pyarrow.parquet
table = pyarrow.table({"number": range(ROWS), "text": [f"text {each * 7919 % 20011}" for each in range(ROWS)]})
pyarrow.parquet.write_table(table, sys.argv[1], row_group_size=ROWS // 4)
"""


async def on_both(version: str, home: Path, hubs: Hubs, script: str) -> list[str]:
    """The last line that a script prints, on each of two nodes at once."""
    runs = [python(version, home / str(number), url, script) for number, url in enumerate(hubs.urls)]
    return await asyncio.gather(*runs)


@pytest.mark.parametrize("version", LIBRARIES)
async def test_from_pretrained_of_a_tokenizer(hubs: Hubs, tmp_path: Path, version: str) -> None:
    """Its large file comes through the swarm; what is optional and absent is not an error, also while the hub is down
    once it was fetched ahead of time."""
    assert len(MODEL["vocab.txt"]) >= LARGE
    hubs.hub.repositories["org/bert"] = Repository(MODEL)
    script = """
from transformers import AutoConfig, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained("org/bert")
print(AutoConfig.from_pretrained("org/bert").hidden_size, tokenizer("word7 word9")["input_ids"])
"""
    assert await on_both(version, tmp_path, hubs, script) == ["32 [2, 12, 14, 3]"] * 2
    assert hubs.hub.sent == len(MODEL["vocab.txt"])
    assert not hubs.hub.count("GET", "xet")
    await run(*module_command("minga_cli", "--locator", hubs.locator, "preheat", "hf://org/bert"))
    hubs.hub.status = 500
    assert await on_both(version, tmp_path / "later", hubs, script) == ["32 [2, 12, 14, 3]"] * 2


MAKE_MODEL = """
import sys, torch, transformers
torch.manual_seed(1)
transformers.BertModel(transformers.BertConfig(**CONFIG)).save_pretrained(sys.argv[1])
"""
LOAD_MODEL = """
from transformers import AutoModel
print(sum(each.double().sum().item() for each in AutoModel.from_pretrained(REPOSITORY).parameters()))
"""


async def test_from_pretrained_of_a_model(hubs: Hubs, tmp_path: Path) -> None:
    """With its weights, as PyTorch has them."""
    version, made = LIBRARIES[-1], tmp_path / "made"
    if not list((ENVIRONMENTS / f"hub-{version}").glob("lib/*/site-packages/torch")):
        pytest.skip("no PyTorch for this machine's processor")
    await client(version, tmp_path, "", "python", "-c", f"CONFIG = {CONFIG}{MAKE_MODEL}", str(made))
    weights = (made / "model.safetensors").read_bytes()
    hubs.hub.repositories["org/bert"] = Repository(MODEL | {"model.safetensors": weights})
    expected = await python(version, tmp_path, "", f"REPOSITORY = {str(made)!r}{LOAD_MODEL}")
    assert await on_both(version, tmp_path, hubs, f"REPOSITORY = 'org/bert'{LOAD_MODEL}") == [expected] * 2
    assert hubs.hub.sent == len(weights)


@pytest.mark.parametrize("version", LIBRARIES)
async def test_load_dataset(hubs: Hubs, tmp_path: Path, version: str) -> None:
    """Parquet in a folder and CSV beside it, whole and streamed, which reads ranges."""
    # Of `datasets-server.` before the endpoint's host: a service of the hub that it goes on without.
    hubs.asks_dns = True
    table = tmp_path / "table.parquet"
    await client(version, tmp_path, "", "python", "-c", f"ROWS = {ROWS}{WRITE_TABLE}", str(table))
    lines = "".join(f"{number},{number * 2}\n" for number in range(ROWS))
    parquet, csv = table.read_bytes(), f"a,b\n{lines}".encode()
    assert min(len(parquet), len(csv)) >= LARGE
    hubs.hub.repositories["datasets/org/table"] = Repository(
        {"README.md": b"# Numbers\n", "data/train-00000-of-00001.parquet": parquet}
    )
    hubs.hub.repositories["datasets/org/lines"] = Repository({"train.csv": csv})
    script = """
from datasets import load_dataset
found = [sum(load_dataset("org/table", split="train")["number"]), sum(load_dataset("org/lines", split="train")["b"])]
found += [sum(row["number"] for row in load_dataset("org/table", split="train", streaming=True))]
print(found)
"""
    total = sum(range(ROWS))
    assert await on_both(version, tmp_path, hubs, script) == [str([total, 2 * total, total])] * 2
    assert hubs.hub.sent <= 1.05 * (len(parquet) + len(csv))
    assert not hubs.hub.count("GET", "xet")
