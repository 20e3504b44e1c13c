"""The options of the engine: those of Ray are refused without it, and an address is checked before Ray starts."""

import subprocess
import sys
from typing import Any

import pytest

from product_vqa.engine import EngineOptions
from product_vqa.errors import InputError
from tests.commands import ROOT


@pytest.mark.parametrize("address", ["auto", "10.0.0.7:6379", "head.example:6379", "[::1]:6379"])
def test_an_address_is_a_host_with_a_port_or_auto(address: str) -> None:
    assert EngineOptions(engine="ray", ray_address=address).is_ray


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ray_address": "auto"}, "`ray_address` is for `engine` ray"),
        ({"ray_workers": 2}, "`ray_workers` is for `engine` ray"),
        ({"engine": "ray", "ray_address": "head"}, "`ray_address` head must be HOST:PORT or auto"),
        (
            {"engine": "ray", "ray_address": "ray://head:10001"},
            r"a client of Ray elsewhere \(ray://\) is not supported",
        ),
        ({"engine": "ray", "ray_workers": 0}, "`ray_workers` must be between 1 and 9999, got 0"),
        ({"engine": "ray", "ray_workers": 10_000}, "`ray_workers` must be between 1 and 9999, got 10000"),
    ],
)
def test_what_does_not_fit_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        EngineOptions(**options)


def test_without_options_nothing_changes() -> None:
    assert not EngineOptions().is_ray


@pytest.mark.parametrize("command", ["dataset_builder.build", "inference.predict"])
def test_help_does_not_import_ray(command: str) -> None:
    code = (
        f"import sys; from {command} import main\nsys.argv = ['x', '--help']\n"
        "try: main()\nexcept SystemExit: print('ray' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "--ray_address" in done.stdout
    assert done.stderr.splitlines()[-1] == "False"
