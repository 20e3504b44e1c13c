"""Coverage-guided cases by atheris, where it is installed: `python -m tests.fuzz --guided --seconds 60`.

atheris has wheels for Linux on x86_64 only, so it is optional: the mutated corpus works everywhere. It starts from the
same seeds and words, keeps each case that reaches new code of this repository, and mutates it further.
"""

import argparse
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from tests.fuzz.runner import ENVIRONMENT, Limits, Result
from tests.fuzz.targets import load_target
from tests.fuzz.worker import ROOT, Finding, silence

INSTRUMENTED = ["product_vqa", "dataset_builder", "inference", "local_hub"]


def is_available() -> bool:
    return find_spec("atheris") is not None


def run_guided(name: str, *, limits: Limits, folder: Path) -> Result:
    """Fuzz one target for `limits.seconds` in a process of its own. The first finding ends it."""
    work = folder / name
    (work / "corpus").mkdir(parents=True)
    command = [sys.executable, "-m", "tests.fuzz.guided", name, str(work), "--seed", str(limits.seed)]
    command += ["--seconds", str(int(limits.seconds)), "--limit", str(int(10 * limits.case_s))]
    command += ["--memory_mb", str(limits.memory_mb + 1024)]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, errors="replace")
    numbers = {key: int(value) for key, value in re.findall(r"^stat::(\w+):\s+(\d+)$", done.stderr, re.MULTILINE)}
    assert "number_of_executed_units" in numbers or list(work.glob("found-*")), done.stderr[-3000:]
    result = Result(name)
    result.cases = numbers.get("number_of_executed_units", 0)
    result.seconds = limits.seconds
    result.peak_mb = numbers.get("peak_rss_mb", 0)
    result.slowest_s = numbers.get("slowest_unit_time_sec", 0)
    for file in sorted(work.glob("found-*")):
        kind = "hang" if "timeout" in file.name else "crash"
        data = file.read_bytes().decode("latin-1")
        result.findings.append(Finding(kind, 0, data, file.name, done.stdout[-3000:]))
    return result


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("work", type=Path)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--seconds", type=int, required=True)
    parser.add_argument("--limit", type=int, required=True)
    parser.add_argument("--memory_mb", type=int, required=True)
    options = parser.parse_args()

    import atheris

    silence()
    with atheris.instrument_imports(include=INSTRUMENTED, enable_loader_override=False):
        target = load_target(options.target)
    for number, seed in enumerate(target.seeds()):
        (options.work / "corpus" / f"seed{number}").write_bytes(seed)
    words = options.work / "words"
    escaped = ["".join(f"\\x{byte:02x}" for byte in word) for word in target.words]
    words.write_text("".join(f'"{word}"\n' for word in escaped if word))
    atheris.Setup(
        [
            "guided", str(options.work / "corpus"), f"-dict={words}", f"-seed={options.seed + 1}",
            f"-max_total_time={options.seconds}", f"-timeout={options.limit}", f"-rss_limit_mb={options.memory_mb}",
            f"-max_len={target.max_bytes}", f"-artifact_prefix={options.work}/found-", "-print_final_stats=1",
        ],
        target.fuzz,
    )  # fmt: skip
    atheris.Fuzz()


if __name__ == "__main__":
    main()
