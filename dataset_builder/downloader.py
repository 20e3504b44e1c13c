"""An image store, filled from links or from a folder: in parallel, each link once, whatever came of it recorded."""

import logging
import os
import sqlite3
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime

from tqdm.auto import tqdm

from dataset_builder.fetching import Fetched, Fetcher, FetchError, is_unreached, origin
from dataset_builder.image_preparation import ImageFolder, Picture, PictureError, prepare_picture
from dataset_builder.image_store import FAILURES_FILE, ImageStore, LinkState, Status, count_reasons
from dataset_builder.options import FetchOptions
from dataset_builder.pool import map_unordered
from product_vqa.errors import InputError

logger = logging.getLogger(__name__)
SAMPLE_SIZE, SAMPLE_SHARE = 100, 4  # links that show how much disk an image takes: so many, but a quarter at most
MAX_HOSTS_ASKED = 32  # before it is said that there is no network
MAX_CHECK_S = 2  # for which hosts are asked again that refuse at once
MAX_UNANSWERED = 32  # links in a row without an answer from their hosts, before these are looked at


def fill(
    store: ImageStore,
    links: Collection[str],
    options: FetchOptions,
    *,
    check_space: Callable[[int, list[int]], bool] = lambda num_images, sampled: True,
) -> Counter[str]:
    """Fetch what the store lacks of `links`, log the outcome, and return the reasons with their counts.

    A link that failed in an earlier run is left alone unless `options.retry_failed` and it could succeed, or its host
    could not be reached then and can be now. Raises InputError if no host can be reached; then nothing is recorded
    against the links, and if the store lacks any and cannot be written.

    `check_space` is asked whether so many more images fit on the disk, before the first is fetched. Where it cannot
    tell it is asked again with the sizes of a sample, of which nothing is written before.
    """
    if store.is_read_only:
        if pending := store.pending(links, retry=lambda state: options.retry_failed):
            raise InputError(
                f"--image_store {store.folder}: cannot be written, and lacks {len(pending)} of {len(links)} pictures, "
                f"like that of {pending[0]}; copy it to a folder that can be written, or build with --download false "
                "from what it holds"
            )
    else:
        with _explained_space(store):
            _fetch(store, links, options, check_space=check_space)
    reasons = count_reasons(store.failures(links).values())
    logger.info("%s of %s links have a picture in %s", len(links) - reasons.total(), len(links), store.folder)
    if reasons:
        counts = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
        logger.info(
            "%s failed (%s): see %s; --retry_failed tries again those that could succeed",
            reasons.total(), counts, store.folder / FAILURES_FILE,
        )  # fmt: skip
    return reasons


def _fetch(
    store: ImageStore, links: Collection[str], options: FetchOptions, *, check_space: Callable[[int, list[int]], bool]
) -> None:
    with (
        store.filling(),
        ThreadPoolExecutor(options.connections) as pool,
        # Closed before the pool, which waits for its threads: none of them waits for its next attempt then.
        Fetcher(connections=options.connections, allow_private_hosts=options.allow_private_hosts) as fetcher,
    ):
        network = _Network(fetcher, links)
        pending = _alternating(store.pending(links, retry=_retry(store, links, options, network)))
        is_known = True
        if pending:
            is_known = check_space(len(pending), [])
            network.check([*pending, *links])
        _store_pictures(
            store, pending, fetcher.fetch,
            pool=pool, in_flight=4 * options.connections, num_links=len(links), sift=network.sift,
            check_space=None if is_known else check_space,
        )  # fmt: skip
        store.write_failures()


@contextmanager
def _explained_space(store: ImageStore) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:  # SQLite has an error of its own for a full disk
        reason = getattr(error, "strerror", None) or error
        where = getattr(error, "filename", None) or store.folder
        raise InputError(
            f"--image_store {store.folder}: cannot be written ({reason}: {where}); free some space there and start "
            "again: what is fetched is kept"
        ) from error


