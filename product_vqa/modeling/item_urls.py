"""Downloads the items of `AttributeReader.read_many` that are URLs, where that was asked for."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from product_vqa.http.fetching import Fetcher, FetchError
from product_vqa.images import ImageError

NUM_CONNECTIONS = 16  # a batch is downloaded while the one before it is answered

Image = TypeVar("Image")


@contextmanager
def downloading(
    decode: Callable[[bytes], Future[Image]], *, allow_private_hosts: bool
) -> Iterator[Callable[[str], Future[Image]]]:
    """A function that downloads and decodes the image of a URL in the background.

    Its future raises ImageError, with the reason, for an image that could not be downloaded or decoded. At the end
    all requests are ended.
    """
    with Fetcher(connections=NUM_CONNECTIONS, allow_private_hosts=allow_private_hosts) as fetcher:
        pool = ThreadPoolExecutor(NUM_CONNECTIONS, thread_name_prefix="product-vqa-downloads")

        def obtain(url: str) -> Image:
            try:
                data = fetcher.fetch(url.strip()).data
            except FetchError as error:
                raise ImageError(str(error)) from error
            return decode(data).result()

        try:
            yield lambda url: pool.submit(obtain, url)
        finally:
            fetcher.stop()
            pool.shutdown(cancel_futures=True)
