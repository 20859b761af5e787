"""One row a firewall rule."""

from __future__ import annotations

from typing import Literal

from scanner.schema import IS_PATH, U32, column, table

Framework = Literal["nftables", "iptables", "ufw", "firewalld", "windows"]


@table()
class FirewallRule:
    """What firewalls are told to let in, out and through, as their files have it.

    Read are nftables' script, rules that iptables-save wrote, ufw's own rules and default policies,
    and firewalld's zones, services resolved to their ports. A firewall that several of them set
    up has the rules of all. Default policies are rows of their own. Of Windows its registry is
    read: what the machine and group policy have set for the profiles Domain, Private and Public,
    rules since Vista, which without a chain are for all profiles, and exceptions of XP; that a
    rule is for a program or service alone stands in its text.
    """

    framework: Framework = column("Whose rule it is.")
    file: str = column("File that holds it.", example="/etc/nftables.conf", unredacted=IS_PATH)
    kind: Literal["rule", "policy"] = column(
        "policy: what becomes of packets that no rule of the chain, zone or profile decides about."
    )
    position: U32 = column("Place among the framework's rules as they are read, from 0.")
    chain: str | None = column(
        "Chain, with its table before it, or zone or profile.", example="inet filter/input"
    )
    direction: Literal["in", "out", "forward"] | None = column(
        "Which packets it is about; null for those of chains that only other chains lead to, and "
        "of translation."
    )
    action: Literal["allow", "deny", "reject", "log", "other"] = column(
        "What becomes of a packet; deny drops it without a word, other is whatever ends otherwise, "
        "or goes on in another chain."
    )
    protocol: str | None = column("Protocol, as written; null for any.", example="tcp")
    source: str | None = column(
        "Addresses it comes from, as written; null for any. A ! before it, as in the next "
        "columns, means all others.",
        example="10.0.0.0/8",
    )
    destination: str | None = column("Addresses it goes to, as written; null for any.")
    port: str | None = column("Destination ports, as written; null for any.", example="22,80")
    interface: str | None = column(
        "Network interface, that it comes in by before that it goes out by; null for any.",
        example="eth0",
    )
    enabled: bool = column(
        "Whether it takes effect at boot: the service that loads the file starts by itself, and "
        "the rule, or ufw as a whole, is not turned off; of Windows, that it is on in a profile of "
        "the rule's."
    )
    text: str = column(
        "The rule as written; of a default action that Windows does not write what it stands for.",
        example="tcp dport 22 accept",
    )
