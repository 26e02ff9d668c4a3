"""GigE Vision and USB3 Vision cameras through Aravis (GenICam): Debian packages gir1.2-aravis-0.8 and python3-gi."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from appliance.sources.grabber import CameraError, WrongCameraError
from appliance.sources.opencv import with_channels
from appliance.sources.protocol import ShotError
from appliance.words import Reason
from calibration.errors import InputError
from calibration.preprocess import Frame

BUFFERS = 8
SOCKET_BYTES = 4 * 2**20
"""The stream's own default is too small for a picture that comes in one burst."""


def library() -> Any:
    """The Aravis library. Raises InputError with the remedy where it is not installed."""
    try:
        import gi

        gi.require_version("Aravis", "0.8")
        from gi.repository import Aravis
    except (ImportError, ValueError):
        raise InputError(
            "source aravis needs Aravis: apt-get install --no-install-recommends gir1.2-aravis-0.8 python3-gi, "
            "and a Python that sees Debian's gi package (python3 -m venv --system-site-packages)"
        ) from None
    return Aravis


class AravisDriver:
    """See Driver."""

    def __init__(
        self, device: str, serial: str, geometry: tuple[int, int] | None, timeout_ms: float, channels: int
    ) -> None:
        """`device`: address or id, empty for the first found; `serial`: that it must have; `geometry`: (width, height)
        to be set. A picture comes within `timeout_ms`, or the camera is opened anew."""
        self._aravis = library()
        self._device, self._serial, self._geometry = device, serial, geometry
        self._timeout_us, self._channels = int(timeout_ms * 1000), channels
        self._camera: Any = None
        self._stream: Any = None

    def open(self) -> None:
        """See Driver.open."""
        aravis = self._aravis
        try:
            camera = self._camera = aravis.Camera.new(self._device or None)
            self._identify(camera)
            if self._geometry is not None:
                camera.set_region(0, 0, *self._geometry)
            camera.set_pixel_format_from_string("Mono8" if self._channels == 1 else "RGB8")
            camera.set_acquisition_mode(aravis.AcquisitionMode.CONTINUOUS)
            if camera.is_gv_device():
                # As root Aravis reads packets from the interface itself, and on loopback then sees none of them.
                camera.gv_set_stream_options(aravis.GvStreamOption.PACKET_SOCKET_DISABLED)
            stream = self._stream = camera.create_stream(None, None)
            if stream is None:
                raise CameraError(f"camera {self._device}: it gives no stream")
            if camera.is_gv_device():
                stream.set_property("socket-buffer", aravis.GvStreamSocketBuffer.FIXED)
                stream.set_property("socket-buffer-size", SOCKET_BYTES)
            payload = camera.get_payload()
            for _ in range(BUFFERS):
                stream.push_buffer(aravis.Buffer.new_allocate(payload))
            camera.start_acquisition()
        except CameraError:
            raise
        except Exception as error:  # the library's errors are made while it is imported, under names of their own
            raise CameraError(f"camera {self._device or 'Aravis'}: {error}") from None

    def read(self) -> Frame:
        """See Driver.read."""
        if self._stream is None:
            raise CameraError("not open")
        buffer = self._stream.timeout_pop_buffer(self._timeout_us)
        if buffer is None:
            raise CameraError(f"camera {self._device or 'Aravis'}: no picture within {self._timeout_us / 1000:.0f} ms")
        try:
            return self._frame(buffer)
        finally:
            self._stream.push_buffer(buffer)

    def close(self) -> None:
        """See Driver.close."""
        camera, self._camera, self._stream = self._camera, None, None
        if camera is not None:
            with contextlib.suppress(Exception):  # it may be gone; the library then raises what it likes
                camera.stop_acquisition()

    def _identify(self, camera: Any) -> None:
        found = camera.get_device_serial_number()
        if self._serial and found != self._serial:
            raise WrongCameraError(f"camera {self._device or 'Aravis'}: its serial is {found!r}, not {self._serial!r}")

    def _frame(self, buffer: Any) -> Frame:
        """A copy of the buffer's pixels. Raises ShotError where it is not whole or of another kind."""
        status = buffer.get_status()
        if status != self._aravis.BufferStatus.SUCCESS:
            raise ShotError(Reason.TORN, f"the camera's picture did not arrive whole ({status.value_nick})")
        width, height = buffer.get_image_width(), buffer.get_image_height()
        depth = {self._aravis.PIXEL_FORMAT_MONO_8: 1, self._aravis.PIXEL_FORMAT_RGB_8_PACKED: 3}.get(
            buffer.get_image_pixel_format()
        )
        data = buffer.get_image_data()
        if depth is None or len(data) < width * height * depth:
            raise ShotError(Reason.FORMAT, f"{len(data)} bytes for {width}x{height} pixels of another format")
        pixels = np.frombuffer(data, np.uint8, width * height * depth).copy()
        picture = pixels.reshape(height, width) if depth == 1 else pixels.reshape(height, width, 3)[:, :, ::-1]
        return with_channels(np.ascontiguousarray(picture), self._channels)
