"""[camera.NAME] of station.toml: where frames come from, and what triggers them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from appliance.section import Section


class ReplayCamera(Section):
    """Replays recorded frames: for demonstrations, tests and benchmarks."""

    path: Path
    fps: float = Field(default=0.0, ge=0, le=10_000, description="frames per second; 0 = as fast as they are judged")
    loop: bool = Field(default=False, description="start again after the last image; otherwise stop there")
    count: int | None = Field(
        default=None, ge=1, description="stop after this many frames; needs loop to exceed one pass"
    )
    serial: Literal["counter", "name"] = Field(
        default="counter", description="serial of a part: the number of its row, or the name of its file"
    )
    serials: Path | None = Field(default=None, description="a CSV file with columns frame, serial and lot instead")

    @property
    def pace(self) -> float:
        """Triggers per second; 0: it waits until there is room for its next frame."""
        return self.fps


class FolderCamera(ReplayCamera):
    """Image files of a directory, in name order."""

    source: Literal["folder"]
    path: Path = Field(description="directory of images")


class RawCamera(ReplayCamera):
    """Undecoded frames of one file."""

    source: Literal["raw"]
    path: Path = Field(description="a .npy file, uint8 (n, height, width) grey or (n, height, width, 3) BGR")


class VideoCamera(ReplayCamera):
    """Pictures of a video file, in order."""

    source: Literal["video"]
    path: Path = Field(description="a video that OpenCV can read")
    serial: Literal["counter"] = "counter"
    serials: None = None


class LiveCamera(Section):
    """A camera that gives pictures of this moment.

    Triggers: "free" (fps of them a second; with fps 0 each picture is one), "software" (`appliance trigger`) and
    "message" (from the line, by ZeroMQ on `listen`; see appliance/sources/listener.py).
    """

    trigger: Literal["free", "software", "message"] = Field(
        default="free", description="by itself, by `appliance trigger`, or by messages of the line on `listen`"
    )
    listen: str = Field(
        default="tcp://127.0.0.1:5570",
        pattern=r"^tcp://[0-9a-fA-F.:\[\]]+:[0-9]{1,5}$",
        description="address and port for trigger messages; other machines reach it only if it is not loopback",
    )
    keys: Path = Field(default=Path("keys"), description="directory of the keys for trigger messages")
    fps: float = Field(default=0.0, ge=0, le=10_000, description="triggers per second; 0 = each picture is one")
    frame_ms: float = Field(default=500.0, gt=0, le=60_000, description="a trigger waits so long for its picture")
    latency_ms: float = Field(
        default=0.0, ge=0, le=10_000, description="a picture that arrives sooner was exposed before the trigger"
    )
    timeout_ms: float = Field(
        default=3000.0, ge=100, le=60_000, description="without a picture for so long the camera is opened anew"
    )
    width: int | None = Field(
        default=None, ge=1, le=65_535, description="pixels; pictures of another size are rejected"
    )
    height: int | None = Field(default=None, ge=1, le=65_535, description="pixels, together with width")
    min_contrast: float = Field(
        default=2.0, ge=0, le=128, description="grey levels, standard deviation; less is a lens cap or a dead lamp"
    )
    count: int | None = Field(default=None, ge=1, description="stop after this many triggers")

    @model_validator(mode="after")
    def _whole(self) -> LiveCamera:
        if (self.width is None) != (self.height is None):
            raise ValueError("give width and height together, or neither")
        if self.trigger != "free" and self.fps:
            raise ValueError("fps is for trigger free; with another trigger leave it out")
        return self

    @property
    def pace(self) -> float:
        """Triggers per second, as far as is known. Never 0: a camera waits for nobody."""
        return self.fps or 1.0

    @property
    def geometry(self) -> tuple[int, int] | None:
        """(width, height) that the camera must give."""
        return None if self.width is None or self.height is None else (self.width, self.height)


class RtspCamera(LiveCamera):
    """A network camera's RTSP stream, read by FFmpeg over TCP."""

    source: Literal["rtsp"]
    url: str = Field(pattern=r"^rtsps?://\S+$", max_length=1000, description="rtsp://... or rtsps://...")


class V4l2Camera(LiveCamera):
    """A V4L2 device."""

    source: Literal["v4l2"]
    path: Path = Field(
        default=Path("/dev/video0"), description="the device; a path below /dev/v4l/by-id stays the same"
    )
    name: str = Field(default="", max_length=100, description="what the kernel must call it; empty = anything")
    width: int = Field(default=640, ge=1, le=65_535, description="pixels; pictures of another size are rejected")
    height: int = Field(default=480, ge=1, le=65_535, description="pixels")


class AravisCamera(LiveCamera):
    """A GigE Vision or USB3 Vision camera, through Aravis."""

    source: Literal["aravis"]
    device: str = Field(default="", max_length=200, description="address or id; empty = the first that is found")
    device_serial: str = Field(default="", max_length=100, description="that the camera must have; empty = any")


Camera = Annotated[
    FolderCamera | RawCamera | VideoCamera | RtspCamera | V4l2Camera | AravisCamera,
    Field(discriminator="source", description="one camera"),
]


def absolute(camera: Camera, base: Path) -> Camera:
    """With paths relative to `base` made absolute."""
    paths = {key: getattr(camera, key, None) for key in ("path", "serials", "keys")}
    return camera.model_copy(update={key: base / path for key, path in paths.items() if path is not None})
