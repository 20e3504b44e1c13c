"""Fills an image store from URLs or from a folder: in parallel, each URL once, with the outcome recorded."""

import logging
import os
import sqlite3
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeVar

from tqdm.auto import tqdm

from dataset_builder.image_dir import ImageDir
from dataset_builder.image_preparation import PreparedImage, prepare_image
from dataset_builder.image_store import FAILURES_FILE, ImageStore, Status, UrlState, count_reasons
from dataset_builder.network import MAX_UNANSWERED, Network
from dataset_builder.options import FetchOptions, ImageSourceOptions
from product_vqa.errors import InputError
from product_vqa.http.fetching import DEFAULT_LIMITS, Fetched, Fetcher, FetchError, FetchLimits, is_unreached, origin
from product_vqa.images import ImageError
from product_vqa.quoting import one_line

if TYPE_CHECKING:
    from dataset_builder.image_texts import ImageTexts

logger = logging.getLogger(__name__)
# The sample of URLs that shows how much disk space an image takes: about 100, but at most every fourth.
SAMPLE_SIZE, SAMPLE_STEP = 100, 4
Item = TypeVar("Item")
Result = TypeVar("Result")


def open_images(source: ImageSourceOptions, *, image_size: int | None) -> ImageDir | ImageStore:
    """The folder or the store that the options name. `image_size` is checked against that of a store."""
    if source.image_dir is not None:
        return ImageDir(source.image_dir)
    assert source.image_store is not None
    return ImageStore(source.image_store, image_size=image_size)


def download(
    store: ImageStore,
    urls: Collection[str],
    options: FetchOptions,
    *,
    check_space: Callable[[int, list[int]], bool] = lambda num_images, sampled: True,
    limits: FetchLimits = DEFAULT_LIMITS,
    cores: int | None = None,
    texts: "ImageTexts | None" = None,
) -> Counter[str]:
    """Download the images of `urls` that the store lacks, and return how often each reason for a failure occurs.

    A URL that failed in an earlier run is only tried again with `options.retry_failed` and if it could succeed, or if
    its host could not be reached then and can be reached now. Raises InputError if no host can be reached, and then
    records nothing against the URLs. Raises InputError if the store lacks images and cannot be written.

    `check_space(number of images, sizes of a sample)` raises if the images do not fit on the disk. It is called before
    the first download. If it returns False, because it cannot tell without a sample, a sample is downloaded and it is
    called again before anything is written. `cores` is how many images are prepared at a time; by default as many as
    the machine has cores. `texts` reads the text of each image before it is resized.
    """
    if store.is_read_only:
        _check_complete(store, urls, options)
    else:
        with _storage_errors_explained(store):
            _download_missing(store, urls, options, check_space=check_space, limits=limits, cores=cores, texts=texts)
    reasons = count_reasons(store.failures(urls).values())
    logger.info("%s of %s URLs have an image in %s", len(urls) - reasons.total(), len(urls), store.folder)
    if reasons:
        logger.info(
            "%s failed (%s): see %s; `retry_failed` retries those that could succeed",
            reasons.total(),
            ", ".join(f"{reason} {count}" for reason, count in reasons.most_common()),
            store.folder / FAILURES_FILE,
        )
    return reasons


def import_images(
    store: ImageStore, urls: Collection[str], image_dir: ImageDir, *, texts: "ImageTexts | None" = None
) -> None:
    """Store the images of `urls` from a folder, on all cores. `texts` reads their texts before they are resized."""
    image_dir.check_names(urls)
    pending = store.pending(urls, retry=lambda state: True)
    num_threads = os.cpu_count() or 1
    with (
        _storage_errors_explained(store),
        store.locked(),
        threads(num_threads) as pool,
        _preparing(store, texts=texts) as prepare,
    ):
        obtain = partial(_obtain, read=image_dir.read, prepare=prepare, save=store.save)
        states = map_unordered(pool, obtain, pending, in_flight=4 * num_threads)
        _record_all(store, states, num_pending=len(pending), num_urls=len(urls), texts=texts)


