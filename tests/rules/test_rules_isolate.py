"""One machine's rows against the verdicts on its neighbours."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
import pytest

from fleetscan.appliance.host import child
from fleetscan.rules import case_facts, isolate
from fleetscan.rules.evaluate import evaluate_run
from fleetscan.rules.judge import Judge, RuleError, RuleLimits
from fleetscan.rules.judging_process import JudgingProcess
from fleetscan.rules.model import Config, Rule
from fleetscan.rules.query import rule_query
from fleetscan.rules.results import Results
from fleetscan.scanner.store.arrow import rows_to_arrow
from fleetscan.scanner.store.runs import Store
from fleetscan.scanner.tables import load_tables
from fleetscan.scanner.tables.coverage.spec import Coverage, CoverageStatus
from fleetscan.scanner.tables.users.spec import User
from tests.rules.rule_builder import NOW, Facts, Rows, make_pack, make_rule, run
from tests.scanner.store.making import ROOT, machine_rows

HONEST = [f"honest-{number:02}" for number in range(20)]
EVIL = "honest-09-evil"  # in the middle of the others
LARGEST = 2**64 - 1

OVERFLOWS = make_rule(
    violations="SELECT machine_id, used + available AS sum FROM filesystems WHERE used > available"
)


def filesystem(machine: str, used: int, available: int) -> dict[str, object]:
    """A filesystem's row."""
    return {"machine_id": machine, "device": "/dev/sda1", "used": used, "available": available}


def fleet(*evil: str) -> Facts:
    """Honest machines, of which every second one fails, and others that overflow."""
    rows = [filesystem(name, number % 2, 0) for number, name in enumerate(HONEST)]
    rows += [filesystem(name, LARGEST, LARGEST - 1) for name in evil]
    systems = [{"machine_id": row["machine_id"], "root": "/dev/sda1"} for row in rows]
    return {"filesystems": rows, "operating_systems": systems}


def honest(rows: Rows) -> Rows:
    """The rows of machines that have nothing to hide."""
    return [row for row in rows if row["machine_id"] in HONEST]


def test_an_overflow_is_the_error_of_the_machine_that_caused_it() -> None:
    alone, beside = run(OVERFLOWS, given=fleet()), run(OVERFLOWS, given=fleet(EVIL))

    assert honest(beside) == alone
    assert {row["state"] for row in alone} == {"pass", "fail"}
    [other] = [row for row in beside if row["machine_id"] == EVIL]
    assert (other["state"], other["violations"]) == ("error", 0)
    assert "Overflow" in other["message"]


@pytest.mark.parametrize("count", [2, 20])
def test_several_machines_cause_no_more_than_their_own_errors(count: int) -> None:
    evil = [f"{HONEST[number % 20]}-{number}" for number in range(count)]

    beside = run(OVERFLOWS, given=fleet(*evil))

    assert honest(beside) == run(OVERFLOWS, given=fleet())
    assert {row["state"] for row in beside if row["machine_id"] in evil} == {"error"}


def test_a_rule_that_compares_machines_goes_on_without_those_it_fails_over() -> None:
    sql = """
        SELECT machine_id, used + available AS sum FROM filesystems
        WHERE used IN (SELECT used FROM filesystems GROUP BY used HAVING sum(used + available) > 9)
    """
    rule = make_rule(violations=sql, fleet=True)

    beside = run(rule, given=fleet(EVIL))

    [other] = [row for row in beside if row["machine_id"] == EVIL]
    assert other["state"] == "error"
    assert [row["state"] for row in honest(beside)] == [
        "fail" if n % 2 else "pass" for n in range(20)
    ]
    messages = {row["message"] for row in honest(beside) if row["state"] == "pass"}
    assert messages == {"machines that could not be read and were not compared: 1"}


class Broken:
    """Judges nothing, and counts how often it was asked."""

    def __init__(self, machines: int) -> None:
        self.names = [f"{number:05}" for number in range(machines)]
        self.asked = 0
        self.told: list[Any] = []

    def machines(self) -> list[str]:
        return self.names

    def judge(self, rule: Any, seconds: float, machines: Any = None) -> Any:
        self.asked += 1
        raise RuleError("no")

    def state(self, rule: Any, state: str, message: str | None, machines: Any) -> Any:
        self.told += machines
        return None


def test_a_rule_that_fails_everywhere_is_given_up_soon() -> None:
    broken = Broken(10_000)
    query: Any = dataclasses.make_dataclass("Query", [("rule_id", str), ("fleet", bool)])

    isolate.Isolation(broken, 1).states(query("a", False))

    assert broken.asked < 200
    assert sorted(broken.told) == broken.names


