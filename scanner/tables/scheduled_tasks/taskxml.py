"""Parser of the XML in which Windows, since Vista, keeps a scheduled task.

Source: Microsoft's [MS-TSCH] 2.5, the task schema. No document type is accepted, so that no
entity can be declared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from xml.parsers import expat

_DEPTH_LIMIT = 32
_ELEMENT_LIMIT = 10_000
_NAMESPACE_MARK = " "


@dataclass(frozen=True)
class TaskFile:
    """What a task's file says of it.

    Attributes:
        name: its path in the scheduler's tree; None where the file does not say.
        schedule: its triggers in words.
        user: account or group that it runs as.
        command: its actions.
        enabled: whether it is switched on.
        elevated: whether it runs with the account's highest privileges.
    """

    name: str | None
    schedule: str
    user: str | None
    command: str
    enabled: bool
    elevated: bool


@dataclass
class _Element:
    name: str
    attributes: dict[str, str]
    text: str = ""
    children: list[_Element] = field(default_factory=list)

    def all(self, name: str) -> Iterator[_Element]:
        return (child for child in self.children if child.name == name)

    def get(self, *path: str) -> str | None:
        """Text of the first element at a path; None for none, or an empty one."""
        element: _Element | None = self
        for name in path:
            element = next(element.all(name), None) if element else None
        return element.text.strip() or None if element else None

    def below(self, name: str) -> Iterator[_Element]:
        """The elements in the first one of a name."""
        return iter(next((child.children for child in self.all(name)), ()))

    def is_true(self, *path: str, default: bool) -> bool:
        text = self.get(*path)
        return default if text is None else text in ("true", "1")


def parse(content: bytes) -> TaskFile:
    """The task of a file.

    Raises:
        ValueError: it is not XML, has a document type, is too deep or too large, or is not a task.
    """
    task = _tree(content)
    if task.name != "Task":
        raise ValueError(f"is not a task but {task.name!r}")
    principal = _principal(task)
    return TaskFile(
        name=task.get("RegistrationInfo", "URI"),
        schedule="; ".join(map(_trigger, task.below("Triggers"))),
        user=principal.get("UserId") or principal.get("GroupId"),
        command="; ".join(map(_action, task.below("Actions"))),
        enabled=task.is_true("Settings", "Enabled", default=True),
        elevated=principal.get("RunLevel") == "HighestAvailable",
    )


def _tree(content: bytes) -> _Element:
    parser = expat.ParserCreate(namespace_separator=_NAMESPACE_MARK)
    top = _Element("", {})
    open_elements = [top]
    left = _ELEMENT_LIMIT

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal left
        left -= 1
        if left < 0 or len(open_elements) > _DEPTH_LIMIT:
            raise ValueError("too many elements, or nested too deeply")
        element = _Element(name.rpartition(_NAMESPACE_MARK)[2], attributes)
        open_elements[-1].children.append(element)
        open_elements.append(element)

    def text(data: str) -> None:
        open_elements[-1].text += data

    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _: open_elements.pop()
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = _refuse
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, LookupError) as error:  # the latter: an encoding that is unknown
        raise ValueError(f"is not XML: {error}") from error
    return top.children[0]


def _refuse(*_: object) -> None:
    raise ValueError("has a document type")


def _principal(task: _Element) -> _Element:
    """The principal that the actions name, else the first one."""
    context = next((actions.attributes.get("Context") for actions in task.all("Actions")), None)
    principals = list(task.below("Principals"))
    named = (item for item in principals if context and item.attributes.get("id") == context)
    return next(named, principals[0] if principals else _Element("Principal", {}))


def _action(action: _Element) -> str:
    if action.name == "Exec":
        return _joined(action.get("Command"), action.get("Arguments"))
    if action.name == "ComHandler":
        return _joined(f"com:{action.get('ClassId') or ''}", action.get("Data"))
    if action.name == "SendEmail":
        return _joined("mail to", action.get("To"))
    return _joined("message", action.get("Title")) if action.name == "ShowMessage" else action.name


def _joined(*words: str | None) -> str:
    return " ".join(word for word in words if word)


# -- Triggers.


def _trigger(trigger: _Element) -> str:
    words = [_WORDS.get(trigger.name, _unknown)(trigger)]
    if delay := trigger.get("Delay") or trigger.get("RandomDelay"):
        words.append(f"delayed by {delay}")
    if interval := trigger.get("Repetition", "Interval"):
        duration = trigger.get("Repetition", "Duration")
        words.append(f"repeated every {interval}" + (f" for {duration}" if duration else ""))
    if end := trigger.get("EndBoundary"):
        words.append(f"until {end}")
    if not trigger.is_true("Enabled", default=True):
        words.append("(disabled)")
    return " ".join(words)


def _unknown(trigger: _Element) -> str:
    return trigger.name


def _once(trigger: _Element) -> str:
    return _joined("once", _from(trigger, "at"))


def _from(trigger: _Element, word: str = "from") -> str | None:
    start = trigger.get("StartBoundary")
    return start and f"{word} {start}"


def _calendar(trigger: _Element) -> str:
    start = _from(trigger)
    for kind in trigger.children:
        if kind.name == "ScheduleByDay":
            return _joined(f"every {kind.get('DaysInterval') or 1} days", start)
        if kind.name == "ScheduleByWeek":
            every = f"every {kind.get('WeeksInterval') or 1} weeks on {_names(kind, 'DaysOfWeek')}"
            return _joined(every, start)
        if kind.name == "ScheduleByMonth":
            days = ", ".join(day.text for day in kind.below("DaysOfMonth"))
            return _joined(f"days {days} of {_names(kind, 'Months')}", start)
        if kind.name == "ScheduleByMonthDayOfWeek":
            weeks = ", ".join(week.text for week in kind.below("Weeks"))
            days = _names(kind, "DaysOfWeek")
            return _joined(f"weeks {weeks}, {days} of {_names(kind, 'Months')}", start)
    return _joined("calendar", start)


def _names(kind: _Element, name: str) -> str:
    """Names of empty elements, such as days; none stand for all of them."""
    return ", ".join(item.name for item in kind.below(name)) or f"all {name}"


def _boot(_: _Element) -> str:
    return "at boot"


def _logon(trigger: _Element) -> str:
    user = trigger.get("UserId")
    return f"at logon of {user}" if user else "at logon"


def _idle(_: _Element) -> str:
    return "when idle"


def _registration(_: _Element) -> str:
    return "when registered"


def _event(trigger: _Element) -> str:
    return _joined("on event", " ".join((trigger.get("Subscription") or "").split()))


def _session(trigger: _Element) -> str:
    user = trigger.get("UserId")
    return _joined("on", trigger.get("StateChange"), user and f"of {user}")


def _state(trigger: _Element) -> str:
    return _joined("on state", trigger.get("StateName"))


_WORDS: dict[str, Callable[[_Element], str]] = {
    "TimeTrigger": _once,
    "CalendarTrigger": _calendar,
    "BootTrigger": _boot,
    "LogonTrigger": _logon,
    "IdleTrigger": _idle,
    "RegistrationTrigger": _registration,
    "EventTrigger": _event,
    "SessionStateChangeTrigger": _session,
    "WnfStateChangeTrigger": _state,
}
