"""The gradient, its adjoint and its symbol are one operator, borders included."""

import itertools

import pytest
import torch

from ddfm.operators import adjoint, from_spectrum, grad, grad_symbols, laplacian_symbol, to_spectrum

SIZES = [(5, 7), (6, 8), (16, 17), (1, 9)]


def image(size, channels=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, channels, *size, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("size", SIZES)
def test_gradient_is_multiplication_by_the_symbol(size):
    h = image(size)
    rows, columns = grad_symbols(size)
    spectrum = to_spectrum(h)
    expected = torch.cat([from_spectrum(s * spectrum, size) for s in (rows, columns)], 1)
    torch.testing.assert_close(grad(h), expected, rtol=0, atol=1e-13)  # float64 rounding of an FFT


@pytest.mark.parametrize("size", SIZES)
def test_adjoint(size):
    h, p = image(size), image(size, 2, seed=1)
    torch.testing.assert_close((grad(h) * p).sum(), (h * adjoint(p)).sum(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_symbol_solves_the_dense_system(size):
    """(1 + grad^T grad) k = b by a dense matrix, built column by column from the operator itself."""
    pixels = size[0] * size[1]
    basis = torch.eye(pixels, dtype=torch.float64).view(pixels, 1, *size)
    dense = (basis + adjoint(grad(basis))).view(pixels, pixels).T
    b = image(size)
    expected = torch.linalg.solve(dense, b.view(2, pixels).T).T.view(b.shape)
    k = from_spectrum(to_spectrum(b) / (1 + laplacian_symbol(size, dtype=torch.float64)), size)
    torch.testing.assert_close(k, expected, rtol=0, atol=1e-12)


def test_gradient_by_hand():
    h = torch.tensor([[0.0, 1.0, 4.0], [2.0, 2.0, 2.0]])[None, None]
    rows, columns = grad(h)[0]
    assert rows.tolist() == [[2.0, 1.0, -2.0], [-2.0, -1.0, 2.0]]
    assert columns.tolist() == [[1.0, 3.0, -4.0], [0.0, 0.0, 0.0]]


def test_images_of_a_batch_do_not_mix():
    h = image((8, 9))
    for b, op in itertools.product(range(2), (grad, to_spectrum)):
        torch.testing.assert_close(op(h)[b : b + 1], op(h[b : b + 1]), rtol=0, atol=1e-13)
