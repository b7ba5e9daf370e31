import aiohttp
import pytest
from aiohttp import web

from sims.faults import FaultKind
from sims.profiles import PROFILES
from sims.vendor import VendorSim

pytestmark = pytest.mark.real_time


class Echo(VendorSim):
    name = "echo"
    scheme = "ws"
    supported_faults = frozenset({FaultKind.EMPTY, FaultKind.SERVER_ERROR})

    def add_routes(self, router: web.UrlDispatcher) -> None:
        async def say(_: web.Request) -> web.Response:
            self.stats["said"] += 1
            spec = self.faults.take()
            return web.Response(status=500 if spec and spec.kind is FaultKind.SERVER_ERROR else 200)

        router.add_get("/say", say)


async def test_a_vendor_serves_and_is_controlled_over_http() -> None:
    async with Echo(PROFILES["instant"]) as sim, aiohttp.ClientSession(sim.control_url) as http:
        assert sim.base_url.startswith("ws://127.0.0.1:")
        async with http.post("/sim/faults", json={"kind": "500", "count": 1}) as armed:
            assert armed.status == 200
        statuses: list[int] = []
        for _ in range(2):
            async with http.get("/say") as said:
                statuses.append(said.status)
        assert statuses == [500, 200]
        async with http.get("/sim/stats") as stats:
            assert await stats.json() == {"stats": {"said": 2}, "faults": {"500": 1}}


@pytest.mark.parametrize("shape", [{"kind": "refuse"}, {"kind": "?"}, {}])
async def test_a_fault_it_cannot_act_out_is_refused_with_a_sentence(shape: dict[str, str]) -> None:
    async with (
        Echo(PROFILES["instant"]) as sim,
        aiohttp.ClientSession(sim.control_url) as http,
        http.post("/sim/faults", json=shape) as refused,
    ):
        assert refused.status == 422
        assert (await refused.json())["error"]


async def test_faults_are_cleared_and_the_profile_is_changed_at_run_time() -> None:
    async with Echo(PROFILES["instant"]) as sim, aiohttp.ClientSession(sim.control_url) as http:
        await http.post("/sim/faults", json={"kind": "500"})
        await http.delete("/sim/faults")
        async with http.get("/say") as said:
            assert said.status == 200
        async with http.post("/sim/profile", json={"name": "bad-day"}) as changed:
            assert changed.status == 200
        assert sim.profile is PROFILES["bad-day"]
        assert sim.faults.error_rate == PROFILES["bad-day"].error_rate
        async with http.post("/sim/profile", json={"name": "worse"}) as unknown:
            assert unknown.status == 422


async def test_a_stopped_vendor_has_no_port() -> None:
    sim = Echo(PROFILES["instant"])
    await sim.start()
    url = sim.control_url
    await sim.stop()
    await sim.stop()
    async with aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.ClientConnectorError):
            await http.get(f"{url}/say")
