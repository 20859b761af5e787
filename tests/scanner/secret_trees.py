"""Systems with a marked secret in every place that a table reads.

Each secret is ``MARK`` and a number, so that a leak names its place.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path

MARK = "mArkEd"
_PLACE = re.compile("SECRET")

_LINUX = {
    "etc/os-release": 'ID=debian\nVERSION_ID="13"\nPRETTY_NAME="Debian GNU/Linux 13"\n',
    "etc/hostname": "secrets\n",
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n"
    "bob:x:1000:1000:password=SECRET:/home/bob:/bin/sh\n",
    "etc/group": "root:x:0:\n",
    "etc/shadow": "root:$6$salt$SECRETSECRETSECRET:19000:0:99999:7:::\n",
    "etc/fstab": "/dev/vda / ext4 defaults 0 1\n"
    "//srv/a /mnt/a cifs noauto,user=dom/bob%SECRET 0 0\n"
    "//srv/b /mnt/b cifs noauto,username=bob,password=SECRET,uid=5 0 0\n"
    "https://bob:SECRET@dav.example/ /mnt/c davfs noauto 0 0\n"
    "curlftpfs#bob:SECRET@ftp.example /mnt/d fuse noauto 0 0\n"
    "//srv/e /mnt/e cifs noauto,credentials=/etc/cifs.credentials 0 0\n",
    "etc/cifs.credentials": "password=SECRET\n",
    "etc/pam.d/common-auth": "auth required pam_ldap.so bindpw=SECRET\n"
    "auth required pam_unix.so nullok\npassword requisite pam_pwquality.so minlen=14\n",
    "etc/login.defs": "PASS_MAX_DAYS 99999\nPASS_MIN_LEN 8\n",
    "etc/nsswitch.conf": "passwd: files systemd\n",
    "etc/systemd/system.conf": '[Manager]\nDefaultEnvironment="API_KEY=SECRET" "FOO=SECRET"\n'
    "DefaultEnvironment=TOKEN=SECRET\n",
    "etc/ssh/sshd_config": "PermitRootLogin no\nPasswordAuthentication no\n"
    "SetEnv API=SECRET LANG=C\n"
    "Match User backup\n  ForceCommand mysqldump -pSECRET shop\n",
    "etc/apt/sources.list": "deb https://bob:SECRET@deb.example/debian stable main\n"
    "deb https://deb.example/debian?token=SECRET stable main\n",
    "etc/apt/sources.list.d/x.sources": "Types: deb\nURIs: https://SECRET@deb.example/x\n"
    "Suites: stable\nComponents: main\n",
    "etc/yum.repos.d/x.repo": "[x]\nbaseurl=https://r.example/x?token=SECRET\npassword=SECRET\n"
    "api_key=SECRET\nproxy_password=SECRET\nproxy=http://bob:SECRET@proxy:3128\ngpgcheck=1\n",
    "etc/default/grub": 'GRUB_CMDLINE_LINUX="rd.iscsi.password=SECRET quiet"\n'
    'GRUB_CMDLINE_LINUX_DEFAULT="netroot=iscsi:user:SECRET@192.0.2.1::::iqn.x"\n',
    "boot/grub/grub.cfg": "password_pbkdf2 root grub.pbkdf2.sha512.10000.ABCD.SECRETSECRET\n"
    "menuentry 'Debian --password=SECRET' {\n"
    "  linux /vmlinuz root=/dev/vda rd.iscsi.password=SECRET"
    " netroot=iscsi:user:SECRET@192.0.2.1::::iqn.x\n}\n",
    "etc/sudoers": "Defaults passwd_tries=3\n"
    "bob ALL=(root) NOPASSWD: /usr/bin/mysqldump -pSECRET shop\n"
    "bob ALL=(root) /usr/bin/curl -u bob\\:SECRET https\\://x/\n",
    "etc/modprobe.d/x.conf": "options cifs password=SECRET\n"
    "install x /sbin/modprobe --token SECRET\n",
    "etc/sysctl.d/x.conf": "net.ipv4.tcp_fastopen_key=0a1b2c3d-SECRET-aa-bb\n"
    "kernel.x=token=SECRET\n",
    "etc/crontab": "1 2 * * * root mysqldump -pSECRET shop > /srv/shop.sql\n"
    "2 2 * * * root curl -u bob:SECRET https://x.example/\n"
    "3 2 * * * root PGPASSWORD=SECRET pg_dump shop\n",
    "etc/cron.d/x": "1 2 * * * root curl -H 'Authorization: Bearer SECRET' https://x/\n",
    "usr/lib/systemd/system/db.service": "[Unit]\nDescription=Db with password=SECRET\n"
    "[Service]\nExecStart=/usr/bin/db --password=SECRET --port 5\n",
    "etc/systemd/system/web.service": "[Unit]\nDescription=Web\n"
    "[Service]\nExecStart=/bin/sh -c 'sshpass -p SECRET ssh x'\nEnvironment=A=SECRET\n",
    "etc/systemd/system/job.timer": "[Timer]\nOnCalendar=daily\nUnit=db.service\n",
    "root/.ssh/authorized_keys": 'environment="FOO=SECRET",command="mysqldump -pSECRET" '
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f "
    "token=SECRET\n",
    "etc/network/interfaces": "iface wlan0 inet dhcp\n  wpa-psk SECRET\n  wpa-ssid x\n",
    "etc/NetworkManager/system-connections/x.nmconnection": "[connection]\nid=x\ntype=wifi\n"
    "[wifi-security]\npsk=SECRET\n[802-1x]\npassword=SECRET\n",
    "etc/netplan/x.yaml": "network:\n  wifis:\n    wlan0:\n      access-points:\n"
    "        x:\n          password: SECRET\n",
    "etc/nftables.conf": "table inet f {\n chain i {\n"
    '  tcp dport 22 accept comment "password=SECRET"\n }\n}\n',
    "var/lib/dpkg/status": "Package: x\nStatus: install ok installed\nVersion: 1\n"
    "Architecture: all\nMaintainer: Bob <https://bob:SECRET@x.example>\n"
    "Description: x with --password=SECRET\n",
    "var/spool/cron/crontabs/bob": "1 2 * * * app --api-key=SECRET\n",
}

# What cannot be parsed is quoted by errors.
_BROKEN = {
    "etc/security/limits.conf": "password=SECRET this is = no limit SECRET\n",
    "etc/hosts": "password=SECRET\n",
    "etc/audit/rules.d/x.rules": "password=SECRET\n--token SECRET\n",
    "etc/netplan/broken.yaml": "network:\n  - password: SECRET\n bad: [\n",
    "etc/crontab": "* * * root mysqldump -pSECRET\n",
}

_SOFTWARE = r"""
[Microsoft\Windows NT\CurrentVersion]
"ProductName"="Windows 10 Pro"
"CurrentVersion"="6.3"
"CurrentBuildNumber"="19045"
"DigitalProductId"=hex:SECREX
[Microsoft\Windows NT\CurrentVersion\Winlogon]
"AutoAdminLogon"="1"
"DefaultPassword"="the SECRET"
"DefaultPIN"="SECRET"
"PasswordExpiryWarning"=dword:00000005
[Microsoft\Windows\CurrentVersion\Run]
"Map"="net use x: \\\\srv\\share SECRET /user:bob"
"App"="app.exe /password:SECRET"
[Policies\Microsoft\Windows\WindowsUpdate]
"WUServer"="http://bob:SECRET@wsus.example:8530"
[Policies\Microsoft\Vendor\Keys]
"RecoveryKey"="SECRET"
"PSK"="SECRET"
"ApiKey"="SECRET"
[Policies\Microsoft\Vendor\Product]
"Password"=hex:SECREX
"SnmpCommunity"="SECRET"
"ConnectionString"="Server=x;User Id=y;Password=SECRET;Timeout=3"
[Policies\Microsoft\Vendor\Product\Password]
@="SECRET"
[Policies\Microsoft\Vendor\SNMP\ValidCommunities]
"SECRET"=dword:00000004
[Policies\Microsoft\SNMP\TrapConfiguration\SECRET]
"1"="192.0.2.1"
"""
_SYSTEM = r"""
[Select]
"Current"=dword:00000001
[ControlSet001\Services\Db]
"Type"=dword:00000010
"Start"=dword:00000002
"DisplayName"="Db"
"ImagePath"=expand:"C:\\db.exe --password SECRET"
[ControlSet001\Control\ComputerName\ComputerName]
"ComputerName"="SECRETS"
"""
HEX_MARK = MARK.encode("utf-16-le").hex()


def linux(top: Path) -> int:
    """Write a Linux; returns how many secrets it has."""
    return _write(top, _LINUX)


def broken_linux(top: Path) -> int:
    """Write a Linux with files that cannot be parsed; returns how many secrets it has."""
    return _write(top, {**_LINUX, **_BROKEN})


def windows(top: Path) -> int:
    """Write a Windows whose hives are text, for make_hives; returns how many secrets it has."""
    config = "Windows/System32/config"
    hexadecimal = ",".join(re.findall("..", HEX_MARK))
    texts = {
        f"{config}/SOFTWARE.reg": _SOFTWARE.lstrip().replace("SECREX", hexadecimal),
        f"{config}/SECURITY.reg": "[Policy\\PolAdtEv]\n@=hex:00,01,00,00\n",
        f"{config}/SYSTEM.reg": _SYSTEM.lstrip().replace("SECRETS", "computer"),
    }
    return _write(top, texts)


def _write(top: Path, texts: dict[str, str]) -> int:
    numbers = itertools.count()
    for name, text in texts.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        marked = _PLACE.sub(lambda _: f"{MARK}{next(numbers)}x", text)
        (top / name).write_text(marked)
    return next(numbers)
