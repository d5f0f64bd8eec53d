"""Losses have answers known in closed form."""

from __future__ import annotations

import pytest
import torch

from nst.losses import content_factor, gram_matrix, squared_distance, style_factor, total_variation_loss


def test_gram_matrix_is_per_image_and_equals_the_definition() -> None:
    features = torch.randn(3, 4, 5, 6, dtype=torch.float64)
    grams = gram_matrix(features, normalization="hw")
    for image, gram in zip(features, grams, strict=True):
        for i in range(4):
            for j in range(4):
                assert gram[i, j] == pytest.approx(float((image[i] * image[j]).sum()) / 30, rel=1e-12)


@pytest.mark.parametrize("images", [1, 3])
def test_gram_gradients(images: int) -> None:
    features = torch.randn(images, 3, 2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(gram_matrix, (features,))
    assert torch.autograd.gradgradcheck(gram_matrix, (features,))


def test_chw_divides_by_the_channels_too() -> None:
    features = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    hw, chw = gram_matrix(features, normalization="hw"), gram_matrix(features, normalization="chw")
    torch.testing.assert_close(chw * 4, hw)


def test_gram_of_constant_channels() -> None:
    features = torch.tensor([2.0, 3.0]).view(1, 2, 1, 1).expand(1, 2, 7, 5)
    expected = torch.tensor([[[4.0, 6.0], [6.0, 9.0]]])
    torch.testing.assert_close(gram_matrix(features), expected)


def test_content_loss_paper_is_half_the_sum() -> None:
    features, target = torch.zeros(2, 3, 4, 5), torch.ones(2, 3, 4, 5)
    distance = squared_distance(features, target)
    assert (content_factor(target) * distance).tolist() == [1.0, 1.0]
    assert (content_factor(target, scale="paper") * distance).tolist() == [30.0, 30.0]


def test_style_loss_paper_equals_equation_4() -> None:
    """1 / (4 N^2 M^2) times the squared distance of unnormalized Grams, N channels, M positions."""
    a, b = torch.randn(1, 3, 4, 5, dtype=torch.float64), torch.randn(1, 3, 4, 5, dtype=torch.float64)
    flat_a, flat_b = a[0].reshape(3, 20), b[0].reshape(3, 20)
    expected = ((flat_a @ flat_a.T - flat_b @ flat_b.T) ** 2).sum() / (4 * 3**2 * 20**2)
    loss = style_factor(gram_matrix(b), scale="paper") * squared_distance(gram_matrix(a), gram_matrix(b))
    assert float(loss) == pytest.approx(float(expected), rel=1e-12)


def test_total_variation_of_a_checkerboard_is_two() -> None:
    rows, columns = torch.meshgrid(torch.arange(6), torch.arange(9), indexing="ij")
    board = ((rows + columns) % 2).float().expand(1, 3, 6, 9)
    assert total_variation_loss(board).tolist() == [2.0]


def test_total_variation_of_flat_and_one_pixel_images_is_zero() -> None:
    assert total_variation_loss(torch.full((2, 3, 4, 4), 0.3)).tolist() == [0.0, 0.0]
    assert total_variation_loss(torch.rand(1, 3, 1, 1)).tolist() == [0.0]
    assert total_variation_loss(torch.tensor([0.0, 1.0]).expand(1, 3, 1, 2)).tolist() == [1.0]