def _retry(
    store: ImageStore, links: Collection[str], options: FetchOptions, network: "_Network"
) -> Callable[[LinkState], bool]:
    """Which of the links that failed are tried again."""
    wanted = set(links)
    unreached = {origin(link): link for link, reason in store.failed() if is_unreached(reason) and link in wanted}
    reachable = set() if options.retry_failed else network.reachable(unreached)

    def retry(state: LinkState) -> bool:
        return (
            options.retry_failed
            or (is_unreached(state.reason) and origin(state.link) in reachable)
            or (options.allow_private_hosts and state.reason.startswith("private_address"))
        )

    return retry


def _alternating(links: list[str]) -> list[str]:
    """The links of several hosts in turns: one that is down does not hold up, or hide, the others."""
    by_host: dict[str, deque[str]] = {}
    for link in links:
        by_host.setdefault(origin(link), deque()).append(link)
    hosts = deque(by_host.values())
    ordered = []
    while hosts:
        ordered.append(hosts[0].popleft())
        hosts.rotate(-1) if hosts[0] else hosts.popleft()
    return ordered


class _Network:
    """Tells a host that is down from a network that is: by the other hosts of the links."""

    def __init__(self, fetcher: Fetcher, links: Collection[str]) -> None:
        self._fetcher = fetcher
        self._links = links
        self._answered: str | None = None  # the last link that was answered, with whatever
        self._num_pictures = 0

    def reachable(self, urls: dict[str, str]) -> set[str]:
        """Of origins, each with a URL there, those that take a connection."""
        with ThreadPoolExecutor(MAX_HOSTS_ASKED) as pool:
            reasons = pool.map(self._fetcher.why_unreachable, urls.values())
            return {name for name, reason in zip(urls, reasons, strict=True) if reason == ""}

    def check(self, links: Iterable[str]) -> dict[str, str]:
        """The hosts (by `origin`) of the links, of very many the first, that take no connection, with the reason.

        Raises InputError if none does.
        """
        urls: dict[str, str] = {}
        for link in links:
            urls.setdefault(origin(link), link)
            if len(urls) == MAX_HOSTS_ASKED:
                break
        started = time.monotonic()
        with ThreadPoolExecutor(MAX_HOSTS_ASKED) as pool:
            while True:
                found = dict(zip(urls, pool.map(self._fetcher.why_unreachable, urls.values()), strict=True))
                down = {name: reason for name, reason in found.items() if reason}
                if not down or "" in found.values():
                    return down
                if time.monotonic() - started > MAX_CHECK_S:
                    name, reason = next(iter(down.items()))
                    raise _no_network(f"none of {len(down)} hosts can be reached, like {name} ({reason})")
                time.sleep(0.5)

    def sift(self, states: Iterable[LinkState]) -> Iterator[LinkState]:
        """The same states, but those without an answer only once it is known that the network is not the reason.

        Raises InputError if it is. Until there is a picture, a page in place of one is no answer either: a network
        that wants a login first answers every link with its page.
        """
        held: list[LinkState] = []
        for state in states:
            self._num_pictures += state.status == Status.STORED
            is_page = not self._num_pictures and state.reason.startswith("not_a_picture")
            if is_page or state.reason.startswith(("connection:", "timeout:")):
                held.append(state)
                if len(held) < MAX_UNANSWERED:
                    continue
                if self._answered is None:
                    raise _no_network(
                        f"none of the first {len(held)} links gave a picture, like {state.link} ({state.reason}); "
                        "perhaps the network wants a login first"
                    )
                self._fetcher.give_up(self.check([self._answered, *(state.link for state in held)]))
                yield from held
                held.clear()
                continue
            if state.http_status is not None:  # or else nobody was asked, which says nothing
                self._answered = state.link
                yield from held
                held.clear()
            yield state
        unanswered = [state.link for state in held if not state.reason.startswith("not_a_picture")]
        if unanswered:
            self.check([*filter(None, [self._answered]), *unanswered, *self._links])
        yield from held


