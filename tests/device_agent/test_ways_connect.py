"""Connections are made ahead of the time in which they are needed."""

import asyncio

import grpc

from fadelab_agent.upload_ways import UploadWays


def test_a_connection_is_made_before_anything_is_called() -> None:
    async def play() -> grpc.ChannelConnectivity:
        server = grpc.aio.server()
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            state = channel.get_state()
            assert state == grpc.ChannelConnectivity.IDLE
            ways = UploadWays.one_stream(channel)
            ways.connect()
            while state != grpc.ChannelConnectivity.READY:
                await channel.wait_for_state_change(state)
                state = channel.get_state()
            ways.connect()
            found = channel.get_state()
        await server.stop(None)
        return found

    assert asyncio.run(play()) == grpc.ChannelConnectivity.READY
