"""A machine's disks in a fresh appliance of their own.

Preflight decides how each disk is opened. The appliance is a clone of the host's template, or
boots where there can be none, and gets the disks before anything of them is looked at.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager

from fleetscan.appliance import accelerator, built, template
from fleetscan.appliance.built import Appliance
from fleetscan.appliance.confinement import layers
from fleetscan.appliance.ground.deadline import Deadline
from fleetscan.appliance.ground.errors import (
    ApplianceError,
    FleetscanError,
    LockedError,
    PreflightError,
)
from fleetscan.appliance.ground.schema import MICROSECOND
from fleetscan.appliance.initrd import agent_id
from fleetscan.appliance.qemu_args import VMOptions
from fleetscan.appliance.session import SessionLimits
from fleetscan.appliance.vm import ApplianceVM
from fleetscan.scanner import preflight
from fleetscan.scanner.attempt import Attempt
from fleetscan.scanner.options import ApplianceOptions
from fleetscan.scanner.preflight.opening import open_disk
from fleetscan.scanner.tables.machines.spec import Stage

log = logging.getLogger(__name__)

_ENTROPY_BYTES = 64

# What takes longer than this to get a template made it just now, or waited for who did.
_MADE_SECONDS = 1.0

# LUKS2 derives keys in up to 1 GiB of memory unless told otherwise (cryptsetup-luksFormat(8)).
_UNLOCKING_MIB = 1536


def appliance_address(appliance: Appliance) -> str:
    """Content address of an appliance with this version's agent in it."""
    return f"{appliance.content}-{agent_id()}"


def require_start(asked: ApplianceOptions, *, keys: bool) -> None:
    """Make sure that an appliance starts on this host, before any machine depends on it.

    The template that the machines will be cloned from is made, unless it is there. Where there can
    be none, or none is wanted, an appliance is booted once.

    Args:
        asked: how machines get their appliances.
        keys: whether machines may have encrypted disks, as these need more memory.

    Raises:
        ApplianceError: it does not start, or there is no appliance.
    """
    appliance = built.find()
    chosen = accelerator.choose(appliance)
    options = VMOptions(chosen, _memory_mib(asked, keys=keys))
    if asked.template:
        try:
            template.prepare(appliance, options)
        except ApplianceError as error:
            log.warning("no template can be made: %s", error)
        else:
            return
    deadline = Deadline(accelerator.BOOT_SECONDS[chosen], "the appliance's start")
    with ApplianceVM(appliance, options, deadline, SessionLimits()):
        pass


def _memory_mib(asked: ApplianceOptions, *, keys: bool) -> int:
    return max(asked.memory_mib, _UNLOCKING_MIB if keys else 0)


@contextlib.contextmanager
def isolated(attempt: Attempt) -> Iterator[ApplianceVM]:
    """An appliance with those of the machine's disks that can be opened.

    Raises:
        LockedError, PreflightError: none can be.
        ApplianceError: there is no appliance, or it does not start.
        DeadlineError: it takes too long.
    """
    found = attempt.found
    with found.at(Stage.PREFLIGHT):
        layers.require(attempt.options.appliance.confinement)
        found.confinement = layers.names(layers.current())
        _examine_disks(attempt)
    with contextlib.ExitStack() as stack:
        with found.at(Stage.APPLIANCE):
            vm = stack.enter_context(_appliance(attempt))
            _personalize(vm, attempt)
            _plug_disks(vm, attempt)
        yield vm


def _examine_disks(attempt: Attempt) -> None:
    """Decide how each disk is opened; the scan continues with those that can be.

    Raises:
        PreflightError: none can be.
        DeadlineError: it takes too long.
    """
    sources, found = attempt.options.sources, attempt.found
    policy = preflight.DiskPolicy(
        allowed_directories=sources.allowed_directories, live=sources.live
    )
    failure = None
    for disk in attempt.machine.disks:
        attempt.deadline.left()  # a machine of very many disks ends in time, too
        try:
            plan = preflight.examine(disk, policy)
        except FleetscanError as error:
            failure = failure or error
            found.add_disk(disk, error=error)
        else:
            found.add_disk(disk, plan)
    if failure is not None:
        found.warnings.append(failure.told)
        if not found.plans:
            raise failure


def _appliance(attempt: Attempt) -> AbstractContextManager[ApplianceVM]:
    """A clone of the host's template, or an appliance that boots where there can be none."""
    appliance = built.find()
    chosen = accelerator.choose(appliance)
    attempt.found.ran_by = chosen
    attempt.found.appliance = appliance_address(appliance)
    memory_mib = _memory_mib(attempt.options.appliance, keys=bool(attempt.key_sources))
    options = VMOptions(chosen, memory_mib)
    prepared = (
        _template(attempt, appliance, options) if attempt.options.appliance.template else None
    )
    deadline = attempt.deadline.within(accelerator.BOOT_SECONDS[chosen], "the appliance's start")
    if prepared is None:
        return ApplianceVM(appliance, options, deadline, attempt.limits)
    return template.clone(appliance, prepared, options, deadline, attempt.limits)


def _template(
    attempt: Attempt, appliance: Appliance, options: VMOptions
) -> template.Template | None:
    """The host's template; None where there can be none."""
    begun = time.monotonic()
    try:
        return template.prepare(appliance, options)
    except ApplianceError as error:
        log.warning("booting the appliance anew for each machine: no template: %s", error)
        return None
    finally:
        if time.monotonic() - begun > _MADE_SECONDS:
            attempt.restart_clock()


def _personalize(vm: ApplianceVM, attempt: Attempt) -> None:
    entropy = os.urandom(_ENTROPY_BYTES).hex()
    now = int(time.time() * MICROSECOND)
    vm.call("personalize", attempt.deadline, entropy=entropy, time_us=now)


def _plug_disks(vm: ApplianceVM, attempt: Attempt) -> None:
    """Give the appliance its disks; the scan continues with those that can be opened.

    Raises:
        LockedError, PreflightError: none can be.
    """
    for index, plan in list(attempt.found.plans.items()):
        try:
            _plug(vm, attempt, index, plan)
        except (LockedError, PreflightError) as error:
            attempt.found.close_disk(index, error)
            if not attempt.found.plans:
                raise


def _plug(vm: ApplianceVM, attempt: Attempt, index: int, plan: preflight.DiskPlan) -> None:
    with contextlib.ExitStack() as stack:
        keys = attempt.keys if plan.encrypted else ()
        chain = open_disk(plan, stack, live=attempt.options.sources.live, keys=keys)
        vm.plug(index, chain, attempt.deadline, sector_size=plan.sector_size)
