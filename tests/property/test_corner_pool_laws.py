"""Laws of corner pooling, for every implementation on every device that is available.

HYPOTHESIS_PROFILE sets the number of examples: default, ci or thorough (tests/conftest.py).
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, note, settings
from hypothesis import strategies as st
from torch import Tensor

from cornernet import kernels
from cornernet.kernels import reference
from cornernet.kernels.contract import AXIS_AND_REVERSED, DIRECTIONS_OF
from tests.strategies import Case, cases, integer_gradient, laid_out, partner
from tests.targets import Target, targets

DIRECTIONS = tuple(AXIS_AND_REVERSED)
CORNERS = tuple(DIRECTIONS_OF)
MIRRORED = {"top": "bottom", "bottom": "top", "left": "right", "right": "left"}
TURNED = {"top": "left", "left": "top", "bottom": "right", "right": "bottom"}

every_target = pytest.mark.parametrize("target", targets("reference"))
every_exact_target = pytest.mark.parametrize("target", targets("reference", "cummax"))

seeds = st.integers(0, 9999)
directions = st.sampled_from(DIRECTIONS)
corners = st.sampled_from(CORNERS)


def draw_case(data: st.DataObject, target: Target, numbers_only: bool = False) -> Case:
    largest = 600 if target.is_interpreted else 6000
    return data.draw(cases(target.dtypes, target.device, largest, numbers_only), label="x")


def examples(test):
    """Draw the profile's number of examples; a quarter for the interpreter, which is much slower."""

    def run(target: Target) -> None:
        def body(data: st.DataObject) -> None:
            test(data, target)

        body.__name__ = body.__qualname__ = f"{test.__name__}_{target.name}"  # the key of its stored examples
        count = settings.default.max_examples
        settings(max_examples=max(3, count // 4) if target.is_interpreted else count)(given(data=st.data())(body))()

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


def same(actual: Tensor, expected: Tensor) -> None:
    """Assert equal values, with NaN in the same places; the sign of zero is unspecified."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)


def has_expected_layout(result: Tensor, x: Tensor) -> None:
    channels_last = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert result.is_contiguous(memory_format=layout), (result.stride(), x.stride())


def pool(x: Tensor, direction: str, target: Target) -> Tensor:
    return kernels.directional_max_pool(x, direction, impl=target.name)


def pool_gradient(x: Tensor, direction: str, grad: Tensor, impl: str) -> Tensor:
    x = x.detach().requires_grad_()
    result = kernels.directional_max_pool(x, direction, impl=impl)
    return torch.autograd.grad(result, x, grad)[0]


@every_target
@examples
def test_a_pool_equals_the_reference(data, target):
    case, direction = draw_case(data, target), data.draw(directions)
    result = pool(case.x, direction, target)
    same(result, reference.directional_max_pool(case.x, direction))
    assert result.dtype == case.x.dtype
    has_expected_layout(result, case.x)


@every_target
@examples
def test_a_corner_equals_the_sum_of_the_reference_pools_rounded_once(data, target):
    case, corner = draw_case(data, target), data.draw(corners)
    other = partner(case, data.draw(seeds))
    if data.draw(st.booleans(), label="layouts differ"):
        other = laid_out(other.contiguous(), "channels_last" if case.layout == "contiguous" else "contiguous")
    down, across = DIRECTIONS_OF[corner]
    expected = reference.directional_max_pool(case.x, down) + reference.directional_max_pool(other, across)
    result = kernels.corner_pool(case.x, other, corner, impl=target.name)
    same(result, expected)
    has_expected_layout(result, case.x)


@every_exact_target
@examples
def test_the_gradient_of_a_pool_equals_the_reference(data, target):
    case, direction = draw_case(data, target), data.draw(directions)
    grad = laid_out(integer_gradient(case.x, data.draw(seeds)), data.draw(st.sampled_from(["contiguous", "offset"])))
    expected = pool_gradient(case.x, direction, grad, "reference")
    same(pool_gradient(case.x, direction, grad, target.name), expected)


@every_exact_target
@examples
def test_the_gradients_of_a_corner_equal_the_reference(data, target):
    case, corner = draw_case(data, target), data.draw(corners)
    vertical = case.x.detach().requires_grad_()
    horizontal = partner(case, data.draw(seeds)).detach().requires_grad_()
    grad = integer_gradient(case.x, data.draw(seeds))
    grads = {}
    for impl in (target.name, "reference"):
        result = kernels.corner_pool(vertical, horizontal, corner, impl=impl)
        grads[impl] = torch.autograd.grad(result, (vertical, horizontal), grad)
    same(grads[target.name][0], grads["reference"][0])
    same(grads[target.name][1], grads["reference"][1])


@every_target
@examples
def test_pooling_twice_is_pooling_once(data, target):
    case, direction = draw_case(data, target), data.draw(directions)
    once = pool(case.x, direction, target)
    same(pool(once, direction, target), once)


@every_target
@examples
def test_the_result_never_falls_along_the_scan(data, target):
    case, direction = draw_case(data, target), data.draw(directions)
    axis, reverse = AXIS_AND_REVERSED[direction]
    result = pool(case.x, direction, target).double()
    result = result.flip(axis) if reverse else result
    for i in range(1, result.shape[axis]):
        earlier, later = result.select(axis, i - 1), result.select(axis, i)
        assert ((later >= earlier) | later.isnan()).all()
    assert (result.isnan() | (result >= (case.x.flip(axis) if reverse else case.x).double())).all()


@every_target
@examples
def test_flips_and_transposes_exchange_directions(data, target):
    case, direction = draw_case(data, target), data.draw(directions)
    axis, _ = AXIS_AND_REVERSED[direction]
    result = pool(case.x, direction, target)
    same(pool(case.x.flip(axis), MIRRORED[direction], target).flip(axis), result)
    same(pool(case.x.transpose(2, 3), TURNED[direction], target).transpose(2, 3), result)


@every_target
@examples
def test_the_pool_of_a_maximum_is_the_maximum_of_the_pools(data, target):
    case, direction = draw_case(data, target), data.draw(directions)
    other = partner(case, data.draw(seeds))
    together = pool(torch.maximum(case.x, other), direction, target)
    same(together, torch.maximum(pool(case.x, direction, target), pool(other, direction, target)))


@every_target
@examples
def test_a_line_split_anywhere_combines_to_the_same(data, target):
    case, direction = draw_case(data, target), data.draw(directions)
    axis, reverse = AXIS_AND_REVERSED[direction]
    size = case.x.shape[axis]
    cut = data.draw(st.integers(0, size), label="cut")
    parts = [case.x.narrow(axis, 0, cut), case.x.narrow(axis, cut, size - cut)]
    pooled = [pool(part, direction, target) for part in parts]
    first, second = (1, 0) if reverse else (0, 1)
    if 0 < cut < size:
        carried = pooled[first].narrow(axis, 0 if reverse else cut - 1, 1)
        pooled[second] = torch.maximum(pooled[second], carried)
    same(torch.cat(pooled, axis), pool(case.x, direction, target))


@every_target
@examples
def test_the_gradient_is_conserved_along_each_line(data, target):
    case, direction = draw_case(data, target), data.draw(directions)
    axis, _ = AXIS_AND_REVERSED[direction]
    # ones: each line's sum is its length, at most 257, which every dtype can represent
    grad = torch.ones_like(case.x)
    grad_x = pool_gradient(case.x, direction, grad, target.name)
    note(f"gradient {grad_x}")
    rounding = 1 if case.x.dtype == torch.bfloat16 else 0
    difference = grad_x.double().sum(axis) - grad.double().sum(axis)
    assert difference.abs().le(rounding * case.x.shape[axis] / 128).all()


@every_exact_target
@examples
def test_only_the_first_maximum_in_the_scan_gets_a_gradient(data, target):
    case, direction = draw_case(data, target, numbers_only=True), data.draw(directions)
    axis, reverse = AXIS_AND_REVERSED[direction]
    grad_x = pool_gradient(case.x, direction, torch.ones_like(case.x), target.name)
    x, received = (case.x.flip(axis), grad_x.flip(axis)) if reverse else (case.x, grad_x)
    for i in range(x.shape[axis]):
        before, here = x.narrow(axis, 0, i), x.select(axis, i)
        is_record = (here.unsqueeze(axis) > before).all(
            axis
        )  # greater than all before, which is true at the first position
        assert torch.equal(received.select(axis, i) != 0, is_record)


@every_exact_target
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("corner", CORNERS)
def test_first_and_second_derivatives_agree_with_finite_differences(target, layout, corner):
    shape = (1, 1, 3, 4) if target.is_interpreted else (1, 2, 4, 17)
    # distinct and far apart, so that no finite difference changes a maximum
    values = torch.randperm(2 * torch.Size(shape).numel(), generator=torch.Generator().manual_seed(3)).double()
    vertical, horizontal = (
        laid_out(part.view(shape), layout).to(target.device).requires_grad_() for part in values.chunk(2)
    )

    def function(v: Tensor, h: Tensor) -> Tensor:
        return kernels.corner_pool(v, h, corner, impl=target.name)

    fast = target.is_interpreted  # random projections of the Jacobian instead of the whole
    assert torch.autograd.gradcheck(function, (vertical, horizontal), fast_mode=fast)
    assert torch.autograd.gradgradcheck(function, (vertical, horizontal), fast_mode=fast)
