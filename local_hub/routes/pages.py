"""HTML pages: the list of repos, and the README and files of one repo. Both show only what is public."""

import contextlib
from html import escape
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from local_hub.auth import is_visible, open_repository
from local_hub.repository import MAIN
from local_hub.store import REPO_TYPES, Store

POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
HEADERS = {"Content-Security-Policy": POLICY, "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
STYLE = "body{font:16px sans-serif;max-width:60em;margin:2em auto;padding:0 1em}pre{white-space:pre-wrap}"


def home(request: Request) -> Response:
    store: Store = request.app.state.store
    body = ""
    for repo_type in REPO_TYPES:
        links = []
        for repository in store.list_repositories(repo_type):
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                if is_visible(repository, None):
                    links.append((repository.url_path, repository.repo_id))
        body += f"<h2>{repo_type}s</h2>{link_list(links)}"
    return render_page("Local Hub", body)


def repository_page(request: Request) -> Response:
    repository = open_repository(request)
    commit = repository.commit_at(MAIN)
    readme = "" if repository.settings.gated else repository.read_text(commit, "README.md")
    files = [path for path, item in repository.walk(commit) if item.type_str == "blob"]
    links = link_list([(f"{repository.url_path}/resolve/{MAIN}/{path}", path) for path in files])
    return render_page(repository.repo_id, f"<pre>{escape(readme)}</pre><h2>Files at {commit.id}</h2>{links}")


def link_list(links: list[tuple[str, str]]) -> str:
    """A list of links, each a path and its text."""
    items = [f'<li><a href="/{quote(path)}">{escape(text)}</a></li>' for path, text in links]
    return f"<ul>{''.join(items)}</ul>"


def render_page(title: str, body: str) -> Response:
    head = f"<!doctype html><meta charset=utf-8><title>{escape(title)}</title><style>{STYLE}</style>"
    return HTMLResponse(f"{head}<h1>{escape(title)}</h1>{body}", headers=HEADERS)
