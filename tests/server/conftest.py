import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.server.harness import DeviceScenario, ServeDevice, make_config, running


@pytest.fixture
def serve_device(tmp_path: Path) -> ServeDevice:
    """Run a scenario against a server and device 0, which has joined."""

    def run(scenario: DeviceScenario, **changes: Any) -> None:
        async def body() -> None:
            async with running(make_config(tmp_path, **changes)) as server:
                device = server.device()
                await device.join()
                await scenario(server, device)

        asyncio.run(body())

    return run
