"""FastAPI under uvicorn: the frame as the body of a POST, judged in its thread pool, which holds two threads."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio.to_thread
import uvicorn
from fastapi import FastAPI, Request

from benchmarks.peers.judge import Judge

judge = Judge(Path(sys.argv[1]))
app = FastAPI()
limiter = anyio.CapacityLimiter(2)


@app.post("/predict")
async def predict(request: Request) -> list[float]:
    """Logits of one frame."""
    frame = await request.body()
    logits = await anyio.to_thread.run_sync(judge.logits, [frame], limiter=limiter)
    return [float(value) for value in logits[0]]


uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