def _check_complete(store: ImageStore, urls: Collection[str], options: FetchOptions) -> None:
    pending = store.pending(urls, retry=lambda state: options.retry_failed)
    if pending:
        raise InputError(
            f"`image_store` {store.folder}: is not writable and lacks {len(pending)} of {len(urls)} images, "
            f"for example {one_line(pending[0])}; copy it to a writable folder, or set `download` false to build "
            "from the images that it has"
        )


@contextmanager
def _storage_errors_explained(store: ImageStore) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:  # SQLite has its own error for a full disk
        reason = getattr(error, "strerror", None) or error
        where = getattr(error, "filename", None) or store.folder
        raise InputError(
            f"`image_store` {store.folder}: cannot be written ({reason}: {where}); free some space there and rerun "
            "the command: downloaded images are kept"
        ) from error


def _download_missing(
    store: ImageStore,
    urls: Collection[str],
    options: FetchOptions,
    *,
    check_space: Callable[[int, list[int]], bool],
    limits: FetchLimits,
    cores: int | None,
    texts: "ImageTexts | None",
) -> None:
    with (
        store.locked(),
        threads(options.connections) as pool,
        # Closed before the pool, which waits for its threads, so that no thread waits for a server.
        Fetcher(
            connections=options.connections,
            allow_private_hosts=options.allow_private_hosts,
            limits=limits,
            requests_per_second=options.requests_per_second,
        ) as fetcher,
        _preparing(store, cores, texts=texts) as prepare,
    ):
        network = Network(fetcher, store, urls)
        pending = _alternate_hosts(store.pending(urls, retry=_retry_policy(store, urls, options, network)))

        def obtain_all(some: list[str], save: Callable[[PreparedImage], None]) -> Iterator[UrlState]:
            obtain = partial(_obtain, read=network.fetch, prepare=prepare, save=save)
            return network.sift(map_unordered(pool, obtain, some, in_flight=4 * options.connections))

        states: Iterable[UrlState] = ()
        if pending:
            is_space_known = check_space(len(pending), [])
            network.check([*pending, *urls])
            if is_space_known:
                states = obtain_all(pending, store.save)
            else:
                states = _sample_first(store, pending, obtain_all, check_space=check_space)
        _record_all(store, states, num_pending=len(pending), num_urls=len(urls), texts=texts)
        store.write_failures()


def _retry_policy(
    store: ImageStore, urls: Collection[str], options: FetchOptions, network: "Network"
) -> Callable[[UrlState], bool]:
    """Which of the URLs that failed are tried again."""
    if options.retry_failed:
        return lambda state: True
    wanted = set(urls)
    url_by_origin = {origin(url): url for url, reason in store.failed() if is_unreached(reason) and url in wanted}
    reachable = network.reachable(url_by_origin)

    def retry(state: UrlState) -> bool:
        if is_unreached(state.reason):
            return origin(state.url) in reachable
        return options.allow_private_hosts and state.reason.startswith("private_address")

    return retry


def _alternate_hosts(urls: list[str]) -> list[str]:
    """The URLs of several hosts in turns, so that a host that is down neither delays nor hides the others.

    Those of one host are spread, so that the first MAX_UNANSWERED of them show whether it has images at all.
    """
    by_host: dict[str, list[str]] = {}
    for url in urls:
        by_host.setdefault(origin(url), []).append(url)
    hosts = deque(map(_spread, by_host.values()))
    ordered = []
    while hosts:
        host = hosts.popleft()
        ordered.append(host.popleft())
        if host:
            hosts.append(host)
    return ordered


