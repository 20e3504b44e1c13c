"""Clients that misbehave, for `benchmarks.local_hub_load`.

python -m benchmarks.local_hub_attackers 8765 local/public 60 200

One process with raw sockets, so that the clients take little CPU time from the hub. It prints the number of requests
of each kind, as JSON.
"""

import argparse
import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

ALIASES = "a: &a [x,x,x,x,x,x,x,x,x]\\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
NODES = f"a: [{'a,' * 20_000}]"


@dataclass
class Attackers:
    port: int
    repo: str  # a public repo with a large file, large.bin
    deadline: float
    num_requests: Counter[str] = field(default_factory=Counter)

    async def connect(self, kind: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self.num_requests[kind] += 1
        return await asyncio.open_connection("127.0.0.1", self.port, limit=2**16)

    def head(self, method: str, path: str, *headers: str) -> bytes:
        return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *headers, "", ""]).encode()

    async def ask(self, kind: str, request: bytes) -> None:
        """Send a request and read what comes back, until the hub closes the connection or has answered."""
        reader, writer = await self.connect(kind)
        try:
            writer.write(request)
            await asyncio.wait_for(reader.read(65536), 30)
        finally:
            writer.transport.abort()

    async def slow_headers(self) -> None:
        _, writer = await self.connect("headers, a byte per second")
        try:
            for byte in self.head("GET", "/api/models", *(f"X-{number}: y" for number in range(20))):
                if writer.transport.is_closing():
                    break
                writer.write(bytes([byte]))
                await asyncio.sleep(1)
        finally:
            writer.transport.abort()

    async def half_body(self) -> None:
        reader, writer = await self.connect("half bodies")
        try:
            writer.write(self.head("POST", "/api/validate-yaml", "Content-Length: 200000") + b" " * 100_000)
            await asyncio.wait_for(reader.read(65536), 60)
        finally:
            writer.transport.abort()

    async def huge_body(self) -> None:
        _, writer = await self.connect("huge bodies")
        try:
            path = f"/api/models/{self.repo}/commit/main"
            writer.write(self.head("POST", path, "Content-Length: 600000000"))
            for _ in range(600):
                if writer.transport.is_closing():
                    break
                writer.write(b"x" * 1_000_000)
                await asyncio.wait_for(writer.drain(), 30)
        finally:
            writer.transport.abort()
            await asyncio.sleep(1)

    async def unread_download(self) -> None:
        _, writer = await self.connect("unread downloads")
        try:
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(self.head("GET", f"/{self.repo}/resolve/main/large.bin"))
            await asyncio.sleep(30)
        finally:
            writer.transport.abort()

    async def download(self) -> None:
        reader, writer = await self.connect("full downloads")
        try:
            writer.write(self.head("GET", f"/{self.repo}/resolve/main/large.bin", "Connection: close"))
            while await asyncio.wait_for(reader.read(2**16), 30):
                pass
        finally:
            writer.transport.abort()

    async def idle(self) -> None:
        reader, writer = await self.connect("idle connections")
        try:
            await asyncio.wait_for(reader.read(1), 30)
        finally:
            writer.transport.abort()

    async def invalid_token(self) -> None:
        await self.ask("invalid tokens", self.head("GET", "/api/whoami-v2", "Authorization: Bearer hf_wrong"))

    async def foreign_origin(self) -> None:
        await self.ask("foreign origins", self.head("GET", "/api/models", "Origin: https://evil.example"))

    async def expensive(self) -> None:
        content = f'{{"content": "---\\n{NODES}\\n---\\n"}}'.encode()
        headers = ("Content-Type: application/json", f"Content-Length: {len(content)}")
        await self.ask("expensive cards", self.head("POST", "/api/validate-yaml", *headers) + content)

    async def aliases(self) -> None:
        content = f'{{"content": "---\\n{ALIASES}---\\n"}}'.encode()
        headers = ("Content-Type: application/json", f"Content-Length: {len(content)}")
        await self.ask("YAML aliases", self.head("POST", "/api/validate-yaml", *headers) + content)

    async def expensive_listing(self) -> None:
        path = f"/api/models/{self.repo}/tree/main?recursive=true&expand=true"
        await self.ask("expensive listings", self.head("GET", path))

    async def disconnect(self) -> None:
        _, writer = await self.connect("disconnects")
        writer.write(self.head("GET", f"/{self.repo}/resolve/main/large.bin"))
        await asyncio.sleep(0.01)
        writer.transport.abort()

    async def malformed(self) -> None:
        await self.ask("malformed requests", b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 4000 + b"\r\n")

    async def tiny_chunks(self) -> None:
        request = self.head("POST", "/api/validate-yaml", "Transfer-Encoding: chunked") + b"1\r\n \r\n" * 10_000
        await self.ask("chunks of one byte", request)

    async def repeat(self, attack: Callable[[], Awaitable[None]], *, pause_s: float) -> None:
        while time.monotonic() < self.deadline:
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                await attack()
            await asyncio.sleep(pause_s)

    async def run(self, num_clients: int, only: list[str]) -> None:
        attacks = [
            self.slow_headers,
            self.half_body,
            self.huge_body,
            self.unread_download,
            self.download,
            self.idle,
            self.invalid_token,
            self.foreign_origin,
            self.expensive,
            self.aliases,
            self.expensive_listing,
            self.disconnect,
            self.malformed,
            self.tiny_chunks,
        ]
        attacks = [attack for attack in attacks if not only or attack.__name__ in only]
        clients = [self.repeat(attacks[number % len(attacks)], pause_s=0.2) for number in range(num_clients)]
        _, pending = await asyncio.wait(
            [asyncio.create_task(client) for client in clients], timeout=self.deadline - time.monotonic()
        )
        for task in pending:
            task.cancel()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("repo", help="a public repo of the hub with a file large.bin")
    parser.add_argument("seconds", type=float)
    parser.add_argument("clients", type=int)
    parser.add_argument("kinds", nargs="*", help="functions of this module, such as huge_body (default: all)")
    options = parser.parse_args()
    attackers = Attackers(options.port, options.repo, time.monotonic() + options.seconds)
    asyncio.run(attackers.run(options.clients, options.kinds))
    print(json.dumps({"requests": attackers.num_requests, "cpu_seconds": round(time.process_time(), 1)}))


if __name__ == "__main__":
    main()
