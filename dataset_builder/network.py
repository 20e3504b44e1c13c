"""Tells whether a host is down, or the whole network, or whether the network wants a login.

A URL must not fail because of the network: what fails is not downloaded in the next run.
"""

import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from dataset_builder.image_store import ImageStore, Status, UrlState
from product_vqa.errors import InputError
from product_vqa.http.fetching import Fetched, Fetcher, FetchError, origin
from product_vqa.images import ImageError, open_image
from product_vqa.quoting import one_line

MAX_HOSTS_CHECKED = 32  # before the network counts as down
MAX_CHECK_S = 2  # for which hosts that refuse a connection are asked again
MAX_UNANSWERED = 32  # consecutive URLs without an answer of their server, before the network is checked
# What a network that wants a login sends in place of the answers of all servers: its page, an error, a redirect to
# itself, or its own address for every name.
_LOGIN = (
    *("http_3", "http_401", "http_403", "http_407", "http_5"),
    *("not_a_picture", "bad_answer: more than", "private_address"),
)


class Network:
    """The network of a run."""

    def __init__(self, fetcher: Fetcher, store: ImageStore, urls: Collection[str]) -> None:
        self._fetcher = fetcher
        self._store = store
        self._urls = urls
        self._answered: str | None = None  # the last URL that got an answer, of whatever kind
        self._served: str | None = None  # the last URL that gave an image
        self._fetched_at: dict[str, float] = {}  # of URLs whose outcome has not come through `sift` yet

    def fetch(self, url: str) -> Fetched:
        """`Fetcher.fetch`, for the outcomes that `sift` gets."""
        try:
            return self._fetcher.fetch(url)
        finally:
            self._fetched_at[url] = time.monotonic()

    def reachable(self, url_by_origin: dict[str, str]) -> set[str]:
        """Those of the origins that accept a connection."""
        return {name for name, reason in self._ask(url_by_origin).items() if reason == ""}

    def check(self, urls: Iterable[str]) -> dict[str, str]:
        """The origins of the URLs that accept no connection, with the reason. Only the first origins are asked.

        Raises InputError if none accepts a connection.
        """
        url_by_origin: dict[str, str] = {}
        for url in urls:
            url_by_origin.setdefault(origin(url), url)
            if len(url_by_origin) == MAX_HOSTS_CHECKED:
                break
        started = time.monotonic()
        while True:
            found = self._ask(url_by_origin)
            down = {name: reason for name, reason in found.items() if reason}
            if not down or "" in found.values():
                return down
            if time.monotonic() - started > MAX_CHECK_S:
                raise _no_hosts(down)
            time.sleep(0.5)

    def _ask(self, url_by_origin: dict[str, str]) -> dict[str, str | None]:
        with ThreadPoolExecutor(MAX_HOSTS_CHECKED) as pool:
            try:
                reasons = list(pool.map(self._fetcher.why_unreachable, url_by_origin.values()))
            except BaseException:
                self._fetcher.stop()  # or else the pool waits for servers
                raise
        return dict(zip(url_by_origin, reasons, strict=True))

    def sift(self, states: Iterable[UrlState]) -> Iterator[UrlState]:
        """Pass the outcomes on, but hold back those without an answer until the network is known to work after them.

        Raises InputError if it does not. What a network that wants a login sends for every URL counts as no answer.
        """
        held: deque[tuple[float, UrlState]] = deque()
        for state in states:
            fetched_at = self._fetched_at.pop(state.url)
            if _is_unanswered(state.reason) or _is_login(state.reason):
                held.append((fetched_at, state))
                if len(held) == MAX_UNANSWERED:
                    self._check_held([state for _, state in held])
                    yield from (held.popleft()[1] for _ in range(len(held)))
                continue
            if state.http_status is not None:  # or else no host was asked, which says nothing
                self._answered = state.url
                if state.status == Status.STORED:
                    self._served = state.url
                # Decoding takes time: the outcomes of later requests may have come before.
                while held and held[0][0] <= fetched_at:
                    yield held.popleft()[1]
            yield state
        self._check_rest([state for _, state in held])
        yield from (state for _, state in held)

    def _check_rest(self, held: list[UrlState]) -> None:
        """Raises InputError if these outcomes, the last of a run, mean that there is no network."""
        unanswered = [state for state in held if _is_unanswered(state.reason)]
        if unanswered:
            self.check([*filter(None, [self._answered]), *(state.url for state in unanswered), *self._urls])
        if self._answered is None and any(state.reason == "http_511" for state in held) and not self._is_open():
            raise _no_images(held, are_first=True)

    def _check_held(self, held: list[UrlState]) -> None:
        """Raises InputError if these outcomes, one after the other, mean that there is no network."""
        may_want_login = any(_is_login(state.reason) for state in held)
        if not (self._is_open() if may_want_login else self._answered or self._is_open_elsewhere(held)):
            raise _no_images(held, are_first=self._served is None)
        if unanswered := [state.url for state in held if _is_unanswered(state.reason)]:
            self._fetcher.give_up(self.check([*filter(None, [self._answered]), *unanswered]))

    def _is_open(self) -> bool:
        """Whether a URL that gave an image, in this run or in an earlier one, gets an answer of its server now."""
        stored = (url for url in self._urls if self._store.state(url).status == Status.STORED)
        return any(self._is_answered(url) for url in ([self._served] if self._served else islice(stored, 3)))

    def _is_open_elsewhere(self, held: list[UrlState]) -> bool:
        """Whether only the certificates of the hosts are at fault: a URL of another host gets an answer of its server.

        That it has got none so far means nothing, because these URLs fail faster than any server answers.
        """
        if not all(_is_untrusted(state.reason) for state in held):
            return False
        untrusted = {origin(state.url) for state in held}
        url_by_origin: dict[str, str] = {}
        for url in self._urls:
            if origin(url) not in untrusted:
                url_by_origin.setdefault(origin(url), url)
        self._answered = next(filter(self._is_answered, islice(url_by_origin.values(), 3)), None)
        return self._answered is not None

    def _is_answered(self, url: str) -> bool:
        try:
            with open_image(self._fetcher.fetch(url).data):
                return True
        except (FetchError, ImageError) as error:
            return not _is_unanswered(str(error)) and not _is_login(str(error))


