"""hmseg-deploy models."""

from typing import Annotated

import typer

from deploy.cli import completion, options
from deploy.cli.console import print_json, print_table
from deploy.resolution import parse_resolution


def models(
    resolution: Annotated[
        str,
        typer.Option(
            "--resolution",
            "-r",
            help="HEIGHTxWIDTH to count MACs at.",
            autocompletion=completion.resolutions,
        ),
    ] = "768x1536",
    as_json: options.Json = False,
) -> None:
    """List the zoo with parameters and MACs, counted by the paper's rule."""
    size = parse_resolution(resolution)
    from hmseg import zoo
    from hmseg.count import count_macs, count_parameters

    counted = []
    for name in zoo.list_models():
        model = zoo.create_model(name)
        counted.append((name, count_parameters(model), count_macs(model, *size)))
    if as_json:
        rows = [
            {
                "model": name,
                "parameters": parameters,
                "macs": macs,
                "summary": zoo.entry(name).summary,
            }
            for name, parameters, macs in counted
        ]
        print_json({"resolution": str(size), "models": rows})
        return
    print_table(
        "",
        ("model", "Mparams", f"GMACs at {size}", "what it is"),
        [
            (name, f"{parameters / 1e6:.3f}", f"{macs / 1e9:.3f}", zoo.entry(name).summary)
            for name, parameters, macs in counted
        ],
    )
