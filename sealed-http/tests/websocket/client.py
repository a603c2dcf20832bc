"""An independent client, `websockets` of PyPI, against an echo server: client.py HOST PORT.

Exits with 3 if the package is not installed.
"""

import asyncio
import sys

try:
    import websockets
except ImportError:
    sys.exit(3)


async def main(url):
    # The client offers compression, and an unknown subprotocol beside a known one.
    async with websockets.connect(url, subprotocols=["unknown", "echo"], max_size=None) as socket:
        assert socket.subprotocol == "echo", socket.subprotocol
        for size in [0, 1, 125, 126, 65535, 65536, 1000000]:
            for message in ["é" * size, b"\xff" * size]:
                await socket.send(message)
                assert await socket.recv() == message, f"{size}"
        await socket.send(["in ", "three ", "fragments"])
        assert await socket.recv() == "in three fragments"
        await asyncio.wait_for(await socket.ping(b"are you there?"), 60)
        await socket.close(4321, "bye")
        assert socket.close_code == 4321, socket.close_code
    async with websockets.connect(url) as socket:
        assert socket.subprotocol is None
        await socket.send("close")
        try:
            await socket.recv()
            raise AssertionError("it closes")
        except websockets.ConnectionClosedError as closed:
            assert (closed.rcvd.code, closed.rcvd.reason) == (1008, "as asked"), closed
    # The server checks origins.
    try:
        await websockets.connect(url, origin="https://elsewhere.test")
        raise AssertionError("it refuses")
    except websockets.InvalidHandshake as refused:
        assert "403" in str(refused), refused


asyncio.run(main(f"ws://{sys.argv[1]}:{sys.argv[2]}/"))
print("all is well")
