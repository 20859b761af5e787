from __future__ import annotations

import base64
import dataclasses
import itertools
import json
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetscan.reports.charts import draw_charts
from fleetscan.reports.html import fields, guest, link, render_html
from tests.reports.report_fleet import (
    GENERATED,
    NASTY,
    Fleet,
    RuleStub,
    machine,
    rich_fleet,
    small_fleet,
)

VOID = {"meta", "link", "img", "source", "br"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str | None]
    children: list[Element | str] = field(default_factory=list)

    def walk(self) -> list[Element]:
        below = [child for child in self.children if isinstance(child, Element)]
        return [self, *(found for child in below for found in child.walk())]

    def find(self, tag: str = "", **attributes: str) -> list[Element]:
        """Elements below with a tag and attributes; ``class_`` asks for one of its classes."""
        return [item for item in self.walk()[1:] if item.matches(tag, attributes)]

    def matches(self, tag: str, wanted: dict[str, str]) -> bool:
        if tag and self.tag != tag:
            return False
        for name, value in wanted.items():
            if name == "class_":
                if value not in (self.attributes.get("class") or "").split():
                    return False
            elif self.attributes.get(name) != value:
                return False
        return True

    @property
    def text(self) -> str:
        parts = [item if isinstance(item, str) else item.text for item in self.children]
        return " ".join("".join(parts).split())


