"""Query parameters, and the pages of a listing."""

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import JSONResponse

Item = TypeVar("Item")


def flag(query: QueryParams, name: str) -> bool:
    return query.get(name, "").lower() in ("true", "1")


def number(query: QueryParams, name: str, *, default: int) -> int:
    value = query.get(name, "")
    return int(value) if re.fullmatch(r"[0-9]{1,18}", value) else default


def paginate(
    request: Request,
    items: Sequence[Item],
    *,
    size: int,
    describe: Callable[[Sequence[Item]], list[dict[str, Any]]],
    commit_id: str | None = None,
) -> JSONResponse:
    """Describe one page of `items`, and link to the next page.

    The link names `commit_id`, so that all pages list the same commit even if the branch moves meanwhile.
    """
    start = number(request.query_params, "cursor", default=0)
    end = start + size
    response = JSONResponse(describe(items[start:end]))
    if end < len(items):
        next_page = request.url.include_query_params(cursor=end, **({"at": commit_id} if commit_id else {}))
        response.headers["Link"] = f'<{next_page}>; rel="next"'
    return response
