"""The middle of a scan, in closed form, and however it is looked at."""

from __future__ import annotations

import numpy as np
from dcamt.geometry import Box, Grid, network_grid
from dcamt.inference.cropping import crop
from dcamt.inference.middle import CENTRAL, Middle
from dcamt.volume import Volume

TURNED = np.array([[0, -2.0, 0, 40], [1.5, 0, 0, -30], [0, 0, -2.5, 70], [0, 0, 0, 1]])
SCAN = Grid((60, 80, 40), TURNED)
PART: Box = (slice(10, 50), slice(30, 75), slice(5, 33))


def test_it_is_the_same_place_in_a_part_and_on_the_networks_grid() -> None:
    part = crop(Volume(np.zeros((1, *SCAN.shape), np.float32), SCAN), PART).grid
    here = Middle.of((slice(0, 60), slice(0, 80), slice(0, 40))).within(PART)
    grid = network_grid(part, (1.0, 1.2, 3.0))
    there = Middle.on_network(SCAN, grid)
    mm = TURNED @ [29.5, 39.5, 19.5, 1]
    assert np.allclose(part.affine @ [*here.centre, 1], mm)
    assert np.allclose(grid.affine @ [*there.centre, 1], mm)
    assert np.allclose(here.half_edges * (1.5, 2, 2.5), (45, 80, 50))
    assert np.allclose(there.half_edges * (1, 1.2, 3), (80, 45, 50))


def test_that_of_a_box_lies_in_it() -> None:
    middle = Middle.of(PART)
    assert middle.centre.tolist() == [29.5, 52.0, 18.5]
    assert middle.half_edges.tolist() == [20, 22.5, 14]


def test_what_counts_falls_with_the_distance_as_the_formula_says() -> None:
    components = np.zeros((21, 11, 9), int)
    components[9:12, 4:7, 3:6] = 1  # about the middle
    components[20, 5, 3:6] = 2  # at a face, of an odd shape
    components[15, 5, 4] = 3  # half-way
    components[20, 10, 8] = 5  # in a corner; 4 is missing
    middle = Middle(np.array([10.0, 5.0, 4.0]), np.array([10.0, 5.0, 4.0]))
    weights = middle.weights(components, 6)
    assert np.allclose(weights[[1, 2, 3, 5]], [1, 1 / (1 + CENTRAL), 1 / (1 + CENTRAL / 4), 1 / (1 + 3 * CENTRAL)])
    assert weights[0] == 0
