"""A peer of downloads, a process of its own: uvicorn and Starlette's FileResponse, nothing else.

It says "ready URL" once it listens, and ends when its standard input ends.
"""

import asyncio
import socket
import sys

import uvicorn
from starlette.responses import FileResponse
from starlette.types import Receive, Scope, Send


async def main() -> None:
    path = sys.argv[1]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await FileResponse(path)(scope, receive, send)

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    print(f"ready http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve([listener]), name="serve")
        await asyncio.to_thread(sys.stdin.read)
        server.should_exit = True


if __name__ == "__main__":
    import uvloop

    uvloop.run(main())
