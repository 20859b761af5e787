"""Packages of languages: where they are looked for, archives, programs, hostile input."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import struct
import sysconfig
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetscan.appliance.ground.options import FactOptions, PackagesMode
from fleetscan.appliance.ground.schema import IncompleteError
from fleetscan.appliance.guest.readers.reading import Reader
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.packages import language
from fleetscan.scanner.tables.packages.languages import golang, java, node, python, ruby
from fleetscan.scanner.tables.packages.spec import Package
from tests.strategies import guest_texts


def found(top: Path, mode: PackagesMode) -> tuple[list[Package], list[str]]:
    with Root("r", str(top), options=FactOptions(packages=mode)) as root:
        reader = Reader(root)
        rows = list(language.collect(reader))
        return rows, problems_of(reader)


def problems_of(reader: Reader) -> list[str]:
    try:
        reader.finish()
    except IncompleteError as error:
        return str(error).split("; ")
    return []


def archive(members: dict[str, str | bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as stream:
        for name, content in members.items():
            stream.writestr(name, content)
    return buffer.getvalue()


def pom(group: str, artifact: str, version: str) -> dict[str, str | bytes]:
    text = f"#Created by Maven\ngroupId={group}\nartifactId={artifact}\nversion={version}\n"
    return {f"META-INF/maven/{group}/{artifact}/pom.properties": text}


def program(modules: str, version: str = "go1.22.1") -> bytes:
    """A program's ELF header and a data segment with build information, as the Go linker has it."""
    strings = b"".join(
        _counted(text) for text in (version.encode(), b"0" * 16 + modules.encode() + b"1" * 16)
    )
    data = b"\xff Go buildinf:\x08\x02".ljust(32, b"\0") + strings
    ident = b"\x7fELF\2\1\1" + bytes(9)
    header = ident + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 6, 4096, 0, 0, len(data), len(data), 4096)
    return (header + segment).ljust(4096, b"\0") + data + bytes(300_000)


def old_program(modules: str, *, wide: bool, order: str) -> bytes:
    """As :func:`program`, as linkers before Go 1.18 have it: pointers to strings, and those apart.

    Args:
        modules: the list of modules.
        wide: whether it is a program of 64 bits.
        order: of its bytes, as struct has it.
    """
    word, size, base = ("Q", 8, 0x400000) if wide else ("I", 4, 0x8000)
    texts = [b"go1.16.4", b"0" * 16 + modules.encode() + b"1" * 16]
    data = bytearray(b"\xff Go buildinf:" + bytes([size, order == ">"]))
    places = [4096 + 64, 4096 + 64 + 2 * size]  # of the strings' own pointers and lengths
    data += struct.pack(f"{order}2{word}", *(base + place for place in places))
    data = data.ljust(64, b"\0")
    place = 4096 + 64 + 4 * size
    for text in texts:
        data += struct.pack(f"{order}2{word}", base + place, len(text))
        place += len(text)
    data += b"".join(texts)
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1 if order == "<" else 2, 1]) + bytes(9)
    first, length = (64, 56) if wide else (52, 32)
    header = ident + struct.pack(
        f"{order}HHI3{word}I6H", 2, 62, 1, 0, first, 0, 0, first, length, 1, 0, 0, 0
    )
    place, size = 4096, len(data)
    segment = (
        struct.pack(f"{order}IIQQQQQQ", 1, 6, place, base + place, 0, size, size, 4096)
        if wide
        else struct.pack(f"{order}IIIIIIII", 1, place, base + place, 0, size, size, 6, 4096)
    )
    return (header + segment).ljust(4096, b"\0") + data + bytes(300_000)


def _counted(text: bytes) -> bytes:
    length, out = len(text), b""
    while length >= 0x80:
        out, length = out + bytes([length & 0x7F | 0x80]), length >> 7
    return out + bytes([length]) + text


MODULES = (
    "path\texample.org/tool/cmd\n"
    "mod\texample.org/Tool\t(devel)\t\n"
    "dep\tgolang.org/x/net\tv0.20.0\th1:abc=\n"
    "dep\tgithub.com/old/lib\tv1.0.0\n"
    "=>\tgithub.com/new/lib\tv1.0.1\th1:def=\n"
    "build\t-compiler=gc\n"
)