class Infested(Broken):
    """Fails over every part of the fleet that holds a hostile machine, as nearly all do."""

    def judge(self, rule: Any, seconds: float, machines: Any = None) -> Any:
        self.asked += 1
        if machines is None or any(int(name) % 4 == 0 for name in machines):
            raise RuleError("no")
        return list(machines)


def test_hostile_machines_in_every_part_of_the_fleet_cost_their_own_verdicts_alone() -> None:
    infested = Infested(1200)
    query: Any = dataclasses.make_dataclass("Query", [("rule_id", str), ("fleet", bool)])

    found: list[Any] = isolate.Isolation(infested, 60).states(query("a", False))

    honest_ones = sorted(name for part in found if part for name in part)
    assert honest_ones == [name for name in infested.names if int(name) % 4]
    assert sorted(infested.told) == [name for name in infested.names if int(name) % 4 == 0]


class Clock:
    """A clock that goes on when somebody works."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


class Slow(Broken):
    """Takes all the time it is given where a machine is slow; little elsewhere."""

    def __init__(self, machines: int, slow: Mapping[str, Collection[str]], clock: Clock) -> None:
        super().__init__(machines)
        self.slow = slow
        self.clock = clock

    def judge(self, rule: Any, seconds: float, machines: Any = None) -> Any:
        self.asked += 1
        some = self.names if machines is None else machines
        if any(rule.rule_id in self.slow.get(name, ()) for name in some):
            self.clock.now += seconds
            raise RuleError("too slow")
        self.clock.now += 0.1
        return list(some)


MANY = [f"rule-{number}" for number in range(100)]


def all_states(slow: Slow, *, fleet: bool = False) -> dict[str, tuple[list[str], list[str]]]:
    """The machines that get a verdict from each of many rules, and those that get an error."""
    query: Any = dataclasses.make_dataclass("Query", [("rule_id", str), ("fleet", bool)])
    isolation = isolate.Isolation(slow, 120)
    found = {}
    for rule_id in MANY:
        slow.told = []
        states: list[Any] = isolation.states(query(rule_id, fleet))
        judged = sorted(name for part in states if part for name in part)
        assert sorted([*judged, *slow.told]) == slow.names
        found[rule_id] = (judged, slow.told)
    return found


@pytest.mark.parametrize("fleet", [False, True])
@pytest.mark.parametrize("liars", [["00500"], ["00001", "00500", "00999"]])
def test_machines_that_make_every_rule_slow_cost_a_bounded_time(
    liars: list[str], fleet: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(isolate, "time", clock)

    found = all_states(Slow(1000, dict.fromkeys(liars, MANY), clock), fleet=fleet)

    assert all(sorted(failed) == liars for _, failed in found.values())
    assert clock.now < 120 + 8 * 120 * len(liars) + len(MANY)  # at worst a search for each of them


def test_a_slow_machine_gets_verdicts_where_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(isolate, "time", clock)

    found = all_states(Slow(1000, {"00500": MANY[:2], "00501": MANY[:50]}, clock))

    assert [rule for rule, (_, failed) in found.items() if "00500" in failed] == MANY[:2]
    assert [rule for rule, (_, failed) in found.items() if "00501" in failed] == MANY


def test_many_machines_that_take_turns_cannot_hold_a_check_up_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(isolate, "time", clock)
    turns = {f"{number * 10:05}": [rule] for number, rule in enumerate(MANY)}

    all_states(Slow(1000, turns, clock))

    assert clock.now < (len(MANY) + 30 + 10) * 120


# -- Stored runs, in a process of the rules' own --------------------------------------------------


def write_users(folder: Path, users: dict[str, Iterable[User]]) -> str:
    """A run of machines that have users and nothing else."""
    run = Store(folder).begin(sorted(users), settings={}, batch_size=8)
    for machine_id, rows in users.items():
        seen = Coverage(
            root=ROOT,
            table_name="users",
            status=CoverageStatus.OK,
            rows=1,
            seconds=0.1,
            error=None,
            unread=None,
        )
        with run.machine_writer(machine_id) as writer:
            writer.write("machines", machine_rows(machine_id, run.run_id))
            for row in rows:
                table = rows_to_arrow(
                    load_tables()["users"], [row], machine_id=machine_id, root=ROOT
                )
                writer.write("users", table)
            table = rows_to_arrow(load_tables()["coverage"], [seen], machine_id=machine_id)
            writer.write("coverage", table)
            writer.commit({})
    return run.finish().run_id


def user(name: str, uid: int = 0) -> User:
    """An account of which nothing else is known."""
    [row] = case_facts.complete({"users": [{"name": name, "uid": uid}]})["users"]
    own = [column.name for column in load_tables()["users"].columns]
    return User(**{**{column: row[column] for column in own}, "flags": ()})


def long_names(count: int) -> Iterator[User]:
    """Accounts whose names are as long as a text may be."""
    for number in range(count):
        yield user(f"{number:x}".rjust(1 << 20, "x"))


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs: honest machines alone, and beside one whose texts are long and numbers large."""
    folder = tmp_path_factory.mktemp("stored")
    users: dict[str, Iterable[User]] = {name: [user("root")] for name in HONEST}
    write_users(folder / "alone", users)
    users[EVIL] = [*long_names(48), user("loops", 2**32 - 1)]
    write_users(folder / "beside", users)
    return folder


