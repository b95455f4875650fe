"""Which of several pieces is meant, by balls of known sizes and probabilities."""

from __future__ import annotations

import numpy as np
import torch
from dcamt.inference.middle import Middle
from dcamt.inference.pieces import SURE, pieces
from torch import Tensor


def shares_of(*balls: tuple[tuple[int, int, int], float], shape: tuple[int, int, int] = (60, 40, 40)) -> Tensor:
    at = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1)
    organ = np.zeros(shape, np.float32)
    for place, radius in balls:
        organ[np.linalg.norm(at - place, axis=-1) < radius] = 0.9
    return torch.from_numpy(np.stack([1 - organ, organ]))


CENTRE_OF_SHARES = Middle(np.array([29.5, 19.5, 19.5]), np.array([30.0, 20.0, 20.0]))


def test_of_two_alike_the_middle_one_is_meant_but_a_speck_never_is() -> None:
    alike = shares_of(((26, 20, 20), 7), ((50, 20, 20), 7.4))
    chosen = pieces(alike, CENTRE_OF_SHARES)
    assert chosen[26, 20, 20] == 1
    assert chosen[50, 20, 20] == 0
    unlike = shares_of(((29, 20, 20), 2.2), ((50, 20, 20), 8))
    assert pieces(unlike, CENTRE_OF_SHARES)[50, 20, 20] == 1
    assert not pieces(shares_of(((29, 20, 20), 2.2)), CENTRE_OF_SHARES).any()


def test_certainty_counts_rather_than_size_and_it_is_what_exceeds_chance() -> None:
    large, small = shares_of(((14, 20, 20), 8))[1] > 0.5, shares_of(((45, 20, 20), 6))[1] > 0.5
    assert large.sum() > 2 * small.sum()
    organ = torch.where(large, 0.55, 0.01)
    organ[small] = 0.9
    assert pieces(torch.stack([1 - organ, organ]), CENTRE_OF_SHARES)[45, 20, 20] == 1
    # Of three classes, one that leads by 0.4 is seen, though less likely than not.
    first = torch.where(large, 0.4, 0.01)
    chosen = pieces(torch.stack([0.7 * (1 - first), first, 0.3 * (1 - first)]), CENTRE_OF_SHARES)
    assert chosen[14, 20, 20] == 0
    shares = torch.stack([0.5 * (1 - first), first, 0.5 * (1 - first)])
    chosen = pieces(shares, CENTRE_OF_SHARES)
    assert (chosen == 1).sum() == large.sum()
    # But not before one that leads by more, however much smaller.
    shares[:, small] = torch.tensor([0.05, 0.9, 0.05])[:, None]
    assert pieces(shares, CENTRE_OF_SHARES)[45, 20, 20] == 1


def test_a_little_more_certainty_elsewhere_does_not_outweigh_a_larger_piece() -> None:
    central, away = shares_of(((26, 20, 20), 11))[1] > 0.5, shares_of(((52, 20, 20), 7.5))[1] > 0.5
    organ = torch.where(central, SURE - 0.01, 0.01)
    organ[away] = SURE + 0.01
    assert pieces(torch.stack([1 - organ, organ]), CENTRE_OF_SHARES)[26, 20, 20] == 1


def test_two_that_touch_part_where_the_network_is_not_certain() -> None:
    """As an organ and its mirror image do on a coarse grid."""
    two = shares_of(((24, 20, 20), 9), ((45, 20, 20), 10))
    for certain, bridge in ((0.99, 0.7), (0.99, 0.97), (0.9, 0.7)):
        organ = torch.where(two[1] > 0.5, certain, 0.01)
        organ[32:37, 18:23, 18:23] = bridge
        chosen = pieces(torch.stack([1 - organ, organ]), CENTRE_OF_SHARES)
        assert chosen[24, 20, 20] == 1
        parted = certain >= SURE > bridge
        assert chosen[45, 20, 20] == (not parted)
        assert (chosen > 0).sum() == ((organ[:34] > SURE) if parted else organ > 0.5).sum()
    # A few certain voxels in another place say nothing of a scan that is seen less clearly.
    organ = torch.where(shares_of(((40, 20, 20), 11))[1] > 0.5, 0.9, 0.01)
    organ[28:33, 3:8, 18:23] = 0.99
    assert pieces(torch.stack([1 - organ, organ]), CENTRE_OF_SHARES)[40, 20, 20] == 1
