"""LitServe: `python app.py PORT WORKERS`."""

import sys

import litserve
from starlette.requests import Request
from starlette.responses import Response
from work import Work, media_type


class Segment(litserve.LitAPI):
    """One worker."""

    def setup(self, device: str) -> None:
        """Open the net."""
        self.work = Work()

    def decode_request(self, request: Request) -> tuple[bytes, str]:
        """The form's fields."""
        return request["image"].file.read(), request["output"]

    def predict(self, asked: tuple[bytes, str]) -> tuple[bytes, str]:
        """The picture's work."""
        data, output = asked
        return self.work(data, output), media_type(output)

    def encode_response(self, done: tuple[bytes, str]) -> Response:
        """The bytes as they are."""
        return Response(done[0], media_type=done[1])


if __name__ == "__main__":
    port, workers = int(sys.argv[1]), int(sys.argv[2])
    server = litserve.LitServer(
        Segment(api_path="/segment"), accelerator="cpu", workers_per_device=workers, timeout=300
    )
    server.run(port=port, host="127.0.0.1", generate_client_file=False, log_level="warning")
