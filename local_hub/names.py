"""What may be called what: repos, paths inside a repo, branches and tags."""

import re
from typing import TypeGuard

import pygit2

REPO_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?")
REPO_NAME_LENGTH = 96
# Control characters, and the surrogates that JSON can spell and UTF-8 cannot. libgit2 reads C strings: a NUL would
# end a name early.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


def is_repo_name(name: object) -> TypeGuard[str]:
    """The rule of the Hub for a namespace or a repo's name; it also keeps every repo in a folder of its own."""
    return (
        isinstance(name, str)
        and len(name) <= REPO_NAME_LENGTH
        and REPO_NAME.fullmatch(name) is not None
        and not any(part in name for part in ("--", ".."))
        and not name.endswith(".git")
    )


def is_file_path(path: object) -> TypeGuard[str]:
    """Whether `path` names a file inside a repo, on any system that the repo may be downloaded to."""
    if not isinstance(path, str) or "\\" in path or UNPRINTABLE.search(path):
        return False
    return all(part not in ("", ".", "..") and part.lower() != ".git" for part in path.split("/"))


def is_ref_name(ref: str) -> bool:
    """`ref` in full, as in refs/heads/main."""
    return not UNPRINTABLE.search(ref) and pygit2.reference_is_valid_name(ref)
