"""One row a firewall rule."""

from __future__ import annotations

from typing import Literal

from fleetscan.appliance.ground.schema import IS_PATH, U32, column, table

Framework = Literal["nftables", "iptables", "ufw", "firewalld", "windows"]


@table()
class FirewallRule:
    """Firewall rules and default policies, as configured on disk.

    The sources are nftables' script, rules written by iptables-save, ufw's own rules and default
    policies, and firewalld's zones, with services resolved to their ports. If several of them set
    up the firewall, the rules of all are listed. Default policies are rows of their own. For
    Windows the registry is read: what the machine and group policy have set for the profiles
    Domain, Private and Public, rules since Vista (without a chain they are for all profiles), and
    exceptions of XP. If a rule is only for one program or service, its text says so.
    """

    framework: Framework = column("Firewall that the rule belongs to.")
    file: str = column("File that contains it.", example="/etc/nftables.conf", unredacted=IS_PATH)
    kind: Literal["rule", "policy"] = column(
        "policy: what happens to packets that no rule of the chain, zone or profile decides."
    )
    position: U32 = column("Position among the framework's rules in reading order, from 0.")
    chain: str | None = column(
        "Chain, preceded by its table; or zone, or profile.", example="inet filter/input"
    )
    direction: Literal["in", "out", "forward"] | None = column(
        "Direction of the packets it applies to; null in chains that only other chains jump to, "
        "and in address translation."
    )
    action: Literal["allow", "deny", "reject", "log", "other"] = column(
        "What happens to a packet; deny drops it silently, other means any other end, or that "
        "another chain decides."
    )
    protocol: str | None = column("Protocol, as written; null for any.", example="tcp")
    source: str | None = column(
        "Source addresses, as written; null for any. Here and in the next columns a leading ! "
        "means all others.",
        example="10.0.0.0/8",
    )
    destination: str | None = column("Destination addresses, as written; null for any.")
    port: str | None = column("Destination ports, as written; null for any.", example="22,80")
    interface: str | None = column(
        "Network interfaces, incoming before outgoing; null for any.",
        example="eth0",
    )
    enabled: bool = column(
        "Whether it takes effect at boot: the service that loads the file starts automatically, "
        "and the rule, or ufw as a whole, is not switched off. Windows: whether it is on in one "
        "of the rule's profiles."
    )
    text: str = column(
        "The rule as written; for a default action that Windows does not write down, what it is.",
        example="tcp dport 22 accept",
    )
