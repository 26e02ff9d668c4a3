"""The slot state machine, by examples and by every path hypothesis finds."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from deploy.slots import TRIES, IllegalTransition, NoEarlierBundle, Slot, SlotError, Slots, SlotState


def sha(name: str) -> str:
    """The hash of a made-up bundle."""
    return hashlib.sha256(name.encode()).hexdigest()


def staged(slots: Slots, name: str) -> Slots:
    """`name` staged."""
    return slots.stage(sha(name), name, len(name))


def confirmed(slots: Slots, name: str) -> Slots:
    """`name` staged, tried and confirmed."""
    return staged(slots, name).activate().confirm(sha(name))


def test_the_first_bundle_judges_on_trial_and_then_confirmed() -> None:
    """empty -> staged -> trial -> confirmed in slot a; only from the trial on is it active."""
    slots = staged(Slots(), "one")
    assert (slots.a.state, slots.active) == (SlotState.STAGED, None)
    slots = slots.activate()
    assert (slots.a.state, slots.active, slots.last_confirmed) == (SlotState.TRIAL, "a", None)
    slots = slots.confirm(sha("one"))
    assert (slots.a.state, slots.active, slots.last_confirmed) == (SlotState.CONFIRMED, "a", "a")


def test_bundles_alternate_between_the_slots() -> None:
    """Every new bundle goes into the slot that does not judge."""
    slots = Slots()
    for i in range(6):
        slots = confirmed(slots, str(i))
        assert slots.active == "ab"[i % 2]


def test_a_rejected_trial_falls_back_to_the_last_confirmed() -> None:
    """The reason stays on record."""
    slots = staged(confirmed(Slots(), "one"), "two").activate().reject(sha("two"), "goldens failed")
    assert slots.active == "a"
    assert slots.b == Slot(SlotState.REJECTED, sha("two"), "two", 3, "goldens failed")


def test_a_rejected_first_trial_leaves_nothing_that_judges() -> None:
    """A rejected bundle never judges, not even as the only one; a push gets the device going again."""
    slots = staged(Slots(), "one").activate().reject(sha("one"), "goldens failed")
    assert slots.active is None
    assert slots.active_slot is None
    assert slots.last_confirmed is None
    assert confirmed(slots, "two").active == "b"


def test_a_staged_bundle_can_be_rejected_without_a_trial() -> None:
    """The active one is untouched."""
    slots = staged(confirmed(Slots(), "one"), "two").reject(sha("two"), "too slow")
    assert (slots.active, slots.b.state) == ("a", SlotState.REJECTED)


def test_rollback_returns_to_the_bundle_before_and_only_once() -> None:
    """With two slots there is one earlier bundle; a second rollback says so and changes nothing."""
    slots = confirmed(confirmed(Slots(), "one"), "two").rollback("operator")
    assert (slots.active, slots.a.state, slots.b.reason) == ("a", SlotState.CONFIRMED, "operator")
    with pytest.raises(NoEarlierBundle, match="no earlier confirmed bundle"):
        slots.rollback("again")


def test_rollback_out_of_a_trial() -> None:
    """A trial is left the same way."""
    slots = staged(confirmed(Slots(), "one"), "two").activate().rollback("operator")
    assert (slots.active, slots.b.state) == ("a", SlotState.REJECTED)


@pytest.mark.parametrize("slots", [Slots(), staged(Slots(), "one"), staged(Slots(), "one").activate()])
def test_rollback_without_an_earlier_bundle_is_an_error(slots: Slots) -> None:
    """Nothing, staged only, first trial."""
    with pytest.raises(NoEarlierBundle):
        slots.rollback("operator")


def test_a_running_trial_is_never_overwritten() -> None:
    """Neither the trial nor its fallback may be the target of a push."""
    slots = staged(confirmed(Slots(), "one"), "two").activate()
    with pytest.raises(IllegalTransition, match="on trial"):
        staged(slots, "three")


def test_a_first_trial_that_nobody_confirmed_is_superseded() -> None:
    """Otherwise a device whose first bundle is bad and whose appliance is off could not be pushed to."""
    slots = staged(staged(Slots(), "one").activate(), "two")
    assert (slots.active, slots.b.state) == ("a", SlotState.STAGED)
    slots = slots.activate()
    assert slots.active == "b"
    assert slots.a.reason == "superseded before it was confirmed"


def test_staging_again_replaces_what_was_staged() -> None:
    """At most one bundle waits."""
    slots = staged(staged(Slots(), "one"), "two")
    assert (slots.a.name, slots.b.state) == ("two", SlotState.EMPTY)


def test_a_rejected_bundle_staged_again_keeps_its_slot() -> None:
    """One bundle never lies in both slots, and what was staged beside it is forgotten."""
    slots = staged(staged(Slots(), "one").reject(sha("one"), "why"), "two")
    assert (slots.a.name, slots.b.name) == ("one", "two")
    again = staged(slots, "one")
    assert (again.a.state, again.b.state) == (SlotState.STAGED, SlotState.EMPTY)


@pytest.mark.parametrize("name", ["one", "two"])
def test_what_judges_or_is_the_fallback_cannot_be_staged(name: str) -> None:
    """Active and last confirmed hold their bundle already."""
    slots = staged(confirmed(Slots(), "one"), "two").activate()
    with pytest.raises(IllegalTransition, match="already"):
        staged(slots, name)


def test_steps_from_the_wrong_state_are_refused() -> None:
    """Each names what is wrong."""
    with pytest.raises(IllegalTransition, match="no bundle is staged"):
        Slots().activate()
    with pytest.raises(IllegalTransition, match="not on trial"):
        staged(Slots(), "one").confirm(sha("one"))
    with pytest.raises(IllegalTransition, match="not on trial"):
        staged(Slots(), "one").activate().confirm(sha("two"))
    for act in (Slots.attempt, Slots.pause):
        with pytest.raises(IllegalTransition, match="not on trial"):
            act(confirmed(Slots(), "one"), sha("one"))
    with pytest.raises(IllegalTransition, match="neither staged nor on trial"):
        confirmed(Slots(), "one").reject(sha("one"), "why")
    with pytest.raises(IllegalTransition, match="neither staged nor on trial"):
        Slots().reject("", "why")


def test_a_bundle_that_kills_the_appliance_is_not_tried_for_ever() -> None:
    """The loop-breaker: after so many attempts without an end the last confirmed bundle judges again."""
    slots = staged(confirmed(Slots(), "one"), "two").activate()
    for attempt in range(TRIES):
        slots = slots.attempt(sha("two"))
        assert (slots.active, slots.b.attempts) == ("b", attempt + 1)
    slots = slots.attempt(sha("two"))
    assert (slots.active, slots.b.state) == ("a", SlotState.REJECTED)
    assert "died 3 times" in slots.b.reason
    assert staged(slots, "two").activate().b.attempts == 0


def test_a_trial_that_was_stopped_in_good_order_counts_nothing() -> None:
    """An engineer may restart the appliance as often as they like."""
    slots = staged(confirmed(Slots(), "one"), "two").activate()
    for _ in range(2 * TRIES):
        slots = slots.attempt(sha("two")).pause(sha("two"))
    assert slots.b.state is SlotState.TRIAL
    assert slots.attempt(sha("two")).confirm(sha("two")).b == Slot(SlotState.CONFIRMED, sha("two"), "two", 3)


def test_an_empty_reason_is_said_to_be_empty() -> None:
    """A rejected slot always says why."""
    assert staged(Slots(), "one").reject(sha("one"), "  ").a.reason == "no reason given"


@pytest.mark.parametrize(
    ("a", "b", "active"),
    [
        (Slot(SlotState.STAGED, sha("1")), Slot(), "a"),
        (Slot(SlotState.TRIAL, sha("1")), Slot(), None),
        (Slot(SlotState.CONFIRMED, sha("1")), Slot(), None),
        (Slot(SlotState.CONFIRMED, sha("1")), Slot(SlotState.TRIAL, sha("2")), "a"),
        (Slot(SlotState.STAGED, sha("1")), Slot(SlotState.STAGED, sha("2")), None),
        (Slot(SlotState.CONFIRMED, sha("1")), Slot(SlotState.STAGED, sha("1")), "a"),
        (Slot(), Slot(), "b"),
    ],
)
def test_a_contradiction_cannot_be_made(a: Slot, b: Slot, active: str | None) -> None:
    """Whatever a damaged record says, no such value comes to be."""
    with pytest.raises(ValueError):
        Slots(a, b, active)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("state", "digest", "reason", "size"),
    [
        (SlotState.EMPTY, sha("1"), "", 0),
        (SlotState.STAGED, "", "", 0),
        (SlotState.STAGED, "XYZ", "", 0),
        (SlotState.REJECTED, sha("1"), "", 0),
        (SlotState.STAGED, sha("1"), "why", 0),
        (SlotState.STAGED, sha("1"), "", -1),
    ],
)
def test_a_slot_that_contradicts_itself_cannot_be_made(state: SlotState, digest: str, reason: str, size: int) -> None:
    """Hash, reason and size belong to the state."""
    with pytest.raises(ValueError):
        Slot(state, digest, "", size, reason)


class Walk(RuleBasedStateMachine):
    """Any steps in any order, legal or not, against a plain model: the list of confirmed bundles."""

    def __init__(self) -> None:
        super().__init__()
        self.slots = Slots()
        self.ever_confirmed: set[str] = set()
        self.first_confirmed = False

    def attempt(self, after: Slots | None) -> None:
        """Take the step; what must stay is checked against the state before."""
        if after is None:
            return
        before, self.slots = self.slots, after
        keep = before.last_confirmed
        if keep is not None:
            assert after[keep].sha256 == before[keep].sha256
        if before.active is not None:
            assert after[before.active].sha256 == before[before.active].sha256

    @rule(name=st.sampled_from("stuvwxyz"))
    def stage(self, name: str) -> None:
        """Push one of eight bundles."""
        before = self.slots
        try:
            after = staged(before, name)
        except SlotError:
            assert before.find(sha(name)) is not None or before.last_confirmed != before.active
            return
        assert after.active == before.active
        assert before.target(sha(name)) not in (before.active, before.last_confirmed)
        if before.find(sha(name)) is None:
            assert before.cleared(sha(name)).active == before.active
        self.attempt(after)

    @rule()
    def activate(self) -> None:
        """Try what is staged."""
        waiting = SlotState.STAGED in (self.slots.a.state, self.slots.b.state)
        try:
            self.attempt(self.slots.activate())
        except IllegalTransition:
            assert not waiting
        else:
            assert self.slots.active_slot is not None
            assert self.slots.active_slot.state is SlotState.TRIAL

    @rule(slot=st.sampled_from("ab"))
    def confirm(self, slot: str) -> None:
        """The appliance accepts the bundle of a slot."""
        digest = self.slots[slot].sha256  # type: ignore[index]
        try:
            self.attempt(self.slots.confirm(digest))
        except IllegalTransition:
            return
        self.ever_confirmed.add(digest)
        self.first_confirmed = True

    @rule(slot=st.sampled_from("ab"), pause=st.booleans())
    def begin(self, slot: str, pause: bool) -> None:
        """The appliance begins a trial, and is stopped in it or dies."""
        before = self.slots
        digest = before[slot].sha256  # type: ignore[index]
        try:
            self.attempt(before.pause(digest) if pause else before.attempt(digest))
        except IllegalTransition:
            assert (
                before.active_slot is None or before.active_slot.state is not SlotState.TRIAL or before.active != slot
            )
            return
        assert self.slots[slot].attempts <= TRIES  # type: ignore[index]
        if not pause and before[slot].attempts == TRIES:  # type: ignore[index]
            assert self.slots.active == before.last_confirmed

    @rule(slot=st.sampled_from("ab"))
    def reject(self, slot: str) -> None:
        """The appliance refuses the bundle of a slot."""
        before = self.slots
        digest = before[slot].sha256  # type: ignore[index]
        try:
            self.attempt(before.reject(digest, "bad"))
        except IllegalTransition:
            return
        if before.last_confirmed is not None:
            assert self.slots.active == before.last_confirmed

    @rule()
    def rollback(self) -> None:
        """The operator goes back."""
        before = self.slots
        try:
            self.attempt(before.rollback("operator"))
        except NoEarlierBundle:
            return
        now = self.slots.active_slot
        assert now is not None
        assert now.state is SlotState.CONFIRMED
        assert now.sha256 in self.ever_confirmed
        assert self.slots.active != before.active

    @invariant()
    def one_bundle_judges(self) -> None:
        """Exactly one active bundle from the first confirmed one on, and always one to fall back to."""
        if self.first_confirmed:
            assert self.slots.active is not None
            assert self.slots.last_confirmed is not None
            assert self.slots[self.slots.last_confirmed].sha256 in self.ever_confirmed


Walk.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestWalk = Walk.TestCase
