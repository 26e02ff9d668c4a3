"""What a workstation and `deploy serve` on a device say to one another over an SSH channel.

One JSON object a line, both ways. The device speaks first (Hello); then each request has one reply. After `Data` the
bundle's bytes follow, as many as are missing; nothing else is ever raw. Both ends refuse what they do not know.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Base64Bytes, BaseModel, ConfigDict, Field, ValidationError

from calibration.errors import InputError
from calibration.text import one_line
from deploy.bundle import MAX_BYTES
from deploy.record import HistoryLine, StateRecord
from deploy.slots import SlotName

PROTOCOL = 1
MAX_LINE = 4 * 2**20
"""Bytes of a line: a signature of 1 MiB in base64 fits, and so does any history that is asked for."""
MAX_STEPS = 1_000

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


class Hello(_Strict):
    """The device's first line."""

    protocol: int
    version: str


class Facts(_Strict):
    """What does the device hold?"""

    do: Literal["facts"] = "facts"


class Intact(_Strict):
    """Is the file in this slot this bundle?"""

    do: Literal["intact"] = "intact"
    slot: SlotName
    sha256: Sha256


class Status(_Strict):
    """All there is to tell."""

    do: Literal["status"] = "status"
    steps: int = Field(ge=0, le=MAX_STEPS)


class Offer(_Strict):
    """A bundle of this hash and size with this signature (None: unsigned)."""

    sha256: Sha256
    size: int = Field(ge=0, le=MAX_BYTES)
    signature: Base64Bytes | None = None


class Verify(Offer):
    """Would the device refuse it for its signature? Nothing is changed."""

    do: Literal["verify"] = "verify"


class Begin(Offer):
    """Somebody is going to send it: from here on nobody else may, until `activate`, `repair` or the end.

    who: the person, for the device's history. generation: of the state that the sender's plan was made from; None
    where there was no state. kind: what will be asked for when all of it is there.
    """

    do: Literal["begin"] = "begin"
    who: str = Field(max_length=200)
    generation: int | None
    kind: Literal["stage", "repair"] = "stage"


class Data(_Strict):
    """The bytes from `offset` to the end follow this line."""

    do: Literal["data"] = "data"
    offset: int = Field(ge=0)


class Finish(_Strict):
    """All of it was sent: stage it, or repair with it, as `Begin` said."""

    do: Literal["finish"] = "finish"


class Activate(_Strict):
    """Put this bundle, which is staged, on trial."""

    do: Literal["activate"] = "activate"
    sha256: Sha256
    who: str = Field(max_length=200)


class Rollback(_Strict):
    """Go back to the bundle before."""

    do: Literal["rollback"] = "rollback"
    reason: str = Field(max_length=1000)
    who: str = Field(max_length=200)


Request = Facts | Intact | Status | Verify | Begin | Data | Finish | Activate | Rollback
_REQUESTS: dict[str, type[Request]] = {kind.model_fields["do"].default: kind for kind in get_args(Request)}


class _Asked(BaseModel):
    """What a request is for; the rest of it is validated as that."""

    do: str


class Reply(_Strict):
    """An answer; what was not asked for is left at its default.

    Attributes:
        error: what went wrong, "" otherwise. kind: the name of its class.
        state: None where nothing was ever pushed to the device.
        intact: of `Intact` the one slot asked for, of `Status` every slot that is not empty.
        offset, prefix: how many bytes of the offered bundle the device has, and their SHA-256.
    """

    error: str = ""
    kind: str = ""
    state: StateRecord | None = None
    enrolled: bool = False
    intact: dict[SlotName, bool] = {}
    history: tuple[HistoryLine, ...] = ()
    offset: int = Field(default=0, ge=0)
    prefix: str = ""


class ProtocolError(InputError):
    """The other side does not speak as this program does."""


def parse_request(line: bytes) -> Request:
    """One line from a workstation. Raises ProtocolError."""
    try:
        asked = _Asked.model_validate_json(line)
        if asked.do not in _REQUESTS:
            raise ProtocolError(f"request not understood: do: {one_line(asked.do)[:40]!r} is none of {list(_REQUESTS)}")
        return _REQUESTS[asked.do].model_validate_json(line)
    except ValidationError as error:
        raise _not_understood("request", error) from None


def parse_hello(line: bytes) -> Hello:
    """The first line from a device. Raises ProtocolError where it is another program, or of another time."""
    try:
        hello = Hello.model_validate_json(line)
    except ValidationError:
        shown = one_line(line[:80].decode("utf-8", "replace"))
        raise ProtocolError(f"the device does not answer as `deploy serve` but: {shown!r}") from None
    if hello.protocol != PROTOCOL:
        raise ProtocolError(
            f"the device (Lineguard {one_line(hello.version)[:40]}) speaks protocol {hello.protocol}, this program "
            f"{PROTOCOL}; install the same version on both"
        )
    return hello


def parse_reply(line: bytes) -> Reply:
    """One answer from a device. Raises ProtocolError."""
    try:
        reply = Reply.model_validate_json(line)
        if reply.state is not None:
            reply.state.slots()
    except ValidationError as error:
        raise _not_understood("answer", error) from None
    except ValueError as error:
        raise ProtocolError(f"an answer of the device contradicts itself ({error})") from None
    return reply


def encode(message: _Strict) -> bytes:
    """One line."""
    return message.model_dump_json().encode() + b"\n"


def _not_understood(what: str, error: ValidationError) -> ProtocolError:
    first: Any = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return ProtocolError(f"{what} not understood: {where}: {first['msg']}"[:300])
