"""The program hmseg: its commands, each in the file of its name."""

import typer

from deploy.cli import adjust, search, train
from deploy.cli import eval as evaluate
from deploy.cli.console import add_version, run_program

app = typer.Typer(
    name="hmseg",
    help="Search, train and evaluate segmentation networks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
add_version(app)
app.command("train")(train.train)
app.command("search")(search.search)
app.command("adjust")(adjust.adjust)
app.command("eval")(evaluate.evaluate_network)


def main() -> None:
    """Entry point."""
    run_program(app)


if __name__ == "__main__":
    main()
