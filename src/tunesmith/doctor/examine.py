"""Look at everything, what is quick first."""

from __future__ import annotations

from collections.abc import Iterator

from tunesmith.doctor.findings import Ability, Finding
from tunesmith.doctor.machine import look_at_machine
from tunesmith.doctor.packages import look_at_packages
from tunesmith.doctor.senses import look_at_senses


def examine() -> Iterator[Finding | Ability]:
    """Yield what is found as it is found; torch is imported after machine and packages."""
    machine = list(look_at_machine())
    yield from machine
    packages = list(look_at_packages())
    yield from packages
    yield from look_at_senses()
    from tunesmith.doctor.devices import look_at_devices

    devices = list(look_at_devices())
    yield from devices
    if any(found.state == "broken" for found in (*machine, *packages, *devices)):
        return  # what follows would only say so in other words
    from tunesmith.doctor.abilities import try_abilities
    from tunesmith.doctor.starter import try_starter

    yield try_starter()
    yield from try_abilities()
