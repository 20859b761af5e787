"""nftables' scripts: tables, chains, rules, includes.

Source: nft(8) of nftables 1.0.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from fleetscan.scanner.tables.firewall_rules.parsed_rule import Action, Direction, ParsedRule

_TOKEN = re.compile(r'#[^\n]*|\\\n|("[^"\n]*"|[\n;{}]|[^\s;{}"#]+)')
_FAMILIES = ("ip", "ip6", "inet", "arp", "bridge", "netdev")
_COMMANDS = ("add", "create", "insert", "replace")
_DIRECTIONS: dict[str, Direction] = {"input": "in", "output": "out", "forward": "forward"}
_VERDICTS: dict[str, Action] = {"accept": "allow", "drop": "deny", "reject": "reject"}
_ENDS = frozenset(
    ("jump", "goto", "return", "queue", "dnat", "snat", "masquerade", "redirect", "tproxy")
)
_OF_PROTOCOL = frozenset(("dport", "sport", "type", "code", "flags"))
_INTERFACES = frozenset(("iif", "iifname", "oif", "oifname"))
_WORD_LIMIT = 2000  # of one rule; a set's elements may be as many

Include = Callable[[str], Iterator[tuple[str, str]]]
"""Gives the files, and their texts, that an include's path or pattern means."""


@dataclass
class _Script:
    """What is known of a ruleset so far."""

    include: Include
    hooks: dict[str, Direction | None] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)


@dataclass
class _Block:
    """An open brace: of a table or chain by its name, or of what holds no rules."""

    kind: str
    name: str = ""
    hooked: bool = False
    policy: str = ""
    file: str = ""


def parse(path: str, text: str, include: Include) -> Iterator[tuple[str, ParsedRule]]:
    """Files and rules of a script, what it includes in its place.

    Args:
        path: the script.
        text: its content.
        include: opens other files; it bounds how many and how deep.
    """
    script = _Script(include)
    blocks: list[_Block] = []
    words: list[str] = []
    depth = 0  # of braces within a statement
    for file, piece in _tokens(path, text, script):
        if depth or (piece == "{" and not _opens(words, blocks)):
            depth += (piece == "{") - (piece == "}")
            if piece not in "\n;" and len(words) < _WORD_LIMIT:
                words.append(piece)
        elif piece == "{":
            blocks.append(_block(words, blocks, file))
            words = []
        elif piece in ("\n", ";", "}"):
            if words:
                yield from _statement(script, words, blocks, file)
            words = []
            if piece == "}" and blocks:
                yield from _closed(script, blocks.pop())
        elif len(words) < _WORD_LIMIT:
            words.append(piece)
    if words:
        yield from _statement(script, words, blocks, path)
    while blocks:
        yield from _closed(script, blocks.pop())


def _tokens(path: str, text: str, script: _Script) -> Iterator[tuple[str, str]]:
    """Pieces with their files; those of included files where the include stands."""
    before = "\n"
    for match in _TOKEN.finditer(text):
        piece = match[1]
        if piece is None:
            continue
        if before == "include" and piece[:1] == '"':
            for file, content in script.include(piece.strip('"')):
                yield from _tokens(file, f"{content}\n", script)
            before = piece
            continue
        if piece == "include" and before in "\n;{}":
            before = piece
            continue
        before = piece
        yield path, piece


def _opens(words: list[str], blocks: list[_Block]) -> bool:
    """Whether a brace after some words opens a block, rather than a set within a statement."""
    if not words:
        return bool(blocks) and blocks[-1].kind == "other"
    if blocks and blocks[-1].kind == "chain":
        return False
    if words[0] in _COMMANDS:
        return words[1:2] == ["chain"]
    return words[0] != "define" and "=" not in words


def _block(words: list[str], blocks: list[_Block], file: str) -> _Block:
    if not words:
        return _Block("other")
    if words[0] in _COMMANDS:
        return _Block("chain", _qualified(words[2:]), file=file)
    if words[0] == "table" and not blocks:
        return _Block("table", " ".join(words[1:] if words[1] in _FAMILIES else ["ip", *words[1:]]))
    if words[0] == "chain" and blocks and blocks[-1].kind == "table":
        return _Block("chain", f"{blocks[-1].name}/{' '.join(words[1:])}", file=file)
    return _Block("other")