def _no_network(reason: str) -> InputError:
    return InputError(
        f"no network: {reason}. Nothing is recorded against these links: give the same command again when the network "
        "is up, or build with --download false from what the store holds"
    )


def fill_from_folder(store: ImageStore, links: Collection[str], folder: ImageFolder) -> None:
    """The same from the files of a folder, on all cores."""
    folder.check_names(links)
    pending = store.pending(links, retry=lambda state: True)
    num_threads = os.cpu_count() or 1
    with _explained_space(store), store.filling(), ThreadPoolExecutor(num_threads) as pool:
        _store_pictures(store, pending, folder.read, pool=pool, in_flight=4 * num_threads, num_links=len(links))


def _store_pictures(
    store: ImageStore,
    links: list[str],
    read: Callable[[str], Fetched],
    *,
    pool: ThreadPoolExecutor,
    in_flight: int,
    num_links: int,
    sift: Callable[[Iterable[LinkState]], Iterable[LinkState]] = iter,
    check_space: Callable[[int, list[int]], bool] | None = None,
) -> None:
    # Decoded pictures are what takes memory and cores: one a core at a time, however many threads fetch.
    preparing = ThreadPoolExecutor(os.cpu_count() or 1)

    def prepare(data: bytes) -> Picture:
        return preparing.submit(prepare_picture, data, image_size=store.image_size).result()

    sample: list[Picture] = []
    save = store.save if check_space is None else sample.append

    def obtain(link: str) -> LinkState:
        start = time.monotonic()
        state = _obtain(link, read, prepare, save)
        finished_at = datetime.now(UTC).isoformat(timespec="seconds")
        return state._replace(seconds=round(time.monotonic() - start, 3), finished_at=finished_at)

    def obtained(some: list[str]) -> Iterable[LinkState]:
        return sift(map_unordered(pool, obtain, some, in_flight=in_flight))

    def all_obtained() -> Iterator[LinkState]:
        if check_space is None:
            yield from obtained(links)
            return
        nonlocal save
        sampled = links[:: max(SAMPLE_SHARE, len(links) // SAMPLE_SIZE)]
        states = list(obtained(sampled))
        check_space(len(links), [len(picture.data) for picture in sample])
        save = store.save
        for picture in sample:
            store.save(picture)
        yield from states
        known = set(sampled)
        yield from obtained([link for link in links if link not in known])

    num_failed = 0
    with (
        preparing,
        tqdm(total=num_links, initial=num_links - len(links), desc="Pictures", unit=" links") as progress,
    ):
        for number, state in enumerate(all_obtained(), start=1):
            store.record(state)
            num_failed += state.status != Status.STORED
            progress.set_postfix_str(f"{num_failed / number:.1%} failed", refresh=False)
            progress.update()


def _obtain(
    link: str, read: Callable[[str], Fetched], prepare: Callable[[bytes], Picture], save: Callable[[Picture], None]
) -> LinkState:
    http_status, tries = None, 1
    try:
        data, http_status, tries = read(link)
        picture = prepare(data)
    except FetchError as error:
        status = Status.FAILED if error.could_succeed else Status.REFUSED
        return LinkState(link, status, str(error), error.http_status, error.tries)
    except PictureError as error:
        if getattr(error.__cause__, "errno", None):  # not the picture's fault: where it is prepared, the disk is full
            raise error.__cause__ from None
        return LinkState(link, Status.REFUSED, str(error), http_status, tries)
    save(picture)
    return LinkState(
        link,
        Status.STORED,
        http_status=http_status,
        tries=tries,
        num_bytes=len(picture.data),
        width=picture.width,
        height=picture.height,
        sha256=picture.sha256,
        phash=picture.phash,
    )