def test_python_distributions_are_those_that_importlib_finds(tmp_path: Path) -> None:
    site = sysconfig.get_path("purelib")
    (tmp_path / "usr/lib/python3").mkdir(parents=True)
    expected = set()
    for one in importlib.metadata.distributions(path=[site]):
        folder = Path(str(one.locate_file(""))).joinpath(f"{one.name}").name
        metadata = one.read_text("METADATA")
        if metadata:
            target = tmp_path / f"usr/lib/python3/site-packages/{folder}-x.dist-info/METADATA"
            target.parent.mkdir(parents=True)
            target.write_text(metadata)
            expected.add((one.name, one.version))
    rows, problems = found(tmp_path, "known")
    assert {(row.name, row.version) for row in rows} == expected
    assert len(expected) > 20
    assert problems == []


def test_other_places_are_looked_into_on_demand(tmp_path: Path) -> None:
    site = tmp_path / "opt/venv/lib/python3.11/site-packages/pkg-1.dist-info"
    site.mkdir(parents=True)
    (site / "METADATA").write_text("Name: pkg\nVersion: 1\n")
    modules = tmp_path / "srv/app/node_modules/@scope/thing"
    modules.mkdir(parents=True)
    (modules / "package.json").write_text('{"name": "@scope/thing", "version": "2.0.0"}')
    (tmp_path / "srv/app/package.json").write_text('{"name": "app", "version": "1.0.0"}')
    (tmp_path / "srv/link").symlink_to("app")
    (tmp_path / "srv/app.jar").write_bytes(archive(pom("org.example", "app", "3.1")))
    (tmp_path / "srv/tool").write_bytes(program(MODULES))
    (tmp_path / "srv/tool").chmod(0o755)
    assert found(tmp_path, "known") == ([], [])
    rows, problems = found(tmp_path, "all")
    assert sorted(row.purl for row in rows) == [
        "pkg:golang/example.org/tool",
        "pkg:golang/github.com/new/lib@v1.0.1",
        "pkg:golang/golang.org/x/net@v0.20.0",
        "pkg:golang/stdlib@1.22.1",
        "pkg:maven/org.example/app@3.1",
        "pkg:npm/%40scope/thing@2.0.0",
        "pkg:pypi/pkg@1",
    ]
    assert problems == []


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("order", ["<", ">"])
def test_programs_of_older_go_are_read(tmp_path: Path, wide: bool, order: str) -> None:
    (tmp_path / "tool").write_bytes(old_program(MODULES, wide=wide, order=order))
    (tmp_path / "tool").chmod(0o755)
    rows, problems = found(tmp_path, "all")
    assert [row.purl for row in rows] == [
        "pkg:golang/stdlib@1.16.4",
        "pkg:golang/example.org/tool",
        "pkg:golang/golang.org/x/net@v0.20.0",
        "pkg:golang/github.com/new/lib@v1.0.1",
    ]
    assert problems == []


def test_a_walk_ends_at_its_limit_and_says_so(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}").mkdir()
    with Root("r", str(tmp_path)) as root:
        reader = Reader(root)
        assert len(list(language.walk(reader, entries=3))) == 1
    assert problems_of(reader) == ["looking for packages ended early: too many directory entries"]


def test_archives_within_archives_are_looked_into(tmp_path: Path) -> None:
    library = archive(pom("org.example", "inner", "1.0"))
    merged = archive({**pom("a", "one", "1"), **pom("b", "two", "2"), "lib/inner.jar": library})
    rows = list(java.from_archive(io.BytesIO(merged), "/srv/app.war"))
    assert [(row.name, row.version, row.path) for row in rows] == [
        ("a:one", "1", "/srv/app.war"),
        ("b:two", "2", "/srv/app.war"),
        ("org.example:inner", "1.0", "/srv/app.war!/lib/inner.jar"),
    ]


def test_an_archive_without_coordinates_is_named_by_its_manifest_or_file() -> None:
    text = "Manifest-Version: 1.0\r\nBundle-SymbolicName: org.exam\r\n ple.x;a=b\r\n"
    row = java.from_manifest(f"{text}Bundle-Version: 4.2\r\n", "/x.jar")
    assert row
    assert (row.name, row.version) == ("org.example.x", "4.2")
    row = java.from_manifest("", "/lib/commons-io-2.11.0.jar")
    assert row
    assert (row.name, row.version) == ("commons-io", "2.11.0")
    assert java.from_manifest("", "/lib/nameless.jar") is None


def test_an_archive_that_unpacks_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(java, "_INNER_LIMIT", 1000)
    bomb = archive({"inner.jar": bytes(100_000)})
    with pytest.raises(ValueError, match="larger than 1000 bytes"):
        list(java.from_archive(io.BytesIO(bomb), "/bomb.jar"))