def _qualified(words: list[str]) -> str:
    """``family table/chain`` of a command's words."""
    family, table, chain, *_ = (
        *([] if words[:1] and words[0] in _FAMILIES else ["ip"]),
        *words,
        "",
        "",
        "",
    )
    return f"{family} {table}/{chain}"


def _statement(
    script: _Script, words: list[str], blocks: list[_Block], file: str
) -> Iterator[tuple[str, ParsedRule]]:
    if words[0] == "define" and len(words) > 3 and words[2] == "=":
        script.variables[f"${words[1]}"] = "".join(word for word in words[3:] if word not in "{}")
    elif blocks and blocks[-1].kind == "chain":
        yield from _in_chain(script, blocks[-1], words, file)
    elif words[0] in _COMMANDS and words[1:2] == ["rule"]:
        rest = words[2:]
        at = 3 if rest[:1] and rest[0] in _FAMILIES else 2
        yield file, _rule(script, _qualified(rest[:at]), rest[at:])


def _in_chain(
    script: _Script, chain: _Block, words: list[str], file: str
) -> Iterator[tuple[str, ParsedRule]]:
    if words[0] == "type" and "hook" in words[:-1]:
        chain.hooked = words[1] == "filter"
        script.hooks[chain.name] = _DIRECTIONS.get(words[words.index("hook") + 1])
    elif words[0] == "policy":
        chain.policy = words[-1]
    elif words[0] not in ("comment", "device", "devices", "flags"):
        yield file, _rule(script, chain.name, words)


def _closed(script: _Script, block: _Block) -> Iterator[tuple[str, ParsedRule]]:
    """The policy of a chain that packets come to by themselves: accept, when it says nothing."""
    if block.kind == "chain" and block.hooked:
        policy = block.policy or "accept"
        policy = script.variables.get(policy, policy)
        action = _VERDICTS.get(policy, "other")
        direction = script.hooks.get(block.name)
        yield (
            block.file,
            ParsedRule(block.name, direction, action, f"policy {policy}", kind="policy"),
        )


def _rule(script: _Script, chain: str, words: list[str]) -> ParsedRule:
    rule = ParsedRule(chain, script.hooks.get(chain), _action(words), " ".join(words))
    for index, word in enumerate(words):
        after = words[index + 1 : index + 2]
        if after and after[0] in _OF_PROTOCOL and word not in ("th", "packet"):
            rule.protocol = rule.protocol or word
        if word in ("l4proto", "nexthdr") or (word == "protocol" and words[index - 1] == "ip"):
            rule.protocol = _value(script, words, index + 1)
        elif word == "saddr" and rule.source is None:
            rule.source = _value(script, words, index + 1)
        elif word == "daddr" and rule.destination is None:
            rule.destination = _value(script, words, index + 1)
        elif word == "dport" and rule.port is None:
            rule.port = _value(script, words, index + 1)
        elif word in _INTERFACES and " " not in (rule.interface or ""):
            name = _value(script, words, index + 1)
            rule.interface = f"{rule.interface} {name}" if rule.interface else name
    return rule


def _action(words: list[str]) -> Action:
    depth, logs = 0, False
    for word in words:
        depth += (word == "{") - (word == "}")
        if depth:
            continue
        if word in _VERDICTS:
            return _VERDICTS[word]
        if word in _ENDS:
            return "other"
        logs = logs or word == "log"
    return "log" if logs and "vmap" not in words else "other"


def _value(script: _Script, words: list[str], index: int) -> str | None:
    """What is compared with: a word or the elements of a set; None for a map."""
    negated = ""
    while words[index : index + 1] in (["!="], ["=="]):
        negated = "!" if words[index] == "!=" else negated
        index += 1
    if index >= len(words) or words[index] in ("vmap", "map"):
        return None
    if words[index] == "{":
        end = words.index("}", index) if "}" in words[index:] else len(words)
        value = "".join(words[index + 1 : end])
    else:
        value = script.variables.get(words[index], words[index])
    return negated + value.strip('"')
