"""What is installed, run in CI and shipped: pinned by hash, audited, scanned, and nothing else."""

import contextlib
import json
import re
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import scan
from tests.audit import CANARY, LOCKS, pinned_everywhere
from tests.commands import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
DIGEST = r"@sha256:[0-9a-f]{64}"


def jobs() -> Iterator[tuple[str, dict[str, Any]]]:
    for file in WORKFLOWS:
        for name, job in yaml.safe_load(file.read_text())["jobs"].items():
            yield f"{file.name}: {name}", job


def test_every_action_is_pinned_by_commit_with_its_tag() -> None:
    used = [line.strip() for file in WORKFLOWS for line in file.read_text().splitlines() if "uses:" in line]
    assert len(used) >= 5
    for line in used:
        assert re.fullmatch(r"- uses: [\w-]+/[\w/-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", line), line
    commits = {(action, commit) for action, commit in re.findall(r"uses: (\S+)@(\w+)", "\n".join(used))}
    assert len(commits) == len({action for action, _ in commits}), "one action at two commits"


def test_every_container_is_pinned_by_digest() -> None:
    checked = 0
    for name, job in jobs():
        container = job["container"]
        if "matrix.digest" in container:
            rows = job["strategy"]["matrix"]["include"]
            containers = [
                container.replace("${{ matrix.python }}", row["python"]).replace("${{ matrix.digest }}", row["digest"])
                for row in rows
            ]
            assert len(set(containers)) == len(rows) == 3
        else:
            containers = [container]
        for one in containers:
            assert re.fullmatch(rf"python:3\.1\d-bookworm{DIGEST}", one), f"{name}: {one}"
            checked += 1
    assert checked >= 5


def test_workflows_may_read_the_repository_and_nothing_else() -> None:
    assert len(WORKFLOWS) >= 3
    for file in WORKFLOWS:
        content = yaml.safe_load(file.read_text())
        assert content["permissions"] == {"contents": "read"}, file.name
        triggers = content[True]  # YAML reads `on` as true
        assert "pull_request_target" not in triggers and "workflow_run" not in triggers, file.name
        assert "secrets." not in file.read_text(), file.name
        assert "${{ github.event" not in file.read_text(), f"{file.name}: text of a stranger in a command"
    for name, job in jobs():
        assert "permissions" not in job, name
        checkouts = [step for step in job["steps"] if step.get("uses", "").startswith("actions/checkout@")]
        assert len(checkouts) == 1 and checkouts[0]["with"]["persist-credentials"] is False, name


def test_dependabot_proposes_actions_and_packages_that_are_a_week_old() -> None:
    updates = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())["updates"]
    assert {update["package-ecosystem"] for update in updates} == {"pip", "github-actions"}
    assert all(update["cooldown"]["default-days"] >= 7 for update in updates)


def test_every_requirement_of_the_locks_has_hashes() -> None:
    locks = sorted(ROOT.glob("requirements*.lock"))
    assert len(locks) == 4
    checked = 0
    for lock in locks:
        text = lock.read_text().replace("\\\n", " ")
        for line in text.splitlines():
            if line.strip() and not line.startswith(("#", "--index-url", "--extra-index-url", "--find-links")):
                assert re.match(r"[a-z0-9-]+==[^ ]+ .*--hash=sha256:[0-9a-f]{64}", line), f"{lock.name}: {line[:80]}"
                checked += 1
    assert checked > 100


def test_everything_is_installed_with_hashes() -> None:
    makefile = (ROOT / "Makefile").read_text()
    installs = [line for line in makefile.splitlines() if re.search(r"\$\(PIP\) install|pip install", line)]
    assert len(installs) >= 6
    for line in installs:
        is_checked = "--require-hashes" in line
        is_own = "--editable ." in line and "--no-deps" in line and "--no-build-isolation" in line
        is_for_locking = line.strip().startswith(".lock-venv/bin/pip install")  # uv, which writes the hashes
        assert is_checked or is_own or is_for_locking, line
    others = [*ROOT.glob(".ci/*"), *WORKFLOWS]
    assert not [file for file in others if "pip install" in file.read_text()]


# The audit, against a database on loopback.


