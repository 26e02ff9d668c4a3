"""What opens over the screen: acknowledging an alert, naming the operator, the help page."""

from __future__ import annotations

from datetime import tzinfo
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from appliance.messages import AlertRow
from appliance.tui.panels import DEFECT, MISSED, OK, UNSURE
from appliance.tui.text import clean, moment

NAME_LENGTH = 32


def operator_name(typed: str) -> str:
    """The name as it may be recorded: at most 32 harmless characters, no blanks around them; perhaps empty."""
    return clean(typed[:NAME_LENGTH]).replace("\ufffd", "").strip()


class OperatorDialog(ModalScreen[str]):
    """Asks who is at the line. Ends with the name, or empty text when it was left with Esc."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", show=False)]
    heading = "Who is at the line?"
    keys = "Enter  take the name      Esc  cancel"

    def __init__(self, operator: str = "") -> None:
        super().__init__()
        self.operator = operator

    def compose(self) -> ComposeResult:
        """Heading, what it is about, the name, the keys."""
        with Vertical(classes="dialog"):
            yield Static(Content(self.heading), classes="heading")
            yield from self.subject()
            name = Input(self.operator, placeholder="your name", max_length=NAME_LENGTH, id="operator", compact=True)
            name.cursor_blink = False
            yield name
            yield Static(Content(""), id="complaint")
            yield Static(Content(self.keys), classes="keys")

    def subject(self) -> ComposeResult:
        """What the name is for."""
        yield Static(Content("The name is recorded with whatever you acknowledge or judge."), classes="subject")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter."""
        name = operator_name(event.value)
        if name:
            self.dismiss(name)
        else:
            self.query_one("#complaint", Static).update(Content("A name is needed: it is recorded."))

    def action_leave(self) -> None:
        """Esc."""
        self.dismiss("")


class AcknowledgeDialog(OperatorDialog):
    """Shows one alert in full; Enter acknowledges it. A name that is known already is only confirmed."""

    heading = "Acknowledge this alert?"
    keys = "Enter  acknowledge      Esc  cancel"

    def __init__(self, alert: AlertRow, operator: str, zone: tzinfo | None = None) -> None:
        super().__init__(operator)
        self.alert = alert
        self.zone = zone

    def subject(self) -> ComposeResult:
        """The whole alert."""
        when = moment(self.alert.utc, self.zone)
        head = Content.assemble((clean(self.alert.kind), "bold $text-warning"), f"   {when}")
        yield Static(head, classes="subject")
        yield Static(Content(clean(self.alert.message, 400)), classes="subject message")


HELP = (
    ("Keys", ""),
    ("↑ ↓", "select an alert"),
    ("a", "acknowledge it: seen, and dealt with"),
    ("c", "parts that wait for a person: say what they are"),
    ("o", "change the operator's name"),
    ("?   q", "this page; leave the screen (the line goes on without it)"),
    ("Parts", ""),
    (f"{OK} OK", "judged good: PASS; its share is the yield"),
    (f"{DEFECT} DEFECT", "judged defective: rejected"),
    (f"{UNSURE} UNSURE", "judged doubtful: rejected, a person should look at it"),
    (f"{MISSED} NOT INSPECTED", "rejected without a judgement: no image, too late, ..."),
    ("share", "of the inspected parts; NOT INSPECTED: of all triggers"),
    ("95 % interval", "how far chance alone may have moved the share (Wilson)"),
    ("defect probab.", "parts by what the model said; bar heights are logarithmic"),
    ("drift", "distance from the bundle's or accepted parts; limit"),
    ("States", ""),
    ("RUN  DEGRADED", "judged; DEGRADED: see the alerts; SWITCH: new bundle"),
    ("HOLD  FAULT", "every part is rejected; FAULT stays until repaired"),
    ("NO CONNECTION", "the daemon is silent; a dash stands for every number"),
)


class HelpScreen(ModalScreen[None]):
    """One page. Any of the usual keys closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,enter,q,space", "leave", show=False),
    ]

    def compose(self) -> ComposeResult:
        """The page."""
        with Vertical(classes="dialog wide"):
            for name, text in HELP:
                if text:
                    yield Static(Content.assemble((f"  {name:<16}", "bold"), text), classes="help")
                else:
                    yield Static(Content(name).stylize("bold $primary"), classes="help")
            yield Static(Content("Esc  back"), classes="keys")

    def action_leave(self) -> None:
        """Close."""
        self.dismiss(None)
