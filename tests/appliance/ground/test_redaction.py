"""What the redactor takes out of texts, what it leaves, and how long it takes over hostile ones."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetscan.appliance.ground.redaction import MARKER, redact, redact_named
from fleetscan.appliance.ground.redaction.sieve import suspects
from tests import strategies
from tests.appliance.ground import redaction_corpus as corpus
from tests.appliance.ground.redaction_corpus import MARKED

_PIECES = sorted(
    {piece for text in corpus.HOLDING for piece in re.findall(r"\w+|\W+", text)} | {" ", "=", "\t"}
)
MIB = 1 << 20
SECONDS = 2.0  # of processor; it takes a third of one where nothing else runs


@pytest.mark.parametrize("text", corpus.HOLDING)
def test_a_secret_is_replaced_by_a_marker(text: str) -> None:
    result = redact(text.replace("SECRET", MARKED))
    assert "SECRET" not in result
    assert MARKER in result


@pytest.mark.parametrize(("name", "text"), corpus.NAMED_HOLDING.items())
def test_a_secret_is_known_by_the_name_of_its_setting(name: str, text: str) -> None:
    result = redact_named(name, text.replace("SECRET", MARKED))
    assert "SECRET" not in result
    assert MARKER in result


@pytest.mark.parametrize("text", corpus.HOLDING_NONE)
def test_what_is_no_secret_stays_as_it_is(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(("name", "text"), corpus.NAMED_HOLDING_NONE.items())
def test_a_policy_about_secrets_stays_as_it_is(name: str, text: str) -> None:
    assert redact_named(name, text) == text


@pytest.mark.parametrize("text", corpus.HOLDING)
def test_what_was_redacted_once_stays_as_it_is(text: str) -> None:
    once = redact(text.replace("SECRET", MARKED))
    assert redact(once) == once


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("password=x1,uid=5", "password=[redacted],uid=5"),
        ("user=dom/bob%pw1,noauto", "user=dom/bob%[redacted],noauto"),
        ("https://bob:pw1@h/x?y=1", "https://bob:[redacted]@h/x?y=1"),
        ("mysqldump -u root -phunter2 shop > /x", "mysqldump -u root -p[redacted] shop > /x"),
        ("curl -u bob:pw1 https://h", "curl -u bob:[redacted] https://h"),
        ('command="x --password=pw1",no-pty', 'command="x --password=[redacted]",no-pty'),
        ("https://h/?token=pw1&arch=a", "https://h/?token=[redacted]&arch=a"),
        ("Server=x;Password=pw1;Timeout=5", "Server=x;Password=[redacted];Timeout=5"),
        ('{"password": "pw1", "n": 1}', '{"password": "[redacted]", "n": 1}'),
        ("Authorization: Bearer pw1", "Authorization: Bearer [redacted]"),
        (r"net use x: \\s\h pw1 /user:u", r"net use x: \\s\h [redacted] /user:u"),
        (r"net use x: \\s\h /user:u pw1", r"net use x: \\s\h /user:u [redacted]"),
        ("mysql -pmysecret db", "mysql -p[redacted] db"),
        ("smbclient //h/s pw1 -U u", "smbclient //h/s [redacted] -U u"),
    ],
)
def test_what_stands_around_a_secret_stays_readable(text: str, expected: str) -> None:
    assert redact(text) == expected


@given(strategies.guest_texts())
def test_any_text_can_be_redacted(text: str) -> None:
    once = redact(text)
    assert redact(once) == once


@pytest.mark.parametrize("text", corpus.HOLDING)
def test_a_secret_among_many_innocent_texts_is_not_overlooked(text: str) -> None:
    texts = ["\u0130", *corpus.HOLDING_NONE, text.replace("SECRET", MARKED), "x"]
    assert len(texts) - 2 in suspects(texts, [False])


@pytest.mark.parametrize(("name", "text"), corpus.NAMED_HOLDING.items())
def test_a_name_among_many_innocent_texts_is_not_overlooked(name: str, text: str) -> None:
    texts = ["\u0130", "x", *["a", "b"] * 50, name, text.replace("SECRET", MARKED)]
    assert suspects(texts, [True, False]) & {len(texts) - 2, len(texts) - 1}


@given(st.lists(st.sampled_from(_PIECES), max_size=12))
def test_what_is_redacted_is_suspect(pieces: list[str]) -> None:
    text = "".join(pieces)
    assert redact(text) == text or suspects(["x", text], [False]) == {1}


def test_a_text_longer_than_any_setting_is_left_out_behind_its_beginning() -> None:
    text = "password=x1 " + "word " * 20_000 + f"AWS_SECRET={MARKED}"
    result = redact(text)
    assert result.startswith("password=[redacted] word")
    assert result.endswith(MARKER)
    assert MARKED not in result


@pytest.mark.parametrize(
    "unit",
    [
        *("a", "_", "=", "%", '"', "'", '\\"', "-p", "a.b-", "a:b@", "[redacted]"),
        *("pass", "pass=", "passmax=", 'passmax="', "pass=${", "pass={{", "password ", "key "),
        *("://", "://a:", "#a:", "?sig=", "user=x%", "$1$", "eyJaaaaaa.", "{SSHA}", "bearer "),
        *("mysql -p", "curl -u a", "htpasswd -b a ", "echo ", "passwd <<<", "sqlplus a/"),
        *(
            "smbclient //h/s ",
            "net use /a:b ",
            "rootpw -a ",
            "requirepass ",
            "rabbitmqctl add_user a ",
        ),
        *("net use \\\\a ", "login a ", "/v a /d ", "setenv A=", 'environment=A="B='),
        *("-----BEGIN PRIVATE KEY-----", "docker login ", "sk_live_", "https://a:1/"),
    ],
)
def test_a_mebibyte_of_hostile_text_takes_little_time(unit: str) -> None:
    text = (unit * MIB)[:MIB]
    began = time.process_time()
    redact(text)
    redact_named("main/password_max", text)
    redact_named("setenv", text)
    assert time.process_time() - began < SECONDS
