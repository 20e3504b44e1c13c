"""Who is asking: the one user, `local`, who owns every repo, and optionally `reader`, who only reads what is public.

The reader exists to show what others see: it finds no private repo, no file of a gated one, and writes nothing.
"""

import hashlib
import hmac
import time
from dataclasses import dataclass
from typing import Any

OWNER = "local"
READER = "reader"
UPLOAD_LINK_S = 3600  # an upload has to begin within the hour


@dataclass(frozen=True)
class Account:
    name: str

    @property
    def may_write(self) -> bool:
        return self.name == OWNER

    def describe(self) -> dict[str, Any]:
        """The answer of whoami."""
        role = "write" if self.may_write else "read"
        token = {"displayName": self.name, "role": role, "createdAt": "2024-01-01T00:00:00.000Z"}
        names = {"name": self.name, "fullname": self.name, "email": f"{self.name}@localhost"}
        return names | {"type": "user", "orgs": [], "auth": {"type": "access_token", "accessToken": token}}


class Accounts:
    def __init__(self, *, token: str, reader_token: str | None = None) -> None:
        self._tokens = {OWNER: token.encode()} | ({READER: reader_token.encode()} if reader_token else {})

    def identify(self, authorization: str) -> Account | None:
        """The account of an `Authorization` header, None if it is not one that was given out."""
        scheme, _, token = authorization.partition(" ")
        given = token.strip().encode("utf-8", "surrogateescape")
        for name, expected in self._tokens.items():
            if hmac.compare_digest(given, expected) and scheme.lower() == "bearer":
                return Account(name)
        return None

    def sign(self, link: str) -> str:
        """Query that lets a request to `link` pass for an hour: the clients send large files without their token."""
        expires = str(int(time.time()) + UPLOAD_LINK_S)
        return f"expires={expires}&signature={self._signature(link, expires)}"

    def is_signed(self, link: str, *, expires: str, signature: str) -> bool:
        """Whether `sign` gave out these two for `link`, not too long ago."""
        genuine = hmac.compare_digest(signature.encode(), self._signature(link, expires).encode())
        return genuine and time.time() <= int(expires)

    def _signature(self, link: str, expires: str) -> str:
        return hmac.new(self._tokens[OWNER], f"{link} {expires}".encode(), hashlib.sha256).hexdigest()
