"""Faults of the PLC and of the way to it: whatever happens, the relay lets nothing pass that was not told in time."""

from __future__ import annotations

import time

from tests.faults.conftest import DEADLINE_MS, Asked
from tests.faults.simulator.plc import GATE_NS, PlcOrder


def test_a_connection_that_breaks_costs_its_parts_and_no_more(asked: Asked) -> None:
    """Fault 34: the PASS under way is never repeated; under a new epoch parts pass again."""
    epoch = asked.line.plc.relay.epoch
    asked.line.plc.order(PlcOrder.DROP)
    asked.wait(lambda: asked.line.plc.relay.epoch > epoch, "new epoch")
    asked.line.passes(5)


def test_a_pass_that_arrives_twice_lets_one_part_pass(asked: Asked) -> None:
    """Fault 35: the relay refuses the second."""
    before = asked.line.plc.relay.repeated
    asked.line.plc.order(PlcOrder.REPEAT)
    asked.wait(lambda: asked.line.plc.relay.repeated > before, "repeated PASS")
    assert asked.line.plc.relay.twice == 0


def test_a_stopped_appliance_passes_nothing_late(asked: Asked) -> None:
    """Fault 37: all processes stand still for longer than a deadline; what was under way is rejected."""
    asked.line.pause(1.2 * DEADLINE_MS / 1000)
    resumed_ns, before = time.monotonic_ns(), len(asked.line.plc.accepted())
    asked.line.passes(5)
    for passed in asked.line.plc.accepted()[before:]:
        assert passed.at_ns < asked.line.world.event(passed.tag).at_ns + int(DEADLINE_MS * 1e6), resumed_ns


def test_a_killed_supervisor_is_safe_within_a_deadline(asked: Asked) -> None:
    """Fault 31: no PASS after the kill, the relay lets go; the next start rejects what nobody judged."""
    relay = asked.line.plc.relay
    asked.line.kill()
    killed_ns, accepted = time.monotonic_ns(), len(asked.line.plc.accepted())
    while relay.energised(time.monotonic_ns()):
        assert time.monotonic_ns() < killed_ns + int(DEADLINE_MS * 1e6) + GATE_NS
        time.sleep(0.01)
    asked.line.unseen(5)
    assert len(asked.line.plc.accepted()) == accepted
    asked.line.start()
    asked.line.passes(5)


def test_a_plc_that_hangs_is_a_fault(asked: Asked) -> None:
    """Fault 32: no PASS counts that was not confirmed, and the line stops until somebody has looked."""
    asked.line.plc.order(PlcOrder.HANG)
    asked.until_rows("SELECT 1 FROM audit WHERE action = 'state FAULT'")
    accepted, parts = len(asked.line.plc.accepted()), asked.line.world.parts
    asked.wait(lambda: asked.line.world.parts >= parts + 40, "parts")
    assert len(asked.line.plc.accepted()) <= accepted + 1  # the one that hung may have been taken, in time