class Tree(HTMLParser):
    """Builds elements, and holds that every one is closed in its turn."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.root = Element("", {})
        self.open = [self.root]
        self.feed(page)
        self.close()
        assert self.open == [self.root], f"left open: {[item.tag for item in self.open]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"repeated attribute in <{tag}>"
        item = Element(tag, dict(attrs))
        self.open[-1].children.append(item)
        if tag not in VOID:
            self.open.append(item)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def html_of(fleet: Fleet, *, checked: bool = True) -> str:
    results = fleet.results_table() if checked else None
    return "".join(render_html(fleet.connect(), results, rules=fleet.rules, generated=GENERATED))


@pytest.fixture(scope="module")
def small() -> Element:
    return Tree(html_of(small_fleet())).root


@pytest.fixture(scope="module")
def rich_html() -> str:
    return html_of(rich_fleet())


@pytest.fixture(scope="module")
def rich(rich_html: str) -> Element:
    return Tree(rich_html).root


def cells(part: Element) -> list[list[str]]:
    """Texts of the cells of all rows of all tables, heads left out."""
    rows = [row for body in part.find("tbody") for row in body.find("tr")]
    return [[cell.text for cell in row.children if isinstance(cell, Element)] for row in rows]


def section(page: Element, name: str) -> Element:
    return page.find("section", id=name)[0]


def test_sections_come_in_the_order_an_auditor_reads(rich: Element) -> None:
    ids = [
        item.attributes["id"] for item in rich.find("main")[0].children if isinstance(item, Element)
    ]
    assert ids == [
        "summary",
        "findings",
        "machines",
        "coverage",
        "filesystems",
        "inventory",
        "waivers",
    ]


def test_page_has_language_landmarks_and_one_main_heading(rich: Element) -> None:
    assert rich.find("html")[0].attributes["lang"] == "en"
    assert [len(rich.find(tag)) for tag in ("main", "nav", "footer", "h1")] == [1, 1, 1, 1]
    assert all(table.find("th", scope="col") for table in rich.find("table"))
    assert all(image.attributes.get("alt") for image in rich.find("img"))


def test_headings_leave_out_no_level(rich: Element) -> None:
    levels = [int(item.tag[1]) for item in rich.walk() if re.fullmatch("h[1-6]", item.tag)]
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels)), levels


def test_ids_are_unique_and_links_within_the_page_lead_somewhere(rich: Element) -> None:
    ids = [item.attributes["id"] for item in rich.walk() if "id" in item.attributes]
    assert len(ids) == len(set(ids))
    targets = [item.attributes["href"] or "" for item in rich.find("a")]
    assert {target[1:] for target in targets if target.startswith("#")} <= set(ids)


def test_policy_forbids_everything_but_inline_style_and_data_images(rich: Element) -> None:
    policy = rich.find("meta", **{"http-equiv": "Content-Security-Policy"})[0]
    directives = dict(
        part.strip().split(" ", 1) for part in (policy.attributes["content"] or "").split(";")
    )
    assert directives == {
        "default-src": "'none'",
        "style-src": "'unsafe-inline'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def test_page_has_no_script_no_handler_and_nothing_to_load(rich: Element) -> None:
    loading = {"script", "iframe", "object", "embed", "form", "svg", "base", "video", "audio"}
    assert not [item.tag for item in rich.walk() if item.tag in loading]
    for item in rich.walk():
        assert not [name for name in item.attributes if name.startswith("on")]
        for name in ("src", "srcset"):
            assert (item.attributes.get(name) or "data:").startswith("data:")
    assert [item.attributes["href"] for item in rich.find("link")] == ["data:,"]
    styles = "".join(item.text for item in rich.find("style"))
    assert "url(" not in styles
    assert "@import" not in styles


def test_links_out_of_the_page_are_the_rules_references_alone(rich: Element) -> None:
    outward = {
        item.attributes["href"]
        for item in rich.find("a")
        if not (item.attributes["href"] or "").startswith("#")
    }
    assert outward == {"https://example.org/rules"}


def test_hostile_guest_strings_are_text_and_nothing_else(rich: Element) -> None:
    names = [row.find("th")[0].text for row in section(rich, "machines").find("tr")[1:]]
    assert any(name.startswith("<script>alert(1)</script>") for name in names)
    assert any(name.startswith("\"'><img src=x onerror=alert(1)>") for name in names)
    assert any(name.startswith("{{ 7*7 }}{% raw %}") for name in names)
    assert any(name.startswith(r"\x1b[2J\x1b[31mred\x07") for name in names)
    assert any(name.startswith(r"evil\u202egpj.exe\u2066") for name in names)


def test_no_control_or_bidi_character_is_left_in_the_page(rich_html: str) -> None:
    odd = {char for char in rich_html if not char.isprintable()} - {"\n"}
    assert odd == set()


def test_share_passed_stands_with_its_denominator_and_what_is_not_in_it(small: Element) -> None:
    tiles = {tile.find("h3")[0].text: tile.text for tile in small.find(class_="tile")}
    assert "57.1 %" in tiles["Checks passed"]
    assert "4 of 7 checks with a verdict; 2 failed, 1 waived" in tiles["Checks passed"]
    assert "36.4 %" in tiles["Without a verdict"]
    assert "4 of 11 checks due" in tiles["Without a verdict"]
    assert "3 error, 1 unknown, 0 not checked" in tiles["Without a verdict"]
    assert "1 machine without any verdict" in tiles["Without a verdict"]


def test_machines_without_a_system_are_said_never_to_be_compliant(small: Element) -> None:
    tiles = {tile.find("h3")[0].text: tile.text for tile in small.find(class_="tile")}
    assert "2 scanned in full 1 scanned in part 1 failed" in tiles["Machines"]
    assert "None on 1 machine: an error under every rule" in tiles["Operating systems"]


def test_a_rule_shows_its_states_in_words_and_opens_to_its_evidence(small: Element) -> None:
    rule = section(small, "critical").find("details", class_="rule")[0]
    assert [item.text for item in rule.find("summary")[0].find(class_="state")] == [
        "1 failed",
        "1 error",
        "2 passed",
    ]
    assert "1 of 4 machines affected" in rule.find("summary")[0].text
    body = rule.find(class_="body")[0].text
    assert "Hashes can be cracked offline." in body
    assert "chmod 640 /etc/shadow" in body
    assert "path /etc/shadow mode 438" in body
    assert "and 2 more" in body
    assert "Its waiver" not in body


def test_an_expired_waiver_is_shown_where_its_rule_fails(small: Element) -> None:
    assert "Its waiver ended on 2026-02-01: decommissioned in May" in section(small, "low").text
    rows = cells(section(small, "waivers"))
    assert rows[0][3:] == ["2026-06-01", "1", "0", "1"]
    assert rows[1][3:] == ["2026-02-01", "0", "1", "1"]


def test_failures_are_listed_with_stage_and_error(small: Element) -> None:
    words = section(small, "coverage").text
    assert "1 failed machine 1 at discover: NoRoot" in words
    rows = cells(section(small, "coverage"))
    assert ["d", "discover", "no operating system found on 1 disk", "NoRoot"] in rows
    assert ["packages", "database locked", "1", "1", "c"] in rows


def test_images_that_are_no_machines_are_listed_with_those_they_belong_to(small: Element) -> None:
    rows = cells(section(small, "coverage"))
    assert ["/srv/golden.img", "base of 3 machines", "3", "1", "a"] in rows


def test_filesystems_show_share_and_human_units(small: Element) -> None:
    first = section(small, "filesystems").find("tr")[1]
    assert "95.0 %" in first.text
    assert "95.0 GiB" in first.text
    assert first.find(class_="bar")[0].find("span")[0].attributes["style"] == "width:95.0%"


def test_an_unchecked_run_says_so_and_shows_the_rest() -> None:
    page = Tree(html_of(small_fleet(), checked=False)).root
    assert "No rule has been evaluated on this run" in section(page, "findings").text
    assert "says nothing about compliance" in section(page, "summary").text
    assert "Checks passed" not in page.text
    assert len(section(page, "machines").find("tr")) == 5
    assert "95.0 %" in section(page, "filesystems").text


def test_an_empty_run_is_a_whole_page() -> None:
    page = Tree(html_of(Fleet(), checked=False)).root
    assert "The run holds no machine." in section(page, "machines").text


def test_a_large_fleet_makes_a_page_below_five_megabytes_that_tells_totals() -> None:
    fleet = rich_fleet(2_500)
    page = html_of(fleet)
    words = section(Tree(page).root, "machines").text
    assert "300 of 2,500 machines" in words
    # Every list is at its limit here, so a larger fleet makes no larger page.
    assert len(page.encode()) < 5_000_000


def test_chart_images_hold_guest_text_as_text(rich: Element) -> None:
    pictures = [
        item.attributes.get("src") or item.attributes.get("srcset") or ""
        for item in rich.find("img") + rich.find("source")
    ]
    assert len(pictures) == 16
    drawings = [base64.b64decode(uri.partition(",")[2]).decode() for uri in pictures]
    assert any("&lt;script&gt;alert(1)&lt;/script&gt;" in svg for svg in drawings)
    for svg in drawings:
        assert set(re.findall(r"<([a-zA-Z]+)", svg)) <= {
            "svg",
            "g",
            "path",
            "text",
            "rect",
            "defs",
            "clipPath",
            "line",
        }
        assert "href" not in svg


def test_charts_survive_every_hostile_name() -> None:
    from fleetscan.reports.compose import build_report
    from fleetscan.reports.report_database import attached

    fleet = rich_fleet(1)
    with attached(fleet.connect(), None) as db:
        report = build_report(db, checked=False, generated=GENERATED)
    template = report.filesystems.rows[0]
    rows = tuple(
        dataclasses.replace(template, machine_id=name, mountpoints=(name,)) for name in NASTY[-8:]
    )
    top = dataclasses.replace(report.filesystems, rows=rows)
    charts = draw_charts(dataclasses.replace(report, filesystems=top))
    assert set(charts) == {"outcomes", "systems", "filesystems"}


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=80))
def test_guest_text_in_html_parses_back_to_one_isolated_line(value: str) -> None:
    (element,) = Tree(str(guest(value, 10_000))).root.children
    assert isinstance(element, Element)
    assert element.tag == "bdi"
    assert {item.tag for item in element.walk()} <= {"bdi", "i"}


def test_evidence_that_is_not_an_object_is_shown_as_it_is() -> None:
    for line in ("[1, 2]", '{"path": "/etc', "", "[" * 100_000):
        assert [(item.name, item.value, item.limit) for item in fields(line)] == [("", line, 300)]


def test_evidence_leaves_out_nulls_and_what_names_the_machine() -> None:
    line = '{"machine_id": "a", "root": "/", "path": "/x", "gid": null, "mode": 7, "set": true}'
    assert [(item.name, item.value) for item in fields(line)] == [
        ("path", "/x"),
        ("mode", "7"),
        ("set", "true"),
    ]


def test_a_row_of_evidence_has_a_limit_as_a_whole() -> None:
    line = json.dumps({f"column{number}": "x" * 250 for number in range(50)})
    assert [item.limit for item in fields(line)] == [200, 43]


def test_hostile_evidence_cannot_make_the_file_large() -> None:
    fleet = Fleet()
    evil = json.dumps({"path": "&\u202e'<" * 40, "more": "'\x1b" * 60}, ensure_ascii=False)
    for number in range(40):
        machine(fleet, f"vm{number}")
    for rule in range(80):
        for number in range(25):
            fleet.result(f"vm{number}", f"rule-{rule}", "high", "fail", evidence=[evil] * 4)
    assert len(html_of(fleet).encode()) < 5_000_000


def test_only_web_addresses_become_links() -> None:
    assert str(link("javascript:alert(1)")) == "javascript:alert(1)"
    assert 'href="https://a.example/?a=1&amp;b=%22"' in str(link("https://a.example/?a=1&b=%22"))
    assert "<" not in str(link('https://"><script>')).replace("<a ", "").replace("</a>", "")


@pytest.mark.parametrize(("state", "shown"), [("fail", "Telnet is open"), ("pass", "No telnet")])
def test_a_rule_says_what_is_wrong_where_it_fails_and_what_must_hold_elsewhere(
    state: str, shown: str
) -> None:
    fleet = Fleet(rules=[RuleStub("telnet", "No telnet", "high", failing="Telnet is open")])
    machine(fleet, "web")
    fleet.result("web", "telnet", "high", state)
    (title,) = Tree(html_of(fleet)).root.find("span", class_="title")
    assert title.text == shown
