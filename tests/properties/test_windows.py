"""Windows obey the pseudo-code of the Standard, for any centre, width, sign and slope."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ingester.derivatives.grayscale import Modality, Rendering, Voi, window
from ingester.derivatives.voi import auto_window

finite = st.floats(-1e5, 1e5, allow_nan=False).map(lambda x: round(x, 3))
widths = st.floats(1, 1e5).map(lambda x: round(x, 3))
samples = st.lists(st.integers(-40000, 70000), min_size=1, max_size=20)


def linear(x: float, c: float, w: float) -> float:
    """PS3.3 C.11.2.1.2.1, word for word, with ymin 0 and ymax 255."""
    if x <= c - 0.5 - (w - 1) / 2:
        return 0.0
    if x > c - 0.5 + (w - 1) / 2:
        return 255.0
    return ((x - (c - 0.5)) / (w - 1) + 0.5) * 255.0


def linear_exact(x: float, c: float, w: float) -> float:
    """PS3.3 C.11.2.1.3.2."""
    if x <= c - w / 2:
        return 0.0
    if x > c + w / 2:
        return 255.0
    return ((x - c) / w + 0.5) * 255.0


@given(samples, finite, widths)
def test_linear(values: list[int], centre: float, width: float) -> None:
    found = window(np.array(values, np.float64), centre, width, "LINEAR")
    assert np.allclose(found, [linear(x, centre, width) for x in values], atol=1e-6)


@given(samples, finite, st.floats(1e-3, 1e5))
def test_linear_exact(values: list[int], centre: float, width: float) -> None:
    found = window(np.array(values, np.float64), centre, width, "LINEAR_EXACT")
    wanted = [linear_exact(x, centre, width) for x in values]
    assert np.allclose(found, wanted, atol=1e-6)


@given(samples, finite, st.floats(1e-3, 1e5))
def test_sigmoid(values: list[int], centre: float, width: float) -> None:
    found = window(np.array(values, np.float64), centre, width, "SIGMOID")
    for x, y in zip(values, found, strict=True):
        exponent = -4 * (x - centre) / width
        wanted = 0.0 if exponent > 700 else 255 / (1 + math.exp(exponent))
        assert math.isclose(y, wanted, abs_tol=1e-6)


@given(finite)
def test_a_width_of_one_is_a_threshold(centre: float) -> None:
    x = np.array([centre - 0.5 - 1e-3, centre - 0.5, centre - 0.5 + 1e-3])
    assert window(x, centre, 1, "LINEAR").tolist() == [0, 0, 255]


@given(samples, finite, st.floats(1e-3, 0.999))
def test_widths_below_one_are_exact(values: list[int], centre: float, width: float) -> None:
    x = np.array(values, np.float64)
    expected = window(x, centre, width, "LINEAR_EXACT")
    assert np.array_equal(window(x, centre, width, "LINEAR"), expected)


@given(
    st.sampled_from(["u1", "i1", "u2", "i2"]),
    finite,
    widths,
    st.floats(-10, 10).filter(lambda s: abs(s) > 1e-3),
    finite,
    st.booleans(),
    st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
)
@settings(max_examples=40, deadline=None)
def test_the_table_is_what_would_be_computed(
    dtype: str, c: float, w: float, slope: float, intercept: float, inverted: bool, function: str
) -> None:
    rendering = Rendering(Modality(slope, intercept), Voi("header", c, w, function), inverted, None)
    table = rendering.table(np.dtype(dtype))
    limits = np.iinfo(dtype)
    stored = np.linspace(limits.min, limits.max, 99).astype(dtype)
    assert np.array_equal(table[stored.view(f"u{stored.dtype.itemsize}")], rendering.apply(stored))
    steps = np.diff(rendering.apply(np.sort(stored)).astype(int))
    is_rising = (slope > 0) is not inverted
    assert np.all(steps >= 0) if is_rising else np.all(steps <= 0)


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=50), st.booleans())
def test_an_automatic_window_always_exists(values: list[float], inverted: bool) -> None:
    data = np.array([v for v in values if not abs(v) > 1e150], np.float64)
    chosen = auto_window(data, 0.5, 99.5)
    assert chosen.width > 0
    picture = Rendering(Modality(), chosen, inverted, None).apply(data)
    assert picture.dtype == np.uint8