def _spread(items: list[str]) -> deque[str]:
    step = max(1, len(items) // MAX_UNANSWERED)
    return deque(item for start in range(step) for item in items[start::step])


def _sample_first(
    store: ImageStore,
    urls: list[str],
    obtain_all: Callable[[list[str], Callable[[PreparedImage], None]], Iterator[UrlState]],
    *,
    check_space: Callable[[int, list[int]], bool],
) -> Iterator[UrlState]:
    """Fetch a sample, check the disk space with its sizes, then save the sample and fetch the rest."""
    sampled = urls[:: max(SAMPLE_STEP, len(urls) // SAMPLE_SIZE)]
    images: list[PreparedImage] = []
    states = list(obtain_all(sampled, images.append))
    check_space(len(urls), [len(image.data) for image in images])
    for image in images:
        store.save(image)
    yield from states
    known = set(sampled)
    yield from obtain_all([url for url in urls if url not in known], store.save)


@contextmanager
def threads(num_threads: int) -> Iterator[ThreadPoolExecutor]:
    """A pool that drops what it has not begun when an error or SIGINT ends the block."""
    pool = ThreadPoolExecutor(num_threads)
    try:
        yield pool
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()


@contextmanager
def _preparing(
    store: ImageStore, cores: int | None = None, *, texts: "ImageTexts | None"
) -> Iterator[Callable[[str, bytes], PreparedImage]]:
    """`prepare_image` on one thread per core: decoded images take memory, however many threads download."""

    def prepare(url: str, data: bytes) -> PreparedImage:
        image = prepare_image(data, image_size=store.image_size)
        if texts is not None:
            texts.read(url, data, image.sha256)
        return image

    with threads(cores or os.cpu_count() or 1) as pool:
        yield lambda url, data: pool.submit(prepare, url, data).result()


def _obtain(
    url: str,
    *,
    read: Callable[[str], Fetched],
    prepare: Callable[[str, bytes], PreparedImage],
    save: Callable[[PreparedImage], None],
) -> UrlState:
    """Read, prepare and save the image of one URL, and return what is to be recorded."""
    start = time.monotonic()
    fetched = Fetched(b"")
    try:
        fetched = read(url)
        image = prepare(url, fetched.data)
        save(image)
    except FetchError as error:
        status = Status.FAILED if error.is_retryable else Status.REFUSED
        state = UrlState(url, status, str(error), error.http_status, error.tries)
    except ImageError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno:  # not the image's fault: the disk is full, for instance
            raise cause from None
        state = UrlState(url, Status.REFUSED, one_line(str(error)), fetched.http_status, fetched.tries)
    else:
        state = UrlState(
            url,
            Status.STORED,
            http_status=fetched.http_status,
            tries=fetched.tries,
            num_bytes=len(image.data),
            width=image.width,
            height=image.height,
            sha256=image.sha256,
            phash=image.phash,
        )
    finished_at = datetime.now(UTC).isoformat(timespec="seconds")
    return state._replace(seconds=round(time.monotonic() - start, 3), finished_at=finished_at)


def map_unordered(
    pool: Executor, function: Callable[[Item], Result], items: Iterable[Item], *, in_flight: int
) -> Iterator[Result]:
    """Results in the order in which they are ready, with at most `in_flight` items submitted at a time.

    `pool.map` would hold a future (1.5 kB) for each of 350,000 URLs, and `concurrent.futures.wait` would lock every
    future for every item.
    """
    waiting: set[Future[Result]] = set()
    done: SimpleQueue[Future[Result]] = SimpleQueue()
    try:
        for item in items:
            if len(waiting) >= in_flight:
                yield _next_result(waiting, done)
            future = pool.submit(function, item)
            waiting.add(future)
            future.add_done_callback(done.put)
        while waiting:
            yield _next_result(waiting, done)
    finally:
        for future in waiting:
            future.cancel()


def _next_result(waiting: set[Future[Result]], done: SimpleQueue[Future[Result]]) -> Result:
    future = done.get()
    waiting.remove(future)
    return future.result()


def _record_all(
    store: ImageStore, states: Iterable[UrlState], *, num_pending: int, num_urls: int, texts: "ImageTexts | None"
) -> None:
    """Record outcomes as they come, and show the progress."""
    num_failed = 0
    with tqdm(total=num_urls, initial=num_urls - num_pending, desc="Images", unit=" images") as progress:
        for number, state in enumerate(states, start=1):
            if texts is not None:
                texts.record(state.url)  # before the image counts as stored: a rerun reads only what has no text
            store.record(state)
            num_failed += state.status != Status.STORED
            progress.set_postfix_str(f"{num_failed / number:.1%} failed", refresh=False)
            progress.update()
