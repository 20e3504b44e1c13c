"""Requests that no client would send, and the parts of the protocol that the tests need one by one."""

import hashlib
import http.client
import json
from dataclasses import dataclass, field
from typing import Any, Protocol

from local_hub import LocalHub
from local_hub.lfs import Pointer


@dataclass(frozen=True)
class RawResponse:
    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes = field(repr=False)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Send(Protocol):
    def __call__(
        self, method: str, path: str, body: bytes | str | None = None, *, token: str | None = ..., **headers: str
    ) -> RawResponse: ...


def make_send(hub: LocalHub) -> Send:
    """Make a function that sends the path unchanged, with the owner's token by default (None for no token)."""

    def send(
        method: str, path: str, body: bytes | str | None = None, *, token: str | None = hub.token, **headers: str
    ) -> RawResponse:
        connection = http.client.HTTPConnection("127.0.0.1", port_of(hub), timeout=20)
        content = body.encode() if isinstance(body, str) else body or b""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        sent["Content-Length"] = str(len(content))
        try:
            connection.putrequest(method, path, skip_host="Host" in sent, skip_accept_encoding=True)
            for name, value in sent.items():
                connection.putheader(name, value)
            connection.endheaders(content)
            response = connection.getresponse()
            received = {name.lower(): value for name, value in response.getheaders()}
            return RawResponse(response.status, received, response.read())
        finally:
            connection.close()

    return send


def port_of(hub: LocalHub) -> int:
    return int(hub.endpoint.rpartition(":")[2])


def commit_body(*operations: tuple[str, dict[str, Any]]) -> str:
    """The body of a commit: a header and `operations`, each a key and a value, one a line."""
    lines = [("header", {"summary": "a commit", "description": ""}), *operations]
    return "".join(json.dumps({"key": key, "value": value}) + "\n" for key, value in lines)


def pointer_to(content: bytes) -> Pointer:
    return Pointer(hashlib.sha256(content).hexdigest(), len(content))


def request_upload(send: Send, repo: str, pointer: Pointer) -> dict[str, Any]:
    """What the LFS batch endpoint returns for one object."""
    body = {"operation": "upload", "objects": [{"oid": pointer.oid, "size": pointer.size}], "hash_algo": "sha256"}
    response = send("POST", f"/{repo}.git/info/lfs/objects/batch", json.dumps(body))
    described: dict[str, Any] = response.json["objects"][0]
    return described


def upload_path(send: Send, repo: str, pointer: Pointer) -> str:
    """The signed upload URL of `pointer`, without the scheme and the host."""
    href: str = request_upload(send, repo, pointer)["actions"]["upload"]["href"]
    return "/" + href.split("/", 3)[3]
