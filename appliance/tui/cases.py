"""The screen of the parts that wait for a person: UNSURE ones, and those drawn at random."""

from __future__ import annotations

from collections.abc import Callable
from datetime import tzinfo
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from appliance.messages import Case
from appliance.tui.dialogs import OperatorDialog
from appliance.tui.panels import UNSURE, cell
from appliance.tui.text import clean, moment, probability

SHOWN = 10
WORDS = {"OK": "GOOD", "DEFECT": "DEFECT"}

Judge = Callable[[int, str, str], None]


class CasesScreen(ModalScreen[str]):
    """A list of cases. A key says what the selected part is, Enter records it. Ends with the operator's name.

    Args:
        judge: records (row, decision, operator).
        operator: who is at the line; asked for at the first judgement when empty.
        zone: of the times shown.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "select(-1)", show=False),
        Binding("down", "select(1)", show=False),
        Binding("g", "mean('OK')", show=False),
        Binding("d", "mean('DEFECT')", show=False),
        Binding("enter", "record", show=False),
        Binding("escape", "leave", show=False),
    ]

    def __init__(self, judge: Judge, operator: str, zone: tzinfo | None = None) -> None:
        super().__init__()
        self._judge, self._operator, self._zone = judge, operator, zone
        self._cases: tuple[Case, ...] | None = None
        self._meant = ""
        self._place = 0
        self._notice = "looking ..."

    def compose(self) -> ComposeResult:
        """Heading, list, the picture, what was said last, the keys."""
        with Vertical(classes="dialog wide"):
            yield Static(Content(""), id="cases-heading", classes="heading")
            yield Static(Content(""), id="cases-list")
            yield Static(Content(""), id="cases-picture", classes="subject")
            yield Static(Content(""), id="cases-notice")
            keys = "↑↓  select      g  good      d  defect      Enter  record      Esc  back"
            yield Static(Content(keys), classes="keys")

    def on_mount(self) -> None:
        """Before the list is there."""
        self._draw()

    def show(self, cases: tuple[Case, ...], trouble: str) -> None:
        """The list, or why there is none."""
        if trouble or self._cases is None:
            self._notice = clean(trouble, 200)
        self._cases, self._meant = cases, ""
        self._place = min(self._place, max(0, len(cases) - 1))
        self._draw()

    def judged(self, row: int, decision: str, trouble: str) -> None:
        """How a judgement went."""
        self._say(f"row {row}: {clean(trouble, 200)}" if trouble else f"row {row}: {WORDS[decision]}, recorded")

    def action_select(self, step: int) -> None:
        """Move to another case; what was meant for this one is taken back."""
        self._place = min(max(0, self._place + step), max(0, len(self._cases or ()) - 1))
        self._meant = ""
        self._say("")

    def action_mean(self, decision: str) -> None:
        """Say what the selected part is; nothing is recorded yet."""
        if self._case is not None:
            self._meant = decision
            self._say(f"row {self._case.seq}: {WORDS[decision]}?   Enter records it, any other key does not")

    def action_record(self) -> None:
        """Record what was said."""
        case, meant = self._case, self._meant
        if case is None or not meant:
            return

        def named(operator: str | None) -> None:
            if operator:
                self._operator, self._meant = operator, ""
                self._say(f"row {case.seq}: asking the daemon ...")
                self._judge(case.seq, meant, operator)

        if self._operator:
            named(self._operator)
        else:
            self.app.push_screen(OperatorDialog(), named)

    def action_leave(self) -> None:
        """Esc: take back what was said, else close."""
        if self._meant:
            self.action_select(0)
        else:
            self.dismiss(self._operator)

    @property
    def _case(self) -> Case | None:
        """The selected one."""
        return self._cases[self._place] if self._cases else None

    def _say(self, notice: str) -> None:
        self._notice = notice
        self._draw()

    def _draw(self) -> None:
        cases, case = self._cases or (), self._case
        heading = "Parts that wait for you" if self._cases is None else f"Parts that wait for you: {len(cases)}"
        first = max(0, min(self._place - SHOWN // 2, len(cases) - SHOWN))
        lines = [_line(one, one is case, self._zone) for one in cases[first : first + SHOWN]]
        if self._cases == ():
            lines = [Content("  no part waits for a person").stylize("$dim")]
        where = "" if case is None else clean(case.evidence, 400) or "none was kept; look at the part itself"
        self.query_one("#cases-heading", Static).update(Content(heading))
        self.query_one("#cases-list", Static).update(Content("\n").join(lines))
        self.query_one("#cases-picture", Static).update(Content(where and f"picture: {where}").stylize("$dim"))
        self.query_one("#cases-notice", Static).update(Content(self._notice).stylize("bold"))


def _line(case: Case, selected: bool, zone: tzinfo | None) -> Content:
    """One case. Of a part drawn at random nothing is said of what the model thinks."""
    is_sample = case.kind == "sample"
    line = Content.assemble(
        f"{'►' if selected else ' '} ",
        cell(moment(case.utc, zone), 25, "$dim"),
        cell(clean(case.serial, 14), 15),
        cell(clean(case.lot, 8) or "-", 9),
        cell(clean(case.camera, 7), 8),
        cell("drawn at random" if is_sample else f"{UNSURE} {probability(case.defect_probability)}", 16),
    )
    return line.stylize("on $selected") if selected else line
