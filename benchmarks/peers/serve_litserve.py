"""LitServe: the frame as a file of a form, batches of up to 8, two workers.

Annotations are evaluated here: LitServe looks at the request's to know what to hand over.
"""

import sys
from pathlib import Path

import litserve
from fastapi import Request

from benchmarks.peers.judge import Judge


class Api(litserve.LitAPI):
    """One frame a request."""

    def setup(self, device: str) -> None:
        """In each worker."""
        self.judge = Judge(Path(sys.argv[1]))

    def decode_request(self, request: Request) -> bytes:
        """The frame's bytes."""
        data: bytes = request["frame"].file.read()
        return data

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        """As they are."""
        return inputs

    def predict(self, frames: list[bytes]) -> list[list[float]]:
        """Logits of a batch."""
        return [[float(value) for value in row] for row in self.judge.logits(frames)]

    def unbatch(self, output: list[list[float]]) -> list[list[float]]:
        """One answer a request."""
        return output

    def encode_response(self, output: list[float]) -> list[float]:
        """JSON of it."""
        return output


if __name__ == "__main__":
    server = litserve.LitServer(Api(max_batch_size=8, batch_timeout=0.01), accelerator="cpu", workers_per_device=2)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="warning")