@contextlib.contextmanager
def database(answer: Callable[[str], tuple[int, bytes]]) -> Iterator[str]:
    """A server that is asked like OSV's and answers by the name of a package."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, body = answer(query["package"]["name"])
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1/query"
    finally:
        server.shutdown()
        server.server_close()


def vulnerability(name: str, version: str) -> bytes:
    affected = {"package": {"name": name, "ecosystem": "PyPI"}, "versions": [version]}
    affected["ranges"] = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99"}]}]
    found = {"id": f"PYSEC-{name}", "modified": "2026-01-01T00:00:00Z", "affected": [affected], "summary": "bad"}
    return json.dumps({"vulns": [found]}).encode()


NOTHING = (200, b"{}")
KNOWN = (200, vulnerability("urllib3", "1.24.1"))
LOCK = 'filelock==3.20.0 ; python_version >= "3.11" \\\n    --hash=sha256:' + "0" * 64 + "\n"


def run_audit(tmp_path: Path, osv_url: str) -> subprocess.CompletedProcess[str]:
    lock = tmp_path / "requirements.lock"
    lock.write_text(LOCK)
    command = [sys.executable, "-m", "tests.audit", "--osv_url", osv_url, "--lock", str(lock)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_an_audit_fails_where_the_database_cannot_be_reached(tmp_path: Path) -> None:
    with database(lambda name: NOTHING) as url:
        pass  # its port is closed now
    done = run_audit(tmp_path, url)
    assert done.returncode == 2
    assert "NOT AUDITED" in done.stderr
    assert "no known vulnerabilities" not in done.stdout


@pytest.mark.faults
@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"urllib3": NOTHING}, "knows no vulnerability of urllib3 1.24.1"),  # a proxy that answers everything with {}
        ({"urllib3": (404, b"not found")}, "NOT AUDITED"),
        ({"urllib3": (200, b"<html>log in</html>")}, "NOT AUDITED"),
        ({"urllib3": KNOWN, "filelock": (500, b"down")}, "NOT AUDITED"),
        ({"urllib3": KNOWN, "filelock": (404, b"unknown")}, "NOT AUDITED"),
    ],
)
def test_an_audit_without_an_answer_for_each_package_is_none(
    tmp_path: Path, answers: dict[str, tuple[int, bytes]], message: str
) -> None:
    with database(lambda name: answers[name]) as url:
        done = run_audit(tmp_path, url)
    assert done.returncode == 2
    assert message in done.stderr
    assert "no known vulnerabilities" not in done.stdout


@pytest.mark.faults
def test_an_audit_prints_each_known_vulnerability(tmp_path: Path) -> None:
    with database(lambda name: KNOWN if name == "urllib3" else NOTHING) as url:
        done = run_audit(tmp_path, url)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "no known vulnerabilities"), done.stderr
    with database(lambda name: KNOWN if name == "urllib3" else (200, vulnerability("filelock", "3.20.0"))) as url:
        done = run_audit(tmp_path, url)
    assert done.returncode == 1
    assert "filelock 3.20.0: PYSEC-filelock; fixed in 99" in done.stdout


def test_an_audit_covers_the_locks() -> None:
    assert CANARY.startswith("urllib3==1.24.1 ")
    assert len(pinned_everywhere(ROOT / LOCKS[0])) > 100
    assert {"torch", "transformers", "pillow", "urllib3"} <= pinned_everywhere(ROOT / LOCKS[0])
    nightly = yaml.safe_load((ROOT / ".github/workflows/audit.yml").read_text())
    assert nightly["jobs"]["audit"]["steps"][-1] == {"run": "make audit"}
    assert "requirements*.lock" in nightly[True]["pull_request"]["paths"] and nightly[True]["schedule"]


# The scan.


@pytest.mark.faults
def test_the_scan_finds_insecure_calls_secrets_and_unsafe_workflows(tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "a.py").write_text("import subprocess, pickle\nsubprocess.run('ls', shell=True)\npickle.loads(b'')\n")
    assert {(check, line) for _, check, line, _ in scan.insecure_calls(str(bad))} == {
        ("B602", 2), ("B403", 1), ("B607", 2), ("B301", 3),
    }  # fmt: skip
    key = "AKIA" + "IOSFODNN7EXAMPLA"  # in two parts, or the scan would find it here
    token = "hf_" + "aB3" * 12
    (bad / "b.txt").write_text(f"aws = {key}\nhub = {token}\n")
    assert {(kind, line) for _, kind, line, _ in scan.secrets(bad)} == {("AWS Access Key", 1), ("Hub token", 2)}
    workflows = bad / ".github" / "workflows"
    workflows.mkdir(parents=True)
    (workflows / "x.yml").write_text(
        "on: pull_request_target\njobs:\n  a:\n    runs-on: ubuntu-latest\n    steps: [{uses: actions/checkout@v4}]\n"
    )
    found = "\n".join(scan.unsafe_workflows(bad / ".github"))
    assert all(kind in found for kind in ("unpinned-uses", "dangerous-triggers", "excessive-permissions"))


@pytest.mark.slow
def test_the_workflows_are_safe() -> None:
    assert list(scan.unsafe_workflows()) == []


# What is in the repository and in the distributions.

PROGRAMS = (b"\x7fELF", b"MZ", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"PK\x03\x04")
BINARY = {".ttf", ".otf", ".png", ".jpg", ".safetensors"}


def test_no_file_is_a_pickle_or_a_program() -> None:
    names = scan.tracked_files()
    assert len(names) > 250
    for name in names:
        content = (ROOT / name).read_bytes()
        assert not (ROOT / name).is_symlink(), name
        assert not content.startswith((b"\x7fELF", b"MZ", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"PK\x03\x04")), (
            name
        )
        assert not re.match(rb"\x80[\x02-\x05]", content), f"{name} starts like a pickle"
        if Path(name).suffix not in BINARY:
            content.decode()  # text
    executable = {name for name in names if (ROOT / name).stat().st_mode & 0o111}
    assert executable <= {".ci/run"}


@pytest.mark.faults
def test_the_distributions_hold_what_is_tracked_and_nothing_else(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (sdist,) = tmp_path.glob("*.tar.gz")
    (wheel,) = tmp_path.glob("*.whl")
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
    assert all(member.isfile() for member in members)
    names = {member.name.partition("/")[2] for member in members}
    assert len(names) > 200
    assert names <= {*scan.tracked_files(), "PKG-INFO"}
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    own = {name for name in names if ".dist-info/" not in name} - {"product_vqa/model_card.md"}
    assert own <= set(scan.tracked_files())
    assert {name.split("/")[0] for name in own} == {
        "product_vqa", "dataset_builder", "training", "inference", "local_hub", "quickstart",
    }  # fmt: skip
