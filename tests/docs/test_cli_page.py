"""docs/cli.md is what the programs' help says."""

import re

import pytest
import typer

from docs import cli_page
from lut.errors import UserError


def test_the_page_is_what_the_programs_say():
    written = cli_page.PAGE.read_text()
    assert written == cli_page.page(), f"run {cli_page.COMMAND}"


def test_every_command_and_option_is_on_it():
    commands = {command.name: command for command in cli_page.commands()}
    assert {"hmseg-deploy compile", "hmseg-deploy lut build", "hmseg train"} <= commands.keys()
    sections = cli_page.page().split("\n## ")[1:]
    assert [section.splitlines()[0] for section in sections] == list(commands)
    for section, command in zip(sections, commands.values(), strict=True):
        for option in command.options - {"--help"}:
            assert re.search(rf"[`/ ]{option}[`,/ ]", section), (command.name, option)


def test_a_command_that_is_gone_is_named(monkeypatch):
    monkeypatch.setitem(cli_page.EXAMPLES, "hmseg-deploy gone", ["hmseg-deploy gone"])
    with pytest.raises(UserError, match="no command 'hmseg-deploy gone'"):
        cli_page.page()


def test_it_is_written_and_compared(monkeypatch, tmp_path, capsys):
    """With a program of one command, whose words a table and HTML would take for their own."""
    app = typer.Typer()

    @app.command()
    def compare(size: str = typer.Option("a", help="One of a|b, <tag>.")) -> None:
        """Do it."""

    @app.command()
    def other() -> None:
        """Do the other."""

    monkeypatch.setattr(cli_page.hmseg_deploy, "app", app)
    monkeypatch.setattr(cli_page, "EXAMPLES", {"hmseg-deploy compare": ["hmseg-deploy compare"]})
    monkeypatch.setattr(cli_page, "GUIDES", {})
    monkeypatch.setattr(cli_page, "PAGE", tmp_path / "cli.md")
    assert cli_page.main(["--check"]) == 2  # not there
    assert cli_page.main([]) == 0
    assert cli_page.main(["--check"]) == 0
    page = cli_page.PAGE.read_text()
    assert "| One of a\\|b, \\<tag>. [default: a] |" in page
    assert "    hmseg-deploy compare\n" in page
    cli_page.PAGE.write_text(page + "more")
    assert cli_page.main(["--check"]) == 1
    assert "run python -m docs.cli_page" in capsys.readouterr().err
