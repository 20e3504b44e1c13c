import json
import random
import subprocess
import time
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from local_hub.errors import HubError
from local_hub.lfs import is_matched
from local_hub.patterns import PATTERNS_SIZE_MAX, PatternList
from tests.local_hub.raw_requests import Send


@pytest.mark.parametrize(
    ("path", "pattern", "matched"),
    [
        ("a/b/c/d", "a/**/d", True),
        ("a/b/c/d", "**/c/**", True),
        ("a/c", "**/c/**", False),
        ("b/a/d", "a/**/d", False),
        ("x", "**", True),
        ("x", "**/", False),
        ("a/x", "**/", True),
        ("aXbYb", "a*b", True),
        ("aXbYc", "a*b", False),
        ("ab", "a**b", True),
        ("a/b", "a**b", False),
        ("abcbd", "*b*d", True),
        ("m[z-a]", "m[z-a]", True),
        ("a\nb", "a?b", True),
    ],
)
def test_stars_match_names_and_double_stars_match_folders(path: str, pattern: str, matched: bool) -> None:
    assert is_matched(path, patterns=[pattern]) == matched


@pytest.mark.slow
def test_random_patterns_match_as_in_git(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    rng = random.Random(1)
    parts = ["a", "b", "*", "**", "?", "a*", "*b", "[ab]", "a?c", "*.*", "[!a]", "a*b"]
    checked = 0
    for _ in range(100):
        pattern = "/".join(rng.choice(parts) for _ in range(rng.randint(1, 4)))
        pattern = rng.choice(["", "", "/"]) + pattern + rng.choice(["", "", "/"])
        names = ["a", "b", "ab", "a.b", "abc", "c"]
        paths = {"/".join(rng.choice(names) for _ in range(rng.randint(1, 4))) for _ in range(50)}
        (tmp_path / ".gitignore").write_text(f"{pattern}\n")
        command = ["git", "-C", str(tmp_path), "check-ignore", "--no-index", "--stdin"]
        printed = subprocess.run(command, input="\n".join(paths), capture_output=True, text=True).stdout
        ignored = set(printed.splitlines())
        assert {path for path in paths if is_matched(path, patterns=[pattern])} == ignored, pattern
        checked += len(paths)
    assert checked > 3000


HOSTILE = [
    ("**/" * 25 + "b", "a/" * 40 + "c"),
    ("**/" * 25 + "*" + "/**" * 25 + "/b", "a/" * 49 + "c"),
    ("*a" * 100 + "b", "a" * 250),
    ("*" * 5000 + "b", "a" * 250),
    ("?*" * 100 + "b", "a" * 250),
    ("[ab]*" * 50 + "c", "ab" * 120),
    ("/**" * 3000, "a/" * 49 + "c"),
    ("a*/" * 49 + "c", "aaaa/" * 49 + "b"),
]


@pytest.mark.parametrize(("pattern", "path"), HOSTILE)
def test_no_pattern_takes_long(pattern: str, path: str) -> None:
    start = time.process_time()
    for negated in ("", "!"):
        for ending in ("", "/"):
            is_matched(path, patterns=[f"{negated}{pattern}{ending}"])
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    "patterns",
    [
        ["*a" * 120 + f"b{number}" for number in range(400)],
        ["**/" * 40 + f"x{number}/y" for number in range(700)],
        [f"{number}" for number in range(15_000)],
        ["x" * (PATTERNS_SIZE_MAX + 1)],
    ],
)
def test_patterns_that_are_too_complex_are_refused(patterns: list[str]) -> None:
    start = time.process_time()
    with pytest.raises(HubError, match="gitignore"):
        match_all(patterns, ["y/" + "x1/" * 47 + "a" * 200 + str(number) for number in range(256)])
    assert time.process_time() - start < 10


def match_all(patterns: list[str], paths: list[str]) -> list[bool]:
    pattern_list = PatternList(patterns)
    return [pattern_list.is_matched(path) for path in paths]


def test_a_hostile_gitignore_does_not_stop_the_hub(api: HfApi, repo: str, send: Send) -> None:
    path = f"/api/models/{repo}/preupload/main"
    files = [{"path": "a/" * 40 + f"{number}", "size": 1, "sample": ""} for number in range(100)]
    gitignore = "\n".join("**/" * 25 + f"b{number}" for number in range(50))
    start = time.monotonic()
    assert send("POST", path, json.dumps({"files": files, "gitIgnore": gitignore})).status in (200, 400)
    assert api.whoami()["name"] == "local"
    assert time.monotonic() - start < 10
    attributes = f"{'**/' * 25}b filter=lfs\n[z-a] filter=lfs\n".encode()
    for name in (".gitattributes", ".gitignore"):
        api.upload_file(repo_id=repo, path_in_repo=name, path_or_fileobj=attributes)
    assert send("POST", path, json.dumps({"files": files})).status == 200
    assert send("POST", path, json.dumps({"files": files, "gitIgnore": ["*"]})).status == 400
