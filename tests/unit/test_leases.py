"""Both sides of a lease together, the worker's `Lease` and the scheduler's `Watch`, with a broker that is away a while.

Times are milliseconds on one clock.  What is random: when the outage comes and how long it lasts, when both sides look,
how long reports take while the broker is there, and how long after an outage they are in the log.
"""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from consumers.leases import Lease
from streams import limits
from streams.settings import Settings
from streams.watch import Out, Watch

MS = 1_000_000
OUT, TOKEN = Out(0, b"g"), 7
SCHEDULER_TICK_MS = 50


@dataclass
class World:
    lease_s: float
    outage: range
    keeper_tick_ms: int
    scheduler_phase_ms: int
    report_ms: int  # from being sent to being acknowledged
    recovery_ms: int  # the same, from the end of the outage
    lag_ms: int  # from being in the log to being read
    log: list[int] = field(default_factory=list)  # when each report was in the log
    gave_up_ms: int | None = None
    ended_ms: int | None = None
    expired_ms: int | None = None

    def run(self) -> None:
        """One task that has started at 0, until its worker or its scheduler gives up, or the outage is long over."""
        settings = Settings(_env_file=None, lease_s=self.lease_s)  # type: ignore[call-arg]
        lease, watch = Lease(settings, 0), Watch(int(settings.silence_s * 1000))
        watch.running(OUT, TOKEN, self.lag_ms)
        on_its_way: tuple[int, int] | None = None  # sent at, in the log at
        read = 0
        answer: tuple[int, int] | None = None
        for now_ms in range(self.outage.stop + int(3 * settings.silence_s * 1000)):
            if on_its_way and on_its_way[1] <= now_ms:
                self.log.append(on_its_way[1])
                lease.extend(on_its_way[0] * MS)
                on_its_way = None
            if now_ms % self.keeper_tick_ms == 0:
                if not lease.may_start(now_ms * MS):
                    self.gave_up_ms = self.gave_up_ms or now_ms
                elif lease.renewal_due(now_ms * MS) and on_its_way is None:
                    on_its_way = now_ms, self._arrival(now_ms)
                if lease.is_out(now_ms * MS):
                    self.ended_ms = self.ended_ms or now_ms
            if now_ms % SCHEDULER_TICK_MS == self.scheduler_phase_ms and now_ms not in self.outage:
                while read < len(self.log) and self.log[read] + self.lag_ms <= now_ms:
                    read += 1
                    watch.running(OUT, TOKEN, now_ms)
                if answer is not None:
                    watch.end_found(0, *answer)
                    answer = None
                watch.tick(now_ms)
                if list(watch.read_up_to(0, read)):
                    self.expired_ms = now_ms
                    return
                if wanted := watch.ends_wanted():
                    answer = wanted[0], len(self.log)
            if self.gave_up_ms is not None and now_ms > self.gave_up_ms + 1000 * limits.LEASE_MARGIN_S:
                on_its_way = None  # it says nothing more

    def _arrival(self, sent_ms: int) -> int:
        arrival_ms = sent_ms + self.report_ms
        away = sent_ms in self.outage or arrival_ms in self.outage or sent_ms < self.outage.start < arrival_ms
        return self.outage.stop + self.recovery_ms if away else arrival_ms


def worlds(outage_ms_max: float) -> st.SearchStrategy[World]:
    """`outage_ms_max`: as a multiple of the lease."""
    acknowledged_ms = int(limits.ACKNOWLEDGED_S * 1000)

    def outage(lease_s: float) -> st.SearchStrategy[World]:
        lasts = st.integers(0, int(lease_s * 1000 * outage_ms_max))
        return st.builds(
            World, st.just(lease_s),
            st.tuples(st.integers(0, 5_000), lasts).map(lambda at: range(at[0], sum(at))),
            keeper_tick_ms=st.integers(10, int(limits.KEEPER_TICK_S * 1000)),
            scheduler_phase_ms=st.integers(0, SCHEDULER_TICK_MS - 1),
            report_ms=st.integers(1, acknowledged_ms), recovery_ms=st.integers(0, acknowledged_ms),
            lag_ms=st.integers(0, 300),
        )  # fmt: skip

    return st.sampled_from([1.0, 3.0, 5.0]).flatmap(outage)


@given(worlds(outage_ms_max=1))
def test_an_outage_no_longer_than_a_lease_costs_nothing(world: World) -> None:
    world.run()
    assert (world.gave_up_ms, world.expired_ms) == (None, None)


@given(worlds(outage_ms_max=4))
def test_whoever_is_taken_for_lost_has_ended_by_himself(world: World) -> None:
    world.run()
    if world.expired_ms is not None:
        assert world.ended_ms is not None and world.ended_ms <= world.expired_ms


def test_an_outage_much_longer_than_a_lease_is_noticed() -> None:
    """Else the test above would say nothing."""
    world = World(3.0, range(1_000, 9_000), 100, 0, 5, 100, 10)
    world.run()
    assert world.gave_up_ms is not None and world.expired_ms is not None
