"""From a camera frame to the model's input: one specification, one implementation.

The trainer and the appliance both call `PreprocessSpec.apply`, so a model is judged on exactly the pixels
that it was trained on. Normalisation is no part of it: (x - 127) / 128 is folded into the exported graph.

The frame is halved with 2x2 area averaging until it is less than twice the target, then resized linearly:
linear interpolation alone aliases at larger factors and loses thin scratches; a full area resize costs
several times as much and gains nothing over this.

numpy and OpenCV are imported where pixels are touched: a device that only verifies a bundle reads specifications alone,
and importing the two would cost it more than that.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Frame: TypeAlias = "NDArray[np.uint8]"
"""A camera frame: uint8, shape (H, W) grey or (H, W, 3) in OpenCV's BGR order."""

PAD_VALUE = 127
"""Grey level of padding: zero after the (x - 127) / 128 normalisation."""


class GeometryError(ValueError):
    """The frame's shape, channels or type are not those the bundle was made for: REJECT, never resize to fit."""


@dataclass(frozen=True)
class PreprocessSpec:
    """What the model expects, and which frames may be turned into it.

    Attributes:
        height, width: input size of the model in pixels, each >= 1.
        channels: 1 (grey) or 3 (RGB).
        fit: "stretch" maps the whole frame onto the input; "pad" keeps its aspect ratio and centres it on grey.
        frame_heights, frame_widths: inclusive (least, most) size of the frames seen in training, in pixels.
            A frame outside them is from another camera or lens and is refused.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "strict": True}

    height: int
    width: int
    channels: int
    frame_heights: tuple[int, int]
    frame_widths: tuple[int, int]
    fit: Literal["stretch", "pad"] = "stretch"

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ValueError(f"preprocess: input size {self.height}x{self.width} is not positive")
        if self.channels not in (1, 3):
            raise ValueError(f"preprocess: channels is {self.channels}; it must be 1 (grey) or 3 (colour)")
        if self.fit not in ("stretch", "pad"):
            raise ValueError(f"preprocess: fit is {self.fit!r}; it must be 'stretch' or 'pad'")
        for name, (least, most) in (("frame_heights", self.frame_heights), ("frame_widths", self.frame_widths)):
            if not 1 <= least <= most:
                raise ValueError(f"preprocess: {name} is {least}..{most}; it must be a range of positive sizes")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one input tensor: (channels, height, width)."""
        return (self.channels, self.height, self.width)

    @property
    def sha256(self) -> str:
        """Hash of the specification: what a DecisionRule is bound to."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` gives back an equal spec."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> PreprocessSpec:
        """Inverse of `to_json`. Raises ValueError or TypeError where a field is unknown, missing or out of range."""
        values = dict(values)
        for name in ("frame_heights", "frame_widths"):
            if name in values:
                values[name] = tuple(values[name])
        return cls(**values)

    def check(self, frame: Frame) -> None:
        """Raise GeometryError unless `frame` is one this spec was made for."""
        import numpy as np

        if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8:
            raise GeometryError(f"frame is {getattr(frame, 'dtype', type(frame).__name__)}; expected uint8 pixels")
        channels = 1 if frame.ndim == 2 else frame.shape[2] if frame.ndim == 3 else 0
        if channels != self.channels:
            raise GeometryError(f"frame has shape {frame.shape}; expected {self.channels} channel(s)")
        height, width = frame.shape[:2]
        least_h, most_h = self.frame_heights
        least_w, most_w = self.frame_widths
        if not (least_h <= height <= most_h and least_w <= width <= most_w):
            raise GeometryError(
                f"frame is {width}x{height}; the bundle was made for widths {least_w}..{most_w} "
                f"and heights {least_h}..{most_h}"
            )

    def apply(self, frame: Frame, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Turn a frame into the model's input.

        Args:
            frame: uint8 (H, W) grey or (H, W, 3) BGR.
            out: where to write the result, uint8 (channels, height, width), C-contiguous; new when None.

        Returns:
            uint8 (channels, height, width): grey, or RGB planes.

        Raises:
            GeometryError: the frame is not one this spec was made for.
        """
        import numpy as np

        self.check(frame)
        if out is None:
            out = np.empty(self.shape, np.uint8)
        elif out.shape != self.shape or out.dtype != np.uint8:
            raise ValueError(f"out is {out.dtype} {out.shape}; expected uint8 {self.shape}")
        top, left, height, width = self._place(frame.shape[0], frame.shape[1])
        image = resize(frame, height, width)
        if (height, width) != (self.height, self.width):
            out.fill(PAD_VALUE)
        target = out[:, top : top + height, left : left + width]
        if self.channels == 1:
            target[0] = image
        else:
            for plane in range(3):  # BGR to RGB while splitting into planes
                target[plane] = image[:, :, 2 - plane]
        return out

    def _place(self, frame_height: int, frame_width: int) -> tuple[int, int, int, int]:
        """Where the resized frame lies in the input: (top, left, height, width)."""
        if self.fit == "stretch":
            return 0, 0, self.height, self.width
        scale = min(self.height / frame_height, self.width / frame_width)
        height = min(self.height, max(1, round(frame_height * scale)))
        width = min(self.width, max(1, round(frame_width * scale)))
        return (self.height - height) // 2, (self.width - width) // 2, height, width


def resize(image: Frame, height: int, width: int) -> Frame:
    """Resize to (height, width): 2x2 area halvings while at least twice too large, then linear."""
    import cv2

    while image.shape[0] >= 2 * height and image.shape[1] >= 2 * width:
        image = _resized(image, image.shape[0] // 2, image.shape[1] // 2, cv2.INTER_AREA)
    if image.shape[:2] != (height, width):
        image = _resized(image, height, width, cv2.INTER_LINEAR)
    return image


def _resized(image: Frame, height: int, width: int, method: int) -> Frame:
    import cv2
    import numpy as np

    return np.asarray(cv2.resize(image, (width, height), interpolation=method), dtype=np.uint8)
