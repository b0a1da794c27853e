"""A Ray that is started here is kept to the loopback; seen with a Ray that does nothing, so that none is needed."""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import Any

import pytest

from cornernet.ablations.running.ray_executor import on_ray
from cornernet.config import ConfigError

VARIABLE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


class FakeRay(ModuleType):
    """Notes how it was started. Its node uses ``address``."""

    __version__ = "0"

    def __init__(self, address: str) -> None:
        super().__init__("ray")
        self.address = address
        self.started: dict[str, Any] = {}
        self.clusters: str | None = None
        self.ended = False

    def init(self, **how: Any) -> None:
        self.started, self.clusters = how, os.environ.get(VARIABLE)

    def nodes(self) -> list[dict[str, Any]]:
        return [{"NodeManagerAddress": self.address, "Alive": True, "Resources": {"CPU": 2.0}}]

    def remote(self, **_: Any) -> Any:
        return lambda function: function

    def shutdown(self) -> None:
        self.ended = True


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    ray, constants = FakeRay("127.0.0.1"), ModuleType("ray._private.ray_constants")
    constants.ENABLE_RAY_CLUSTER = True  # type: ignore[attr-defined]
    for name, module in (("ray", ray), ("ray._private.ray_constants", constants)):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delenv(VARIABLE, raising=False)
    return ray


def test_a_ray_without_an_address_starts_on_the_loopback_without_a_dashboard(fake: FakeRay) -> None:
    with on_ray(None, 2, 0) as executor:
        assert executor.slots() == 2
    assert fake.started["address"] == "local"
    assert fake.started["include_dashboard"] is False
    assert fake.clusters == "0"
    assert VARIABLE not in os.environ, "what is set for Ray does not stay"
    assert fake.ended


@pytest.mark.parametrize("address", ["192.0.2.1", "0.0.0.0", "2001:db8::1"])
def test_a_ray_that_other_machines_may_reach_is_ended_and_not_used(address: str, fake: FakeRay) -> None:
    fake.address = address
    with pytest.raises(ConfigError, match=rf"listens on {address}, not on the loopback alone"), on_ray(None, 2, 0):
        pytest.fail("it was used")
    assert fake.ended


def test_a_cluster_that_is_given_is_used_as_it_is(fake: FakeRay) -> None:
    fake.address = "192.0.2.1"
    with on_ray("192.0.2.1:6379", None, 0) as executor:
        assert executor.slots() == 2
    assert fake.started["address"] == "192.0.2.1:6379"
    assert fake.clusters is None
