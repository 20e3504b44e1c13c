"""A command that does everything wrong, so that the harness can be seen to notice: `python -m tests.faults.careless`.

It writes its result in place, ignores a full disk, and ends with a traceback if a folder cannot be made.
"""

import contextlib
import os
import sys


def main() -> None:
    folder = sys.argv[1]
    os.makedirs(f"{folder}/out", exist_ok=True)
    file = os.open(f"{folder}/out/result.txt", os.O_CREAT | os.O_WRONLY)
    for number in range(4):
        with contextlib.suppress(OSError):
            os.write(file, f"{number}\n".encode())


if __name__ == "__main__":
    main()
