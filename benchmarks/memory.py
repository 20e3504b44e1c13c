"""The peak memory of a process."""

import re
from pathlib import Path


def peak_bytes() -> int:
    """Of this process, in bytes. getrusage's ru_maxrss would include what the parent process had."""
    match = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert match is not None
    return 1024 * int(match[1])
