"""hmseg-deploy models."""

from typing import Annotated, Any

import typer

from deploy.cli import completion, options
from deploy.cli.console import print_json, print_table
from deploy.resolution import parse_resolution


def models(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]...", help="Only these; else all.")
    ] = None,
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
    """List the networks, our own and the peers.

    With parameters and MACs, counted by the paper's rule.
    """
    size = parse_resolution(resolution)
    import torch

    from hmseg import families, zoo
    from hmseg.count import count_macs, count_parameters

    rows: list[dict[str, Any]] = []
    for name in names or zoo.list_models():
        with torch.device("meta"):  # its weights' shapes are all that is asked for
            model = zoo.create_model(name)
        peer = zoo.is_peer(name)
        row = {
            "model": name, "parameters": count_parameters(model),
            "macs": count_macs(model, *size), "group": "peers" if peer else "own",
            "summary": families.summary(name) if peer else zoo.entry(name).summary,
        }  # fmt: skip
        rows.append(row)
    if as_json:
        print_json({"resolution": str(size), "models": rows})
        return
    for group, title in (("own", ""), ("peers", "Peers, written anew, without released weights:")):
        if all(row["group"] != group for row in rows):
            continue
        print_table(
            title,
            ("model", "Mparams", f"GMACs at {size}", "what it is"),
            [
                (r["model"], f"{r['parameters'] / 1e6:.3f}", f"{r['macs'] / 1e9:.3f}", r["summary"])
                for r in rows
                if r["group"] == group
            ],
        )
