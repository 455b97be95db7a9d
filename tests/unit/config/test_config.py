"""`ingest.toml` is read as a person wrote it, and mistakes are answered with the remedy."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from ingester.config import FreeSpace, Settings, example_text, load, parse
from ingester.errors import Fatal


def site(folder: Path, text: str) -> Path:
    file = folder / "ingest.toml"
    file.write_text(text)
    return file


def read(text: str) -> Settings:
    return parse(text.encode(), Path("/site/ingest.toml"))


def mistake(text: str) -> str:
    with pytest.raises(Fatal) as caught:
        read(text)
    return str(caught.value)


def test_the_commented_text_says_exactly_the_defaults() -> None:
    assert read(example_text()).model_dump() == read("").model_dump()


def test_the_commented_examples_are_valid_once_uncommented() -> None:
    text = re.sub(r"^# (\[|\w+ += )", r"\1", example_text(), flags=re.MULTILINE)
    settings = read(text)
    assert settings.sources["CT1"].character_set == "ISO_IR 100"
    assert settings.receiver.scp.peers["PACS"].port == 104
    assert settings.receiver.share[0].path == Path("/mnt/modality")


def test_values_become_what_the_program_computes_with() -> None:
    settings = read(
        '[spool]\nquiet = "500ms"\nmin_free = "5 %"\n[limits]\nobject = "1.5 GiB"\n'
        '[index]\nsnapshot = ""\n[log]\nfile = "log/x.log"\n'
    )
    assert settings.spool.quiet == 0.5
    assert settings.spool.min_free == FreeSpace(share=0.05)
    assert settings.spool.min_free.of(1000) == 50
    assert settings.limits.object == 3 * 2**29
    assert settings.index.snapshot is None
    assert settings.log.file == Path("/site/log/x.log")
    assert settings.spool.path == Path("/site/spool")
    assert settings.spool.mode == 0o2770
    assert settings.receiver.scp.tls.certificate is None


def test_the_index_lies_in_the_archive_unless_it_is_named() -> None:
    assert read('[archive]\npath = "/data"').index.path == Path("/data/index.db")
    named = read('[archive]\npath = "/data"\n[index]\npath = "x.db"')
    assert named.index.path == Path("/site/x.db")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("[spol]", "[spol] is not a section; did you mean [spool]?"),
        ("[spool]\nquite='2s'", "[spool] has no key quite; did you mean quiet?"),
        ("[receiver.scp]\nprot=1", "[receiver.scp] has no key prot; did you mean port?"),
        ("[receiver.scp.peers.A]\nhots='x'", "[receiver.scp.peers.A] has no key hots"),
        ("[sources.A]\ncharset='x'", "[sources.A] has no key charset; did you mean character_set"),
        ("[[receiver.share]]\npath='x'\npol='1s'", "[receiver.share] has no key pol"),
        ("[spool]\nrescan='30'", "[spool] rescan = '30' cannot be used: write a duration"),
        ("[spool]\nmode=2770", "2770 is 0o5322 in octal"),
        ("[spool]\nmode=0o777", "let everybody write"),
        ("[archive]\nmin_free='5'", "write a size or a share"),
        ("[archive]\nmin_free='100 %'", "would never let a file in"),
        ("[archive]\nintake='move'", "write one of 'auto', 'link' or 'copy'"),
        ("[receiver.scp]\nallow=['10.0.0.5']", 'such as "10.0.0.5/32"'),
        ("[receiver.scp]\nallow=['A@10.0.0.0/99']", "is not a network"),
        ("[receiver.scp]\nallow=['AAAAAAAAAAAAAAAAA']", "allow (no. 1)"),
        ("[receiver.scp]\nport=70000", "a number from 1 to 65535"),
        ("[receiver.scp.tls]\ncertificate='a.pem'", "name both `certificate` and `key`"),
        ("[receiver.scp.tls]\nrequire_client_certificate=true", "needs `certificate`"),
        ("[[receiver.share]]\nsource='A'\npath=''", "write a path"),
        ("[sources.'../up']", "[sources.../up]: a source's name becomes a folder"),
        ("[sources.quarantine]", "one of our own"),
        ("[sources.A]\ncharacter_set='latin1'", "ISO_IR 100"),
        ("[hooks]\nquarantined=['{uid}']", "{uid} is not a placeholder"),
        ("[workers]\nengine='dask'", "write one of 'processes'"),
        ("[videos]\nmax_edge=0", "at least 1"),
        ("[spool", "is not TOML"),
    ],
)
def test_a_mistake_is_answered_with_what_to_write_instead(text: str, answer: str) -> None:
    assert answer in mistake(text)


def test_all_mistakes_are_named_at_once_each_with_the_file() -> None:
    lines = mistake("[spool]\nquite='1s'\nrescan=3\n[limits]\nobject=1").splitlines()
    assert len(lines) == 3
    assert all(line.startswith("/site/ingest.toml: ") for line in lines)


def test_the_file_is_the_given_one_then_the_environments_then_the_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("given", "environment", "folder"):
        (tmp_path / name).mkdir()
        site(tmp_path / name, f'[receiver.scp]\nae_title = "{name}"')
    monkeypatch.chdir(tmp_path / "folder")
    monkeypatch.delenv("INGEST_CONFIG", raising=False)
    assert load().receiver.scp.ae_title == "folder"
    monkeypatch.setenv("INGEST_CONFIG", str(tmp_path / "environment" / "ingest.toml"))
    assert load().receiver.scp.ae_title == "environment"
    assert load(tmp_path / "given" / "ingest.toml").receiver.scp.ae_title == "given"


def test_a_missing_file_is_answered_with_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(Fatal, match="ingester init"):
        load(tmp_path / "ingest.toml")


def test_a_file_that_everybody_may_write_is_refused(tmp_path: Path) -> None:
    file = site(tmp_path, "")
    os.chmod(file, 0o666)
    with pytest.raises(Fatal, match="chmod o-w"):
        load(file)


def test_the_commented_text_takes_changed_values() -> None:
    text = example_text({"[receiver.scp]": {"host": "0.0.0.0", "port": 104}})
    scp = read(text).receiver.scp
    assert (scp.host, scp.port, scp.ae_title) == ("0.0.0.0", 104, "INGESTER")
    with pytest.raises(KeyError):
        example_text({"[receiver.scp]": {"hots": "0.0.0.0"}})
    with pytest.raises(KeyError):
        example_text({"[nothing]": {}})
