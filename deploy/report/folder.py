"""Reading a folder: every file that holds results, by its content."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.report.content import NoResultError, read_content
from deploy.report.kind import Kind, Result
from deploy.report.kinds import KINDS
from hmseg.data.files import files_in
from lut.errors import UserError

_ANY = ("",)  # end of a name


@dataclass
class Folder:
    """What a folder holds: results by kind, files of other things, and damaged ones, each with the
    reason."""

    path: Path
    results: dict[str, list[Result]] = field(default_factory=dict)  # by the kind's title
    passed_over: list[str] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)

    @property
    def found(self) -> list[tuple[Kind[Any], list[Result]]]:
        """The kinds that there is something of, in the page's order."""
        return [(kind, self.results[kind.title]) for kind in KINDS if kind.title in self.results]


def read_folder(path: Path) -> Folder:
    """Look at every file in a folder and those in it, also behind links (`files_in`).

    One damaged file does not stop the others. Raises UserError for what is no folder, for one that
    cannot be looked into, and for one without a file.
    """
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; name one that holds results")
    folder = Folder(path)
    for file in files_in(path, _ANY):
        name = file.relative_to(path).as_posix()
        try:
            found = read_result(file, name)
        except UserError as error:
            folder.damaged[name] = _reason(error, file)
            continue
        if found is None:
            folder.passed_over.append(name)
        else:
            kind, result = found
            folder.results.setdefault(kind.title, []).append(result)
    if not (folder.results or folder.passed_over or folder.damaged):
        raise UserError(f"{path} is empty: there is nothing to report")
    return folder


def read_result(path: Path, name: str) -> tuple[Kind[Any], Result] | None:
    """What a regular file holds, and of which kind it is; None for no result. Raises UserError for
    a damaged one."""
    try:
        content = read_content(path, name)
    except NoResultError:
        return None
    kind = next((kind for kind in KINDS if kind.recognises(content)), None)
    return None if kind is None else (kind, kind.read(content))


def _reason(error: UserError, file: Path) -> str:
    """Without the file's name, which stands before it."""
    text = str(error)
    for name in (str(file), file.name):
        text = text.removeprefix(f"{name}: ").removeprefix(f"{name}, ")
    return text
