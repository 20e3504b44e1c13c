"""Ask a database of vulnerabilities about every pinned package: `python -m tests.audit`, or `make audit`.

Exit code 0: the database answered for every package, and knows no vulnerability. 1: it knows some, which are printed.
2: there is no audit, because the database could not be reached or did not answer for a package. An old release that is
known to be vulnerable is asked about first: a database that does not know it is none.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
# requirements-cpu.lock has torch only, at the same version as requirements.lock.
LOCKS = ("requirements.lock", "requirements-cuda.lock", "requirements-ray.lock")
# urllib3 1.24.1, vulnerable by CVE-2019-11324 and others.
CANARY = "urllib3==1.24.1 --hash=sha256:61bf29cada3fc2fbefad4fdf059ea4bd1b4a86d2b6d15e1c7c0b582b9752fe39\n"


class NoAuditError(Exception):
    """The database was not asked about every package, or did not answer."""


def run_pip_audit(file: Path, *, osv_url: str | None) -> list[dict[str, Any]]:
    """The packages of a requirements file with hashes, each with its vulnerabilities. Raises NoAuditError."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(file), "--require-hashes", "--disable-pip"]
    command += ["--strict", "--vulnerability-service", "osv", "--format", "json", "--progress-spinner", "off"]
    command += ["--osv-url", osv_url] if osv_url else []
    with tempfile.TemporaryDirectory() as cache:  # an answer of last week is not one
        done = subprocess.run([*command, "--cache-dir", cache], capture_output=True, text=True)
    try:
        audited: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError) as error:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise NoAuditError(f"{file.name}: {reason[:300]}") from error
    if done.returncode not in (0, 1):
        raise NoAuditError(f"{file.name}: pip-audit ended with {done.returncode}")
    for package in audited:
        if "vulns" not in package:
            raise NoAuditError(f"{package['name']}: {package.get('skip_reason', 'no answer')}")
    return audited


def pinned_everywhere(file: Path) -> set[str]:
    """The packages that a lock installs on every platform."""
    pins = re.findall(r"^([a-z0-9-]+)==[^ ]+(?: ; (.*))? \\$", file.read_text(), re.MULTILINE)
    return {name for name, marker in pins if not re.search("sys_platform|platform_|full_version|impl", marker)}


def audit(*, osv_url: str | None, locks: list[Path]) -> list[str]:
    """One line for each known vulnerability. Raises NoAuditError unless every package was audited."""
    with tempfile.TemporaryDirectory() as folder:
        canary = Path(folder) / "canary.txt"
        canary.write_text(CANARY)
        if not any(package["vulns"] for package in run_pip_audit(canary, osv_url=osv_url)):
            raise NoAuditError("the database knows no vulnerability of urllib3 1.24.1, so it does not know any")
    found = []
    for lock in locks:
        audited = run_pip_audit(lock, osv_url=osv_url)
        missing = pinned_everywhere(lock) - {package["name"] for package in audited}
        if missing:
            raise NoAuditError(f"{lock.name}: {', '.join(sorted(missing))} not audited")
        print(f"{lock.name}: {len(audited)} packages audited")
        found += [
            f"{package['name']} {package['version']}: {', '.join([vuln['id'], *vuln['aliases']])}; "
            f"fixed in {', '.join(vuln['fix_versions']) or 'no release'}"
            for package in audited
            for vuln in package["vulns"]
        ]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.audit", description=__doc__.splitlines()[0])
    parser.add_argument("--osv_url", help="the database; the default is pip-audit's, OSV's own")
    parser.add_argument("--lock", type=Path, nargs="+", default=[ROOT / name for name in LOCKS])
    options = parser.parse_args()
    try:
        found = audit(osv_url=options.osv_url, locks=options.lock)
    except NoAuditError as error:
        print(f"NOT AUDITED: {error}", file=sys.stderr)
        return 2
    print("\n".join(found) or "no known vulnerabilities")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
