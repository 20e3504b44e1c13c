import pytest
from transformers import PaliGemmaProcessor

from quickstart.pretraining.small_paligemma import make_processor


@pytest.fixture(scope="session")
def processor() -> PaliGemmaProcessor:
    """For images of 56 px in patches of 8 px."""
    return make_processor(image_size=56, patch_size=8)
