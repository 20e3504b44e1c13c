"""Path patterns as .gitattributes and .gitignore write them."""

import re
from collections.abc import Iterable
from functools import lru_cache

# What the Hub puts into a new repo: these files are kept out of git, as large files.
_LARGE_FILES = """
*.7z *.arrow *.avro *.bin *.bz2 *.ckpt *.ftz *.gz *.h5 *.joblib *.lz4 *.mlmodel *.model *.msgpack *.npy *.npz *.onnx
*.ot *.parquet *.pb *.pickle *.pkl *.pt *.pth *.rar *.safetensors saved_model/**/* *.tar.* *.tar *.tflite *.tgz *.wasm
*.xz *.zip *.zst *tfevents* *.bmp *.gif *.jpeg *.jpg *.png *.tiff *.webp *.flac *.mp3 *.ogg *.wav *.mp4 *.webm
"""
LARGE_FILE_PATTERNS = _LARGE_FILES.split()


def format_attributes(patterns: Iterable[str]) -> str:
    return "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in patterns)


def parse_attributes(text: str) -> list[str]:
    """The patterns that a .gitattributes sends to the large-file store."""
    return [line.split()[0] for line in text.splitlines() if "filter=lfs" in line.split()[1:]]


def is_matched(path: str, patterns: Iterable[str]) -> bool:
    """Whether the last of `patterns` that speaks of `path`, or of a folder it lies in, selects it (`!` deselects)."""
    matched = False
    for pattern in patterns:
        selects = not pattern.startswith("!")
        if (selects != matched) and _expression(pattern.removeprefix("!")).fullmatch(path):
            matched = selects
    return matched


def parse_ignored(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


@lru_cache(maxsize=1000)
def _expression(pattern: str) -> re.Pattern[str]:
    anchored = "/" in pattern.rstrip("/")  # without a slash a pattern holds at every depth
    pieces = re.split(r"(\*\*/|\*\*|\*|\?|\[[\w-]+\])", pattern.strip("/"))
    wild = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    body = "".join(wild.get(piece) or (piece if piece[:1] == "[" else re.escape(piece)) for piece in pieces)
    return re.compile(f"{'' if anchored else '(?:.*/)?'}{body}{'/.*' if pattern.endswith('/') else '(?:/.*)?'}", re.S)
