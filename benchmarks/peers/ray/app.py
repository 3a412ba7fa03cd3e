"""Ray Serve: `python app.py PORT REPLICAS`."""

import os
import sys
import time

from ray import serve
from starlette.requests import Request
from starlette.responses import Response
from work import Work, media_type


@serve.deployment(ray_actor_options={"num_cpus": 0.5}, max_ongoing_requests=100)
class Segment:
    """One replica."""

    def __init__(self) -> None:
        self.work = Work()

    async def __call__(self, request: Request) -> Response:
        """The picture's work, one picture at a time."""
        form = await request.form()
        output = str(form["output"])
        return Response(self.work(await form["image"].read(), output), media_type=media_type(output))


if __name__ == "__main__":
    port, replicas = int(sys.argv[1]), int(sys.argv[2])
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    names = ("MODEL", "PALETTE", "THREADS", "PYTHONPATH")
    actor = {"num_cpus": 0.5, "runtime_env": {"env_vars": {name: os.environ[name] for name in names}}}
    serve.run(Segment.options(num_replicas=replicas, ray_actor_options=actor).bind(), route_prefix="/segment")
    while True:
        time.sleep(3600)
