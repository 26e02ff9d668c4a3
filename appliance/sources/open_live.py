"""Opening live cameras, each with the driver that its section names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from appliance.sources.grabber import Driver, Grabber
from appliance.sources.keys import load_keys
from appliance.sources.listener import TriggerListener
from appliance.sources.live import LiveSource
from appliance.sources.settings import AravisCamera, Camera, LiveCamera, RtspCamera, V4l2Camera
from appliance.sources.triggers import TriggerQueue

_SECTION: TypeAdapter[Camera] = TypeAdapter(Camera)
DRIVERS: dict[type[LiveCamera], Callable[[Any, int], Driver]] = {}
"""By the class of the section: makes its driver for so many channels."""


def live_source(settings: Mapping[str, Any], channels: int) -> LiveSource:
    """The source of a live camera's section; the camera itself is opened with its first trigger, in the background.

    Raises:
        InputError: its library is not installed.
    """
    section = _SECTION.validate_python(dict(settings))
    assert isinstance(section, LiveCamera)  # noqa: S101  only these are asked for here
    if section.trigger == "message":
        load_keys(section.keys)  # refused here, before anything starts
    return LiveSource(
        Grabber(DRIVERS[type(section)](section, channels)),
        section.fps,
        int(section.frame_ms * 1e6),
        int(section.latency_ms * 1e6),
        section.geometry,
        section.min_contrast,
        int((section.timeout_ms * 3 + 1000) * 1e6),
        section.count,
    )


@contextmanager
def outside_triggers(source: LiveSource, settings: Mapping[str, Any]) -> Iterator[TriggerQueue | None]:
    """Where a camera's triggers come from outside: the queue that they wait in, and for messages somebody who listens.
    Source, listener and queue are closed at the end.

    Raises:
        InputError: keys that cannot be used, or an address that is taken.
    """
    how = settings.get("trigger", "free")
    with ExitStack() as opened:
        queue = None
        if how != "free":
            queue = TriggerQueue()
            opened.callback(queue.close)
        opened.callback(source.close)  # first of all: it ends whoever fills the queue
        if how == "message" and queue is not None:
            source.watch(TriggerListener(settings["listen"], load_keys(Path(settings["keys"])), queue))
        yield queue


def _rtsp(section: RtspCamera, channels: int) -> Driver:
    from appliance.sources.opencv import rtsp_driver

    return rtsp_driver(section.url, section.timeout_ms, channels)


def _v4l2(section: V4l2Camera, channels: int) -> Driver:
    from appliance.sources.opencv import v4l2_driver

    return v4l2_driver(section.path, section.name, section.width, section.height, channels)


def _aravis(section: AravisCamera, channels: int) -> Driver:
    from appliance.sources.aravis import AravisDriver

    return AravisDriver(section.device, section.device_serial, section.geometry, section.timeout_ms, channels)


DRIVERS.update({RtspCamera: _rtsp, V4l2Camera: _v4l2, AravisCamera: _aravis})