def test_an_archive_with_too_long_a_list_of_members_is_refused() -> None:
    content = bytearray(archive({"a": "b"}))
    struct.pack_into("<I", content, len(content) - 10, 1 << 30)
    with pytest.raises(ValueError, match="list of members is too long"):
        list(java.from_archive(io.BytesIO(bytes(content)), "/x.jar"))


def test_archives_within_each_other_end_at_a_depth() -> None:
    content = archive(pom("g", "deepest", "1"))
    for _ in range(9):
        content = archive({"x.jar": content})
    assert list(java.from_archive(io.BytesIO(content), "/x.jar")) == []


def test_an_archive_of_very_many_members_is_read() -> None:
    # More than 65,535 members need the list's 64-bit form.
    content = archive({**{f"{number}": "" for number in range(66_000)}, **pom("g", "large", "1")})
    assert b"PK\6\6" in content
    assert [row.name for row in java.from_archive(io.BytesIO(content), "/x.jar")] == ["g:large"]


def test_a_damaged_archive_within_another_costs_the_others_nothing() -> None:
    inner = archive(pom("g", "inner", "1"))
    content = archive({"a.jar": b"damaged", "b.jar": inner, **pom("g", "outer", "1")})
    names: list[str] = []
    with pytest.raises(ValueError, match=r"a\.jar: damaged archive"):
        names.extend(row.name for row in java.from_archive(io.BytesIO(content), "/x.jar"))
    assert names == ["g:outer", "g:inner"]


def test_what_is_unpacked_of_an_archive_is_bounded() -> None:
    inner = archive({"large": bytes(1000), **pom("g", "inner", "1")})
    content = archive({f"{number}.jar": inner for number in range(9)})
    rows = java.from_archive(
        io.BytesIO(content), "/x.jar", unpacking=java._Unpacking(len(inner) * 3)
    )
    names: list[str | None] = []
    with pytest.raises(ValueError, match="is larger than"):
        names.extend(row.path for row in rows)
    assert 0 < len(names) < 4


def test_build_information_is_aligned_by_its_address() -> None:
    data = bytes(8) + b"\xff Go buildinf:" + bytes(18)
    assert golang.find_magic(data, 0x400008) == 8
    assert golang.find_magic(data, 0x400000) is None


def test_damaged_packages_are_counted_and_cost_the_others_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.jar").write_bytes(b"PK\3\4 no archive")
    (tmp_path / "b.jar").write_bytes(archive(pom("g", "b", "1")))
    (tmp_path / "node_modules/c").mkdir(parents=True)
    (tmp_path / "node_modules/c/package.json").write_text("[" * 100_000)
    rows, problems = found(tmp_path, "all")
    assert [row.name for row in rows] == ["g:b"]
    assert [problem.partition(":")[0] for problem in problems] == [
        "/a.jar",
        "/node_modules/c/package.json",
    ]


@given(st.binary(max_size=300))
def test_any_bytes_are_an_archive_or_damaged(data: bytes) -> None:
    whole = archive({**pom("g", "a", "1"), "x.jar": data})
    for content in (data, whole[: len(data)] + whole[len(data) + 1 :], whole + data):
        with contextlib.suppress(ValueError):
            list(java.from_archive(io.BytesIO(content), "/x.jar"))


@given(st.binary(max_size=300))
def test_any_bytes_are_a_program_or_none(data: bytes) -> None:
    for head in (b"", b"\x7fELF\2\1" + bytes(58), b"\x7fELF\1\2" + bytes(58)):
        list(golang.segments(head + data))
    for flags in (b"\x08\x02", b"\x08\x00", b"\x04\x01"):
        content = b"\xff Go buildinf:" + flags + bytes(16) + data
        loaded = [golang.Segment(0, len(content), 0, 1 << 20, writable=True)]
        with contextlib.suppress(ValueError):
            list(golang.from_build_information(io.BytesIO(content), 0, loaded, "/x"))


@given(guest_texts(), guest_texts())
def test_any_text_is_a_package_or_damaged(one: str, other: str) -> None:
    for text in (one, f"Name: {one}\nVersion: {other}\n"):
        with contextlib.suppress(ValueError):
            python.from_metadata(text, "/x")
    for text in (one, f's.name = "{one}"\ns.version = "{other}"\ns.summary = "{other}"'):
        with contextlib.suppress(ValueError):
            ruby.from_specification(text, "/x")
    node.from_description({"name": one, "version": other, "license": 7, "author": [one]}, "/x")
    java.from_manifest(f"{one}: {other}\r\n {one}\nBundle-Version: {other}", f"/{one}.jar")
