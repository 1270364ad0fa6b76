"""Lists of files neither shrink nor stop without a word."""

import os
import warnings

import pytest

from hmseg.data.files import PassedOverWarning, files_in
from lut.errors import UserError
from tests.conditions import NOT_ROOT


def make(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def names(paths, folder):
    return [str(path.relative_to(folder)) for path in paths]


def test_links_are_followed(tmp_path):
    make(tmp_path, "data/aachen/1.png", "disk2/ulm/2.png", "disk2/3.png")
    (tmp_path / "data" / "ulm").symlink_to(tmp_path / "disk2" / "ulm")
    (tmp_path / "data" / "3.png").symlink_to(tmp_path / "disk2" / "3.png")
    (tmp_path / "data" / "aachen" / "up").symlink_to(tmp_path / "data")  # round and round
    (tmp_path / "data" / "above").symlink_to(tmp_path)
    found = files_in(tmp_path / "data", (".png",))
    assert names(found, tmp_path / "data") == ["3.png", "aachen/1.png", "ulm/2.png"]


def test_a_link_that_leads_nowhere_is_left_to_who_opens_it(tmp_path):
    make(tmp_path, "a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "gone.png")
    assert names(files_in(tmp_path, (".png",)), tmp_path) == ["a.png", "b.png"]


def test_what_is_no_file_is_left_out(tmp_path):
    """To open a pipe is to wait for who writes into it."""
    make(tmp_path, "a.png")
    os.mkfifo(tmp_path / "b.png")
    (tmp_path / "c.png").symlink_to(tmp_path / "b.png")
    (tmp_path / "d.png").symlink_to(tmp_path / "d.png")  # round and round
    with pytest.warns(PassedOverWarning, match=r"passed over: 2 pipe\(s\) or device\(s\)$"):
        assert names(files_in(tmp_path, (".png",)), tmp_path) == ["a.png", "d.png"]


@NOT_ROOT.mark
def test_a_folder_whose_files_cannot_be_looked_at(tmp_path):
    make(tmp_path, "in/a.png")
    (tmp_path / "in").chmod(0o600)  # names can be read, nothing else
    try:
        with pytest.raises(UserError, match=r"in: cannot be read \(Permission denied\)"):
            files_in(tmp_path / "in", (".png",))
    finally:
        (tmp_path / "in").chmod(0o700)


def test_what_is_passed_over_is_counted(tmp_path):
    make(
        tmp_path, "a.png", "B.PNG", "._a.png", ".DS_Store", "notes.txt", ".thumbs/c.png", "d/e.png"
    )
    with pytest.warns(PassedOverWarning, match="passed over: 3 hidden, 1 not .png"):
        found = files_in(tmp_path, (".png",))
    assert names(found, tmp_path) == ["B.PNG", "a.png", "d/e.png"]
    with pytest.warns(PassedOverWarning, match="passed over: 3 hidden$"):
        files_in(tmp_path, (".png",), among_others=True)
    with pytest.warns(PassedOverWarning, match=r"3 hidden, 1 not .png, 1 folder\(s\)$"):
        found = files_in(tmp_path, (".png",), below=False)
    assert names(found, tmp_path) == ["B.PNG", "a.png"]


def test_nothing_to_say(tmp_path):
    make(tmp_path, "a.png", "b/c.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(files_in(tmp_path, (".png",))) == 2


def test_a_folder_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        files_in(tmp_path / "none", (".png",))
