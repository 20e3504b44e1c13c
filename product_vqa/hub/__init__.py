"""Find, download and commit files on the Hub, with retries, and with errors that say what to do."""

from product_vqa.hub.branches import Branch, commit_on_top, read_branch
from product_vqa.hub.commits import commit_files
from product_vqa.hub.errors import TokenError, hub_errors
from product_vqa.hub.locations import (
    DownloadSize,
    Location,
    download,
    file_sizes,
    find_file,
    list_files,
    locate,
    measure_download,
    read_file,
)
from product_vqa.hub.ranges import read_range
from product_vqa.hub.retries import BRIEF_WAITS_S, MAX_WAIT_S, WAITS_S, retry
from product_vqa.hub.urls import page_url

__all__ = [
    "BRIEF_WAITS_S",
    "MAX_WAIT_S",
    "WAITS_S",
    "Branch",
    "DownloadSize",
    "Location",
    "TokenError",
    "commit_files",
    "commit_on_top",
    "download",
    "file_sizes",
    "find_file",
    "hub_errors",
    "list_files",
    "locate",
    "measure_download",
    "page_url",
    "read_branch",
    "read_file",
    "read_range",
    "retry",
]
