"""What a bootstrap would do, from facts and goods alone, and how it is carried out by a recorded remote."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace

import pytest

from calibration.errors import InputError
from deploy.bootstrap import Facts, Goods, apply, plan, read_facts

FACTS = Facts(0, "x86_64", (3, 11), True, 252, 9000, "")
GOODS = Goods({"lineguard-0.1.0-py3-none-any.whl": b"w"}, {"appliance.service": b"u"}, push_key="ssh-ed25519 AAAA me")


class Recorded:
    """Keeps what it was told to run, and fails at a script that holds `bad`."""

    def __init__(self, answer: str = "", bad: str = "\0") -> None:
        self.scripts: list[tuple[str, bytes]] = []
        self._answer, self._bad = answer, bad

    def run(self, script: str, data: bytes = b"") -> str:
        """As Remote."""
        if self._bad in script:
            raise InputError("the device ended with 1: no")
        self.scripts.append((script, data))
        return self._answer

    def close(self) -> None:
        """As Remote."""


def test_facts_are_read_and_noise_is_a_clear_error() -> None:
    """Seven lines, or nothing is done."""
    assert read_facts(Recorded("0\nx86_64\n3.11\nyes\n252\n9000\nnone\n")) == FACTS
    with pytest.raises(InputError, match="no facts"):
        read_facts(Recorded("bash: not found\n"))


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        (replace(FACTS, uid=1000), "as root"),
        (replace(FACTS, python=(3, 9)), "Python 3.10"),
        (replace(FACTS, venv=False), "python3-venv"),
        (replace(FACTS, systemd=0), "not at all"),
        (replace(FACTS, free_mib=10), "10 MiB free"),
    ],
)
def test_what_a_device_lacks_is_named_before_anything_changes(facts: Facts, told: str) -> None:
    """With its remedy."""
    with pytest.raises(InputError, match=told):
        plan(facts, GOODS)


def test_a_wheel_of_another_machine_is_refused() -> None:
    """By its name."""
    goods = replace(GOODS, wheels={**GOODS.wheels, "numpy-2-cp311-cp311-manylinux_2_28_aarch64.whl": b""})
    with pytest.raises(InputError, match="numpy-2"):
        plan(FACTS, goods)


def test_a_plan_is_carried_out_in_order_and_names_the_step_that_failed() -> None:
    """The archive goes with the first step; the link is swapped after the release was tried."""
    steps, remote = plan(FACTS, GOODS), Recorded()
    apply(remote, steps, GOODS, lambda _done, _all: None)
    with tarfile.open(fileobj=io.BytesIO(remote.scripts[0][1])) as tar:
        names = tar.getnames()
    assert names == ["units/appliance.service", "wheels/lineguard-0.1.0-py3-none-any.whl"]
    swap = next(script for script, _ in remote.scripts if "mv -T" in script)
    assert swap.index("run --help") < swap.index("mv -T")
    assert any("restrict ssh-ed25519 AAAA me" in script for script, _ in remote.scripts)
    with pytest.raises(InputError, match=r"let .* point to it: the device ended with 1"):
        apply(Recorded(bad="mv -T"), steps, GOODS, lambda _done, _all: None)


def test_a_release_that_is_there_is_not_sent_again() -> None:
    """Only the units and what belongs to them."""
    again = plan(replace(FACTS, linked=GOODS.release, free_mib=1), GOODS)
    assert "is there already" in again[0].title
    assert len(again) < len(plan(FACTS, GOODS))
