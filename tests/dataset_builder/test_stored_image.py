"""What is known about an image comes back as it was, and takes little memory."""

import pickle
import sys

from hypothesis import given
from hypothesis import strategies as st

from dataset_builder.stored_image import StoredImage

VALUES = st.fixed_dictionaries(
    {
        "num_bytes": st.integers(1, 2**40),
        "width": st.integers(1, 2**31 - 1),
        "height": st.integers(1, 2**31 - 1),
        "sha256": st.binary(min_size=32, max_size=32).map(bytes.hex),
        "phash": st.integers(-(2**63), 2**63 - 1),
    }
)


@given(VALUES, VALUES)
def test_every_value_comes_back(values: dict[str, int], other: dict[str, int]) -> None:
    image = StoredImage(**values)  # type: ignore[arg-type]
    assert image.as_dict() == values == {name: getattr(image, name) for name in StoredImage.FIELDS}
    assert tuple(image.as_dict()) == StoredImage.FIELDS
    assert pickle.loads(pickle.dumps(image)) == image == StoredImage(*image.as_dict().values())  # type: ignore[arg-type]
    assert (image == StoredImage(**other)) is (values == other)  # type: ignore[arg-type]
    assert repr(image).startswith(f"StoredImage(num_bytes={image.num_bytes}, ")


def test_images_are_sorted_by_their_hashes_and_small() -> None:
    first, second = (StoredImage(size, 1, 1, f"{number:064x}", 0) for number, size in ((1, 9), (2, 5)))
    assert first < second
    assert sys.getsizeof(first) <= 112
