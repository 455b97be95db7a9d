"""The frame of the command line: mistakes, exit codes, a new site, its unit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ingester.cli import main, unit
from ingester.config import Settings, parse


def ingester(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments], prog_name="ingester")


def test_a_mistyped_command_is_answered_with_the_nearest() -> None:
    answer = ingester("statsu")
    assert answer.exit_code == 2
    assert "did you mean status?" in answer.stderr


def test_a_missing_configuration_is_one_sentence_and_exit_2(tmp_path: Path) -> None:
    answer = ingester("--config", tmp_path / "ingest.toml", "find", "x")
    assert answer.exit_code == 2
    assert answer.stdout == ""
    assert "ingester init DIR" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_help_imports_neither_pydicom_nor_numpy_nor_pydantic() -> None:
    program = (
        "import sys; from ingester.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([n for n in ('numpy', 'pydicom', 'pydantic', 'rich') if n in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert found.stdout.splitlines()[-1] == "[]"


def test_init_makes_a_site_and_keeps_what_is_there(tmp_path: Path) -> None:
    site = tmp_path / "site"
    first = ingester("init", site, "--listen", "0.0.0.0:11113")
    assert first.exit_code == 0, first.stderr
    text = (site / "ingest.toml").read_text()
    settings = parse(text.encode(), site / "ingest.toml")
    assert (settings.receiver.scp.host, settings.receiver.scp.port) == ("0.0.0.0", 11113)
    assert (site / "spool" / ".site").read_text() == (site / "archive" / ".site").read_text()
    assert (site / "spool").stat().st_mode & 0o7777 == 0o2770
    assert (site / "archive").stat().st_mode & 0o7777 == 0o2750

    (site / "ingest.toml").write_text(text + "# mine\n")
    assert ingester("init", site).exit_code == 0
    assert (site / "ingest.toml").read_text().endswith("# mine\n")
    again = ingester("init", site, "--listen", "0.0.0.0")
    assert again.exit_code == 2
    assert "is not overwritten" in again.stderr


@pytest.mark.parametrize("address", ["0.0.0", "0.0.0.0:0", "[::1]:99999", "host:1:2:3"])
def test_a_wrong_address_is_refused(tmp_path: Path, address: str) -> None:
    answer = ingester("init", tmp_path / "site", "--listen", address)
    assert answer.exit_code == 2
    assert not (tmp_path / "site").exists()


def test_a_unit_is_refused_inside_a_work_tree(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    ingester("init", tmp_path / "site")
    answer = ingester("--config", tmp_path / "site" / "ingest.toml", "service")
    assert answer.exit_code == 2
    assert "git work tree" in answer.stderr


def settings(text: str) -> Settings:
    return parse(text.encode(), Path("/srv/dicom/ingest.toml"))


PLACE = unit.Place(
    config=Path("/srv/dicom/ingest.toml"),
    program=Path("/opt/ingester/bin/ingester"),
    user="dicom",
    group="dicom",
)


def test_the_unit_takes_its_paths_from_the_configuration() -> None:
    text = unit.unit(
        settings(
            '[index]\npath="/fast/index.db"\n[log]\nfile="/var/log/dicom/x.log"\n'
            '[[receiver.share]]\npath="/mnt/us one"\n'
        ),
        PLACE,
    )
    paths = '/srv/dicom/spool /srv/dicom/archive "/mnt/us one"'
    assert f"RequiresMountsFor={paths}\n" in text
    assert f"ReadWritePaths={paths} /fast /var/log/dicom\n" in text
    assert "ExecStart=/opt/ingester/bin/ingester --config /srv/dicom/ingest.toml run\n" in text
    assert "ProtectHome=yes" in text


def test_the_unit_lets_in_only_whom_the_receiver_lets_in() -> None:
    closed = unit.unit(settings('[receiver.scp]\nhost="0.0.0.0"\nallow=["A@10.1.0.0/16"]'), PLACE)
    assert "IPAddressDeny=any\nIPAddressAllow=localhost 10.1.0.0/16\n" in closed
    opened = unit.unit(settings('[receiver.scp]\nhost="0.0.0.0"\nallow=["CT1"]'), PLACE)
    assert "IPAddressDeny" not in opened
    none = unit.unit(settings("[receiver.scp]\nenabled=false"), PLACE)
    assert "RestrictAddressFamilies=AF_UNIX\nPrivateNetwork=yes\n" in none
    hooks = unit.unit(settings('[hooks]\nquarantined=["/usr/bin/notify"]'), PLACE)
    assert "IPAddressDeny" not in hooks


def test_the_unit_may_bind_a_low_port_only_where_one_is_asked_for() -> None:
    assert "AmbientCapabilities=\n" in unit.unit(settings(""), PLACE)
    low = unit.unit(settings("[receiver.scp]\nport=104"), PLACE)
    assert "AmbientCapabilities=CAP_NET_BIND_SERVICE\n" in low


def test_the_installation_makes_user_folders_and_acls() -> None:
    commands = unit.installation(settings("[sources.CT1]"), PLACE, has_user=False)
    shown = [unit.shown(command) for command in commands]
    assert shown[0].startswith("useradd --system")
    assert "chmod 2770 /srv/dicom/spool /srv/dicom/spool/CT1" in shown
    assert shown[-1] == "systemctl enable --now ingester.service"
    assert not any(
        "useradd" in line
        for line in map(unit.shown, unit.installation(settings(""), PLACE, has_user=True))
    )
