"""Faults of the demo service: a link, a replica and the primary database are hit, and taken back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fastvlm_ops.core.disaster_recovery.fault_entries import new_entry, read_entry
from fastvlm_ops.core.disaster_recovery.fault_types import DatabaseFault, Fault, LinkFault, ProcessFault
from fastvlm_ops.core.disaster_recovery.faults import is_left
from fastvlm_ops.core.disaster_recovery.holding import arm, inject, release
from fastvlm_ops.core.services.connecting import connect_control
from fastvlm_ops.core.services.control import ServiceControl
from fastvlm_ops.core.services.instances import ProcessIdentity
from fastvlm_ops.local.service.demo_service import DemoService

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceControl]:
    with DemoService(tmp_path_factory.mktemp("service"), die_with_parent=True) as service:
        yield connect_control(service.control_address)


def identity_of(control: ServiceControl, name: str) -> ProcessIdentity:
    identity = control.view().instance(name).identity
    assert isinstance(identity, ProcessIdentity)
    return identity


def injected(drills: Path, fault: Fault) -> Path:
    file = arm(drills, new_entry(fault_id="f1", run_key="drill/run", fault=fault, time_to_live_seconds=600))
    inject(file)
    return file


def test_a_link(control: ServiceControl, tmp_path: Path) -> None:
    fault = LinkFault(control=control.address, link="replica-1", disturbance="black_hole")
    file = injected(tmp_path, fault)
    assert control.view().disturbed == {"replica-1": "black_hole"}
    assert release(file).undone_by == "holder"
    assert control.view().disturbed == {}
    assert is_left(fault) is None


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_replica(control: ServiceControl, tmp_path: Path, how: str) -> None:
    identity = identity_of(control, "replica-1")
    fault = ProcessFault(how=how, control=control.address, instance="replica-1", identity=identity)
    file = injected(tmp_path, fault)
    assert identity.process.stopped is (how == "stop")
    assert identity.process.alive is (how == "stop")
    assert release(file).state == "undone"
    assert is_left(fault, read_entry(file).hit) is None
    assert (identity_of(control, "replica-1") == identity) is (how == "stop")


@pytest.mark.parametrize("promoted", [False, True], ids=["as primary", "as standby"])
def test_the_primary_database(control: ServiceControl, tmp_path: Path, promoted: bool) -> None:
    (primary,) = control.view().of_role("database_primary")
    (standby,) = control.view().of_role("database_standby")
    assert isinstance(primary.identity, ProcessIdentity)
    fault = DatabaseFault(control=control.address, instance=primary.name, identity=primary.identity)
    file = injected(tmp_path, fault)
    hit = read_entry(file).hit
    assert len(hit) > 3  # the server's processes, each of a session of its own
    assert not any(one.process.alive for one in hit)
    if promoted:
        control.promote(standby.name)
    assert release(file, 300).state == "undone"
    assert is_left(fault, hit) is None
    (now,) = control.view().of_role("database_primary")
    assert now.name == (standby.name if promoted else primary.name)
    (other,) = control.view().of_role("database_standby")
    assert other.name == (primary.name if promoted else standby.name)
    assert other.identity is not None