def judged(folder: Path, rules: list[Rule], limits: RuleLimits) -> Results:
    """What rules say of the run."""
    run_id = Store(folder).latest().run_id
    with JudgingProcess(limits) as process:
        return evaluate_run(process, folder, run_id, [make_pack(*rules)], now=NOW)


FINE = make_rule("b-rule", violations="SELECT machine_id, root FROM users WHERE uid = 0")
GREEDY = """
    SELECT u.machine_id, u.root, string_agg(u.name || v.name) AS names
    FROM users u JOIN users v USING (machine_id, root) GROUP BY ALL
"""
ENDLESS = """
    SELECT u.machine_id, u.root FROM users u, range(uid) a, range(uid) b
    WHERE a.range + b.range = -1
"""
DEADLY = "SELECT machine_id, root, length(repeat('x', uid)) AS n FROM users"


@pytest.mark.parametrize(
    ("sql", "limits", "hard"),
    [
        pytest.param(GREEDY, RuleLimits(memory="512MiB"), 2 << 30, id="soft limit"),
        pytest.param(GREEDY, RuleLimits(memory="64GiB"), 1 << 30, id="hard limit"),
        pytest.param(DEADLY, RuleLimits(memory="64GiB"), 1 << 30, id="one value"),
        pytest.param(ENDLESS, RuleLimits(seconds=1), 2 << 30, id="time"),
    ],
)
def test_what_exhausts_the_process_costs_one_machine_one_verdict(
    sql: str, limits: RuleLimits, hard: int, stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "MEMORY", hard)
    rules = [make_rule("a-rule", violations=sql), FINE]

    alone = judged(stored / "alone", rules, limits).table.drop(["run_id"]).to_pylist()
    beside = judged(stored / "beside", rules, limits).table.drop(["run_id"]).to_pylist()

    assert honest(beside) == alone
    assert {row["state"] for row in alone} <= {"pass", "fail"}
    states = {row["rule_id"]: row["state"] for row in beside if row["machine_id"] == EVIL}
    assert states == {"a-rule": "error", "b-rule": "fail"}


def test_a_machine_that_makes_every_rule_slow_costs_the_others_little(stored: Path) -> None:
    rules = [make_rule(f"rule-{number:02}", violations=ENDLESS) for number in range(20)]
    begun = time.monotonic()

    beside = judged(stored / "beside", [*rules, FINE], RuleLimits(seconds=1)).table.to_pylist()

    assert time.monotonic() - begun < 40  # a search takes 3 s, and 20 of them more than a minute
    assert {row["state"] for row in honest(beside)} == {"pass", "fail"}
    states = [row["state"] for row in beside if row["machine_id"] == EVIL]
    assert states[:20] == ["error"] * 20


class Watched:
    """A connection that notes whether it may be interrupted at each statement."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, timers: list[threading.Timer]
    ) -> None:
        self._connection = connection
        self._timers = timers
        self.at_risk: list[str] = []

    def execute(self, sql: str, *values: object) -> Any:  # Any: as DuckDB's own
        if any(timer.is_alive() for timer in self._timers):
            self.at_risk.append(sql)
        return self._connection.execute(sql, *values)

    def interrupt(self) -> None:
        self._connection.interrupt()


def test_no_interruption_comes_while_a_part_is_shown_and_hidden(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timers: list[threading.Timer] = []

    class Timer(threading.Timer):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            timers.append(self)

    monkeypatch.setattr("fleetscan.rules.judge.threading.Timer", Timer)
    pack = make_pack(OVERFLOWS)
    rule = rule_query(pack, OVERFLOWS, Config(), NOW)
    with case_facts.connect(fleet()) as connection:
        watched: Any = Watched(connection, timers)  # all of a connection that a judge uses
        with Judge(watched, rule.tables, "1GiB") as judge:
            for _ in range(2):
                assert judge.judge(rule, 60, HONEST[:3]).num_rows == 3
    assert len(timers) == 2
    assert watched.at_risk  # the rule's own statements
    assert not [
        sql for sql in watched.at_risk if "VIEW" in sql or "_shard;" in sql or "DELETE" in sql
    ]
