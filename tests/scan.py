"""Scan for insecure calls (bandit), secrets (detect-secrets) and unsafe workflows (zizmor): `python -m tests.scan`.

Part of `make quality`; asks no server. What is allowed has its reason next to it, and an exception that is no longer
needed is an offence too.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGES = ("product_vqa", "dataset_builder", "training", "inference", "local_hub", "quickstart", "benchmarks")

# bandit's checks that do not fit the house rules.
SKIPPED = {
    "B101": "`assert` is for programming errors; input is checked by `if`",
    "B311": "random numbers sample, shuffle and spread out retries; tokens and names of files come from `secrets`",
    "B404": "importing subprocess does nothing; its calls are checked by B602 to B607",
    "B603": "the check of every call without a shell; the words of our commands are never joined to a line",
}
# (file, check) -> why the code is right.
ALLOWED_CALLS = {
    ("benchmarks/predict.py", "B615"): "a base model that the benchmark has made itself, in a folder",
    ("benchmarks/small_model.py", "B615"): "a base model that the benchmark has made itself, in a folder",
    ("benchmarks/train.py", "B615"): "a base model that the benchmark has made itself, in a folder",
    ("dataset_builder/image_store.py", "B608"): "the names of columns are constants; values are bound",
    ("inference/merged_model.py", "B615"): "a folder that the export has just written",
    ("inference/space.py", "B104"): "a Space runs in a container of its own, and its proxy connects from outside",
    ("product_vqa/dataset.py", "B615"): "files of a folder that was downloaded at a commit",
    ("product_vqa/documents.py", "B506"): "CSafeLoader or SafeLoader",
    ("product_vqa/modeling/loading.py", "B615"): "a folder that was downloaded at a commit",
    ("product_vqa/modeling/collator.py", "B105"): "the image token of PaliGemma",
    ("training/optimizer_state.py", "B403"): "for the name of an error; torch loads with weights_only",
    ("quickstart/pretraining/small_paligemma.py", "B105"): "the image token of PaliGemma",
    ("quickstart/pretraining/small_paligemma.py", "B106"): "the padding token of the tokenizer",
}
# (file, type) -> what it is.
ALLOWED_SECRETS = {
    ("tests/product_vqa/http/test_fetching.py", "Basic Auth Credentials"): "a URL with a password, which is refused",
    ("tests/fuzz/answers.py", "Basic Auth Credentials"): "a URL with a password, which is refused",
    ("tests/product_vqa/test_cli.py", "Basic Auth Credentials"): "a password that must not be printed",
    ("tests/product_vqa/test_redaction.py", "Basic Auth Credentials"): "a password that must not be printed",
    ("tests/hostile/server_answers.py", "Basic Auth Credentials"): "a URL with a password, which is refused",
}
# Long hexadecimal text is a commit or a hash here; tokens of the Hub are looked for instead.
DISABLED_PLUGIN = "HexHighEntropyString"
HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{30,}\b")
# Locks are hashes; fonts, weights and images are binary; the tokenizer is a list of 10,000 words.
NOT_SCANNED = r"\.lock$|^quickstart/base/|^quickstart/rendering/fonts/|\.png$"


def tracked_files() -> list[str]:
    """The files that git tracks, or would."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def _output(*command: str, codes: tuple[int, ...] = (0, 1)) -> str:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode in codes, f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}"
    return done.stdout


def insecure_calls(*folders: str) -> Iterator[tuple[str, str, int, str]]:
    """(file, check, line, message) of bandit's findings."""
    report = json.loads(
        _output("bandit", "--quiet", "--recursive", "--skip", ",".join(SKIPPED), "--format", "json", *folders)
    )
    assert not report["errors"], report["errors"]
    assert len(report["metrics"]) > len(folders), "no files scanned"
    for found in report["results"]:
        yield found["filename"].removeprefix("./"), found["test_id"], found["line_number"], found["issue_text"]


def secrets(root: Path = ROOT) -> Iterator[tuple[str, str, int, str]]:
    """(file, type, line, message) of what looks like a secret in the files that git tracks, or in all of a folder."""
    files = [] if root == ROOT else ["--all-files", "."]
    command = ["detect_secrets", "-C", str(root), "scan", "--no-verify", "--exclude-files", NOT_SCANNED]
    report: dict[str, Any] = json.loads(_output(*command, "--disable-plugin", DISABLED_PLUGIN, *files))
    for file, results in report["results"].items():
        for found in results:
            yield file, found["type"], found["line_number"], "looks like a secret"
    for file in tracked_files() if root == ROOT else [str(path.relative_to(root)) for path in root.rglob("*.*")]:
        if (root / file).is_file() and not re.search(NOT_SCANNED, file):
            for number, line in enumerate((root / file).read_text(errors="replace").splitlines(), start=1):
                if HUB_TOKEN.search(line):
                    yield file, "Hub token", number, "looks like a secret"


def unsafe_workflows(folder: Path = ROOT / ".github") -> Iterator[str]:
    """What zizmor says of the workflows, one line each."""
    program = Path(sys.executable).parent / "zizmor"
    command = [str(program), "--offline", "--quiet", "--no-exit-codes", "--format", "json", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for found in json.loads(done.stdout):
        location = found["locations"][0]
        file = location["symbolic"]["key"]["Local"]["verbatim_path"]
        yield f"{file}:{location['concrete']['location']['start_point']['row'] + 1}: {found['ident']}: {found['desc']}"


def offences() -> Iterator[str]:
    for found, allowed in (
        (list(insecure_calls(*PACKAGES)), ALLOWED_CALLS),
        (list(secrets()), ALLOWED_SECRETS),
    ):
        for file, check, line, message in found:
            if (file, check) not in allowed:
                yield f"{file}:{line}: {check}: {message}"
        for file, check in allowed.keys() - {(file, check) for file, check, _, _ in found}:
            yield f"tests/scan.py: the exception for {check} in {file} is no longer needed"
    yield from unsafe_workflows()


def main() -> int:
    found = list(offences())
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
