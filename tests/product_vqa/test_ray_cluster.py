"""Ray itself: what it lacks, refuses or loses ends in one line, and nothing of its own is on the console."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from product_vqa.engine import EngineOptions
from product_vqa.errors import InputError
from product_vqa.ray_cluster import connect
from tests.commands import ROOT
from tests.dataset_builder.image_server import listening


@dataclass(frozen=True)
class Fatal:
    """Doubles numbers; the worker of `deadly` dies."""

    deadly: int

    def open(self) -> Callable[[Mapping[str, Any]], Iterable[tuple[int, bytes]]]:
        return self._double

    def _double(self, item: Mapping[str, Any]) -> Iterator[tuple[int, bytes]]:
        if item["number"] == self.deadly:
            os._exit(1)
        yield item["number"], str(2 * item["number"]).encode()


def items(count: int) -> list[dict[str, Any]]:
    return [{"number": number} for number in range(count)]


@pytest.mark.parametrize("address", ["127.0.0.1:1", "host.invalid:6379", "127.0.0.1:99999"])
def test_an_address_where_nothing_listens_is_refused_at_once(address: str) -> None:
    pytest.importorskip("ray")
    with (
        pytest.raises(
            InputError, match=rf"`ray_address` {re.escape(address)}: no cluster answers .*`ray start --head`"
        ),
        connect(EngineOptions("ray", ray_address=address)),
    ):
        pass


def test_without_ray_the_remedy_is_named() -> None:
    code = (
        "import sys; sys.modules['ray'] = None\n"
        "from product_vqa.engine import EngineOptions; from product_vqa.ray_cluster import connect\n"
        "try:\n  connect(EngineOptions('ray')).__enter__()\nexcept ValueError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.fullmatch(
        r"`engine` ray needs Ray \(.*\): pip install '\.\[ray\]', or `make ray` in a checkout\n", done.stdout
    )


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"-ERR\r\n", b""])
def test_another_server_at_the_address_is_refused_at_once(answer: bytes) -> None:
    """Such as Ray's own dashboard, which has another port."""
    pytest.importorskip("ray")
    with listening(lambda connection: connection.sendall(answer)) as port:
        address = f"127.0.0.1:{port}"
        with pytest.raises(InputError, match=f"{address}: no cluster answers"), connect(EngineOptions("ray", address)):
            pass


@pytest.mark.faults
def test_all_items_are_done_and_one_that_kills_workers_ends_the_command() -> None:
    pytest.importorskip("ray")
    with connect(EngineOptions("ray")) as cluster:
        assert cluster.cpus >= 1 and cluster.machines == 1
        results = sorted(cluster.run(Fatal(-1), items(7), workers=2))
        assert [(number, content) for number, content, _ in results] == [(n, str(2 * n).encode()) for n in range(7)]
        assert list(cluster.run(Fatal(-1), [], workers=2)) == []
        with pytest.raises(InputError, match=r"^workers died 6 times at the same item\. .* fewer `ray_workers`$"):
            list(cluster.run(Fatal(3), items(7), workers=2))


@pytest.mark.faults
@pytest.mark.parametrize(
    ("is_missing", "message"), [(True, "lacks this package"), (False, "has other versions than this")]
)
def test_a_machine_with_another_package_is_named(is_missing: bool, message: str, tmp_path: Path) -> None:
    """A node whose Python finds another product_vqa first, and with it the other packages or none."""
    pytest.importorskip("ray")
    from benchmarks.ray_nodes import RayNodes

    for name in ("product_vqa", "dataset_builder", "inference", "tests", "benchmarks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    source = (tmp_path / "product_vqa" / "__init__.py").read_text()
    missing = "raise ModuleNotFoundError(\"No module named 'product_vqa'\")\n"
    (tmp_path / "product_vqa" / "__init__.py").write_text(missing if is_missing else source + "# another version\n")
    code = (
        "import sys; from product_vqa.cli import run; from product_vqa.ray_cluster import connect\n"
        "from product_vqa.engine import EngineOptions; from tests.product_vqa.test_ray_cluster import Fatal, items\n"
        "def main():\n"
        "  with connect(EngineOptions('ray', ray_address=sys.argv[1])) as cluster:\n"
        "    print(list(cluster.run(Fatal(-1), items(3), workers=1)))\n"
        "run(main)"
    )
    script = tmp_path / "elsewhere" / "script.py"  # its folder is what Ray adds to the path of workers
    script.parent.mkdir()
    script.write_text(code)
    nodes = RayNodes(1, PYTHONPATH=str(tmp_path))
    try:
        done = subprocess.run([sys.executable, str(script), nodes.address], cwd=script.parent, capture_output=True,
                              env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True, timeout=600)  # fmt: skip
    finally:
        nodes.close()
    assert done.returncode == 2, done
    assert message in done.stderr.splitlines()[-1] and done.stderr.count("\n") == 1
