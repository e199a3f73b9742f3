"""`streams.retry`: when a failed task runs again."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from streams import limits
from streams.protocol import HandlerPolicy, utc
from streams.retry import Policy, clamp_ms, delay_ms, max_attempts

POLICY = Policy(max_attempts=5, backoff_base_s=1.0, backoff_factor=2.0, backoff_cap_s=10.0)
SEEDS = range(2000)


def test_the_task_goes_before_the_handler_before_the_default() -> None:
    assert max_attempts(None, None, POLICY) == 5
    assert max_attempts(None, HandlerPolicy(), POLICY) == 5
    assert max_attempts(None, HandlerPolicy(max_attempts=2), POLICY) == 2
    assert max_attempts(9, HandlerPolicy(max_attempts=2), POLICY) == 9


def test_backoff_doubles_up_to_its_cap() -> None:
    bounds = [1000, 2000, 4000, 8000, 10_000, 10_000]
    for attempt, bound in enumerate(bounds, 1):
        delays = [delay_ms(attempt, None, POLICY, seed) for seed in SEEDS]
        assert 0 <= min(delays) < bound * 0.02
        assert bound * 0.98 < max(delays) <= bound


def test_jitter_is_full_and_even() -> None:
    tenths = [0] * 10
    for seed in SEEDS:
        tenths[delay_ms(1, None, POLICY, seed) // 100] += 1
    assert min(tenths) > len(SEEDS) / 10 * 0.7


def test_neighbouring_tokens_draw_unlike_delays() -> None:
    """Groups that fail together come back spread out, although their tokens follow each other."""
    delays = [delay_ms(1, None, POLICY, seed) for seed in range(2**40, 2**40 + 50)]
    assert len(set(delays)) > 45
    assert any(a > b for a, b in pairwise(delays))


def test_one_token_draws_one_delay() -> None:
    assert delay_ms(2, None, POLICY, 77) == delay_ms(2, None, POLICY, 77)


def test_the_handler_declares_its_own_backoff() -> None:
    constant = HandlerPolicy(backoff_base_s=3.0, backoff_factor=1.0, backoff_cap_s=100.0)
    delays = [delay_ms(40, constant, POLICY, seed) for seed in SEEDS]
    assert 2900 < max(delays) <= 3000
    assert all(delay_ms(a, HandlerPolicy(backoff_base_s=0.0), POLICY, 5) == 0 for a in (1, 2, 1000))


@given(
    attempt=st.integers(1, 10_000),
    base=st.floats(-1e308, 1e308),
    factor=st.floats(0, 1e308),
    cap=st.floats(-1, 1e308),
    seed=st.integers(0, 2**53),
)
@settings(max_examples=300, deadline=None)
def test_no_declaration_makes_a_delay_that_the_system_cannot_write_down(
    attempt: int, base: float, factor: float, cap: float, seed: int
) -> None:
    handler = HandlerPolicy(backoff_base_s=base, backoff_factor=factor, backoff_cap_s=cap)
    delay = delay_ms(attempt, handler, POLICY, seed)
    assert 0 <= delay <= limits.DELAY_S_MAX * 1000
    utc(4_000_000_000_000 + delay)


def test_asked_delays_are_kept_within_the_limits() -> None:
    assert [clamp_ms(s) for s in (-1, 0, 0.0015, 2.5)] == [0, 0, 1, 2500]
    assert clamp_ms(1e300) == clamp_ms(float("inf")) == int(limits.DELAY_S_MAX * 1000)
