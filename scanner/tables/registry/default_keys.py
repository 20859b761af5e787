"""The keys that the table holds unless a scan asks for others."""

from __future__ import annotations

from typing import Literal, get_args

from fleetscan.appliance.guest.readers.hivereader import Want

Hive = Literal["SOFTWARE", "SYSTEM", "SECURITY"]
HIVES: tuple[Hive, ...] = get_args(Hive)

_WINDOWS = "Microsoft\\Windows\\CurrentVersion"
_WINDOWS_NT = "Microsoft\\Windows NT\\CurrentVersion"
_CONTROL = "CurrentControlSet\\Control"
_SERVICES = "CurrentControlSet\\Services"

# Libraries that every program loads, whether it does so, and who logged on last.
_LOADED = ("appinit_dlls", "loadappinit_dlls", "requiresignedappinit_dlls", "load", "run")
_LAST_USER = ("lastloggedonuser", "lastloggedonsamuser", "lastloggedonusersid")

DEPTH = 32
"""Levels of keys that are read below a key that a scan asks for."""

MACHINE: dict[Hive, tuple[Want, ...]] = {
    "SOFTWARE": (
        Want(_WINDOWS_NT),
        Want(f"{_WINDOWS_NT}\\Winlogon"),
        Want(f"{_WINDOWS_NT}\\Windows", 0, _LOADED),
        Want(f"WOW6432Node\\{_WINDOWS_NT}\\Windows", 0, _LOADED),
        Want(f"{_WINDOWS_NT}\\ProfileList", 1),
        Want(f"{_WINDOWS_NT}\\Image File Execution Options", 1, ("debugger", "globalflag")),
        Want(f"{_WINDOWS_NT}\\Schedule\\TaskCache\\Tree", 8, ("id",)),
        Want(f"{_WINDOWS}\\Policies", 2),
        Want(f"{_WINDOWS}\\Run"),
        Want(f"{_WINDOWS}\\RunOnce"),
        Want(f"{_WINDOWS}\\WindowsUpdate", 3),
        Want(f"WOW6432Node\\{_WINDOWS}\\Run"),
        Want(f"WOW6432Node\\{_WINDOWS}\\RunOnce"),
        Want(f"{_WINDOWS}\\RunOnceEx", 1),
        Want(f"{_WINDOWS}\\Authentication\\LogonUI", 0, _LAST_USER),
        Want(f"{_WINDOWS}\\Explorer\\StartupApproved", 1),
        Want("Microsoft\\Active Setup\\Installed Components", 1, ("", "stubpath", "version")),
        Want("Microsoft\\Command Processor", 0, ("autorun",)),
        Want("Microsoft\\NetSh"),
        Want("Microsoft\\Windows Defender\\Features"),
        Want("Microsoft\\Windows Defender\\Real-Time Protection"),
        Want("Microsoft\\Windows Script Host\\Settings"),
        Want("Policies\\Microsoft", 4),
    ),
    "SYSTEM": (
        Want("Select"),
        Want("MountedDevices"),
        Want("Setup", 0, ("setuptype", "systemsetupinprogress", "oobeinprogress")),
        Want(f"{_CONTROL}\\ComputerName", 1),
        Want(f"{_CONTROL}\\CrashControl"),
        Want(f"{_CONTROL}\\FileSystem"),
        Want(f"{_CONTROL}\\Lsa"),
        Want(f"{_CONTROL}\\Lsa\\MSV1_0"),
        Want(f"{_CONTROL}\\SecurityProviders", 5),
        Want(f"{_CONTROL}\\SecurePipeServers\\winreg", 1),
        Want(f"{_CONTROL}\\Session Manager", 0),
        Want(f"{_CONTROL}\\Session Manager\\AppCertDlls"),
        Want(f"{_CONTROL}\\Session Manager\\KnownDLLs"),
        Want(f"{_CONTROL}\\Session Manager\\Memory Management", 0),
        Want(f"{_CONTROL}\\Print\\Monitors", 1, ("driver",)),
        Want(f"{_CONTROL}\\Terminal Server"),
        Want(f"{_CONTROL}\\Terminal Server\\WinStations\\RDP-Tcp"),
        Want(f"{_CONTROL}\\TimeZoneInformation"),
        Want(f"{_SERVICES}\\Dnscache\\Parameters"),
        Want(f"{_SERVICES}\\EventLog", 1, ("file", "maxsize", "retention", "restrictguestaccess")),
        Want(f"{_SERVICES}\\LanmanServer\\Parameters"),
        Want(f"{_SERVICES}\\LanmanServer\\Shares"),
        Want(f"{_SERVICES}\\LanmanWorkstation\\Parameters"),
        Want(f"{_SERVICES}\\LDAP"),
        Want(f"{_SERVICES}\\NetBT\\Parameters", 2),
        Want(f"{_SERVICES}\\Netlogon\\Parameters"),
        Want(f"{_SERVICES}\\SharedAccess\\Parameters\\FirewallPolicy\\DomainProfile", 1),
        Want(f"{_SERVICES}\\SharedAccess\\Parameters\\FirewallPolicy\\PublicProfile", 1),
        Want(f"{_SERVICES}\\SharedAccess\\Parameters\\FirewallPolicy\\StandardProfile", 1),
        Want(f"{_SERVICES}\\Tcpip\\Parameters"),
        Want(f"{_SERVICES}\\Tcpip\\Parameters\\Interfaces", 1),
        Want(f"{_SERVICES}\\Tcpip6\\Parameters"),
        Want(f"{_SERVICES}\\W32Time\\Parameters"),
    ),
    # On a live system only the system itself may read it; we take only what is audited.
    "SECURITY": (Want("Policy\\PolAdtEv"),),
}

USER = (
    Want(f"Software\\{_WINDOWS}\\Run"),
    Want(f"Software\\{_WINDOWS}\\RunOnce"),
    Want(f"Software\\{_WINDOWS}\\Explorer\\StartupApproved", 1),
    Want(f"Software\\{_WINDOWS_NT}\\Windows", 0, _LOADED),
    Want(f"Software\\{_WINDOWS_NT}\\Winlogon", 0, ("shell", "userinit")),
    Want("Software\\Microsoft\\Command Processor", 0, ("autorun",)),
    Want("Environment", 0, ("userinitmprlogonscript",)),
    Want(f"Software\\{_WINDOWS}\\Policies", 2),
    Want("Software\\Policies\\Microsoft\\Windows", 3),
    Want("Control Panel\\Desktop", 0, ("screensaveactive", "screensaverissecure", "scrnsave.exe")),
)
