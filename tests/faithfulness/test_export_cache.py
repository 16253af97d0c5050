import os
import time
from pathlib import Path

import pytest

from gradcam_bench.faithfulness import export_cache
from gradcam_bench.faithfulness.export_cache import keep, load

CONTENT = bytes(range(256)) * 20


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "gradcam_bench"


def flipped(content):
    return content[:1000] + bytes([content[1000] ^ 1]) + content[1001:]


DAMAGE = {
    "zeros": lambda content: bytes(4096),
    "truncated": lambda content: content[:-1],
    "longer": lambda content: content + b"\0",
    "empty": lambda content: b"",
    "one flipped bit": flipped,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_as_good_as_none_and_said_once(folder, caplog, damage):
    keep("key", CONTENT)
    assert load("key") == CONTENT
    (file,) = folder.iterdir()
    file.write_bytes(DAMAGE[damage](CONTENT))
    assert load("key") is None
    assert len(caplog.records) == 1
    assert "is damaged; exporting again" in caplog.text
    assert not list(folder.iterdir())
    keep("key", CONTENT)
    assert load("key") == CONTENT
    assert len(caplog.records) == 1


def test_another_export_of_the_same_key_replaces_the_first(folder):
    keep("key", CONTENT)
    keep("other", CONTENT)
    keep("key", CONTENT[1:])
    assert load("key") == CONTENT[1:]
    assert load("other") == CONTENT
    assert len(list(folder.iterdir())) == 2


def test_unfinished_files_go_when_they_were_given_up(folder):
    keep("key", CONTENT)
    old, new = folder / "a.123.partial", folder / "b.1.partial"
    for path in (old, new):
        path.write_bytes(b"")
    then = time.time() - export_cache.LEFT_OVER - 1
    os.utime(old, (then, then))
    assert load("key") == CONTENT
    assert not old.exists()
    assert new.exists()


def test_writers_with_equal_process_ids_do_not_share_a_name(folder, monkeypatch):
    names = set()

    def replace(source, target):
        names.add(str(source))

    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(os, "getpid", lambda: 1)
    keep("key", CONTENT)
    keep("key", CONTENT)
    assert len(names) == 2
    assert not list(folder.glob("*.partial"))


def test_a_folder_that_cannot_be_written_is_said_and_nothing_fails(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert load("key") is None
    keep("key", CONTENT)
    assert len(caplog.records) == 1
    assert "is not kept" in caplog.text


def test_without_a_home_nothing_fails(monkeypatch, caplog):
    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nowhere)
    for value in (None, "", "relative"):
        if value is None:
            monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        else:
            monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert load("key") is None
        keep("key", CONTENT)
    assert caplog.text.count("there is no home folder") == 3
    assert not Path("gradcam_bench").is_file()
    assert not Path("relative").exists()


def test_a_file_that_cannot_be_read_is_exported_again(folder, caplog):
    keep("key", CONTENT)
    (file,) = folder.iterdir()
    file.unlink()
    file.mkdir()  # reading it fails as a file of another user does
    assert load("key") is None
    keep("key", CONTENT)
    assert load("key") is None
