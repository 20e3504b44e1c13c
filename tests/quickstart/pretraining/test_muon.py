import pytest
import torch

from quickstart.pretraining.muon import orthogonalize


@pytest.mark.parametrize("shape", [(2, 64, 192), (2, 192, 64)])
def test_orthogonalized_matrices_have_singular_values_near_one(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalize(torch.randn(shape)))
    assert values.min() > 0.3 and values.max() < 1.3
