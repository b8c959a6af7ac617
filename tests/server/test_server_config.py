import asyncio
from pathlib import Path

import numpy as np
import pytest
from tests.server.harness import make_config, running

from fadelab_server.checkpoint import CheckpointError
from fadelab_server.config import ServerConfig


def test_a_model_that_cannot_be_cut_into_enough_packets_is_refused(tmp_path: Path) -> None:
    settings = make_config(tmp_path).model_dump()
    settings["tasks"][0]["dimension"] = 65535 * 128
    ServerConfig.model_validate(settings)
    settings["tasks"][0]["dimension"] += 1
    with pytest.raises(ValueError, match="raise max_payload_bytes"):
        ServerConfig.model_validate(settings)


def test_layers_that_do_not_make_the_model_are_refused(tmp_path: Path) -> None:
    settings = make_config(tmp_path).model_dump()
    settings["tasks"][0]["layers"] = (100, 200)
    ServerConfig.model_validate(settings)
    settings["tasks"][0]["layers"] = (100, 100)
    with pytest.raises(ValueError, match="200 parameters together, the model has 300"):
        ServerConfig.model_validate(settings)


def test_an_initial_vector_of_another_kind_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(config):
            raise AssertionError("the server took a float64 vector")

    config = make_config(tmp_path)
    np.save(config.tasks[0].initial, np.zeros(300))
    with pytest.raises(CheckpointError, match=r"holds float64\[300\], not float32\[300\]"):
        asyncio.run(scenario())
