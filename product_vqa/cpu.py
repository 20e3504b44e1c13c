"""What the CPU can do. Imports torch, but not transformers, which takes twice as long."""

import torch


def has_cpu_instructions(*names: str) -> bool:
    """Whether this CPU has one of these instruction sets, as torch calls them; false if torch is too old to know."""
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(capabilities.get(name, False) for name in names)
