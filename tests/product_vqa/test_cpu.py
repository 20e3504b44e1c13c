import subprocess
import sys

import pytest
import torch

from product_vqa.cpu import has_cpu_instructions


def test_one_of_the_named_instruction_sets_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True, "amx_bf16": False})
    assert has_cpu_instructions("amx_bf16", "avx512_bf16")
    assert not has_cpu_instructions("amx_bf16")
    assert not has_cpu_instructions("unheard_of")


def test_an_old_torch_knows_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert not has_cpu_instructions("avx512_bf16")


@pytest.mark.slow
def test_to_ask_for_them_takes_torch_alone() -> None:
    code = "import sys, product_vqa.cpu; print('transformers' in sys.modules)"
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert asked.stdout == "False\n"
