"""Two pages for people: the repos, and one repo's files and README. Both show what anybody may see."""

from html import escape
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from local_hub.access import is_visible, open_repository, store_of
from local_hub.repository import MAIN, Repository
from local_hub.store import KINDS

HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'", "Cache-Control": "no-store"}
STYLE = "body{font:16px sans-serif;max-width:60em;margin:2em auto;padding:0 1em}pre{white-space:pre-wrap}"


def show(title: str, *parts: str) -> Response:
    head = f"<!doctype html><meta charset=utf-8><title>{escape(title)}</title><style>{STYLE}</style>"
    return HTMLResponse(f"{head}<h1>{escape(title)}</h1>{''.join(parts)}", headers=HEADERS)


def link(path: str, text: str) -> str:
    return f'<li><a href="/{quote(path)}">{escape(text)}</a></li>'


def path_of(repository: Repository) -> str:
    return repository.name if repository.kind == "models" else f"{repository.kind}/{repository.name}"


def home(request: Request) -> Response:
    parts = []
    for kind in KINDS:
        visible = [repo for repo in store_of(request).repositories(kind) if is_visible(repo, None)]
        parts += [f"<h2>{kind}</h2><ul>", *(link(path_of(repo), repo.name) for repo in visible), "</ul>"]
    return show("Local Hub", *parts)


def repository_page(request: Request) -> Response:
    repository = open_repository(request)
    commit = repository.commit_at(MAIN)
    files = [path for path, item in repository.walk(commit) if item.type_str == "blob"]
    links = [link(f"{path_of(repository)}/resolve/{MAIN}/{path}", path) for path in files]
    readme = (
        "" if repository.settings.gated else (repository.read(commit, "README.md") or b"").decode("utf-8", "replace")
    )
    return show(repository.name, f"<pre>{escape(readme)}</pre><h2>Files at {commit.id}</h2><ul>", *links, "</ul>")
