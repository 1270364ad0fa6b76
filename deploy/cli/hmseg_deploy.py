"""The program hmseg-deploy: its commands, each in the file of its name."""

import typer

from deploy.cli import (
    bench,
    cache,
    compile,
    device,
    export,
    lut,
    models,
    paper,
    profile,
    quickstart,
    report,
    run,
    tune,
    upgrade,
    verify,
)
from deploy.cli.console import add_version, run_program

app = typer.Typer(
    name="hmseg-deploy",
    help="From a segmentation network to a verified, measured binary for your device.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
add_version(app)
app.command("quickstart")(quickstart.quickstart)
app.command("models")(models.models)
app.command("export")(export.export)
app.command("compile")(compile.compile_model)
app.command("verify")(verify.verify)
app.command("bench")(bench.bench)
app.command("profile")(profile.profile)
app.command("tune")(tune.tune)
app.add_typer(lut.app, name="lut")
app.command("run")(run.run)
app.command("report")(report.report)
app.command("upgrade")(upgrade.upgrade)
app.command("cache")(cache.cache)
app.command("paper")(paper.paper)
app.add_typer(device.app, name="device")


def main() -> None:
    """Entry point."""
    run_program(app)


if __name__ == "__main__":
    main()