def _is_unanswered(reason: str) -> bool:
    return reason.startswith(("connection:", "timeout:")) or _is_untrusted(reason)


def _is_untrusted(reason: str) -> bool:
    """Whether a server has a certificate that is not trusted. A proxy may have put it in place of the server's."""
    return reason.startswith("certificate:")


def _is_login(reason: str) -> bool:
    """Whether a network that wants a login may be the reason."""
    return reason.startswith(_LOGIN)


def _no_hosts(down: dict[str, str]) -> InputError:
    """None of these hosts accepts a connection, for these reasons."""
    name, reason = next((item for item in down.items() if _is_untrusted(item[1])), next(iter(down.items())))
    what = f"none of {len(down)} hosts can be reached, like {name} ({reason})"
    return _not_trusted(what) if _is_untrusted(reason) else _no_network(what)


def _no_images(held: list[UrlState], *, are_first: bool) -> InputError:
    example = held[-1]
    what = (
        f"none of the {'first' if are_first else 'last'} {len(held)} URLs returned an image (for example "
        f"{one_line(example.url)}: {example.reason})"
    )
    if _is_untrusted(example.reason):
        return _not_trusted(what)
    may_be_local = example.reason.startswith("private_address")
    remedy = ", or set `allow_private_hosts` if you wrote these URLs yourself" if may_be_local else ""
    return _no_network(f"{what}; the network may require a login{remedy}")


def _not_trusted(what: str) -> InputError:
    return InputError(
        f"{what}: only certificates that are valid for their host and signed by one of certifi's authorities are "
        "trusted. If the network decrypts connections or requires a login, use another one; if the server is yours, "
        "use http URLs, or give its images as `image_dir`. No URL was marked as failed: rerun the command afterwards"
    )


def _no_network(reason: str) -> InputError:
    return InputError(
        f"no network: {reason}. No URL was marked as failed: rerun the command when the network is up, or "
        "build from the images in the store with `download` false"
    )
