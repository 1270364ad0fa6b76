"""hmseg-deploy export."""

from pathlib import Path

from deploy.cli import options
from deploy.cli.console import step
from lut.files import check_writable


def export(
    model: options.Model = options.DEFAULT_MODEL,
    resolution: options.ResolutionText = None,
    input_: options.InputText = "image",
    output: options.OutputText = "labels",
    classes: options.Classes = None,
    mean: options.Mean = None,
    std: options.Std = None,
    out: options.Out = None,
) -> None:
    """Write the ONNX graph: batch norm folded, image or tensor in, labels or logits out."""
    if out:
        check_writable(out)
    with step(f"exporting {model}") as progress:
        source = options.open_model(model, resolution, output, classes, mean, std, input_)
        from deploy.graph.export import save_onnx

        path = out or Path(f"{source.metadata.file_name}.onnx")
        save_onnx(source.graph, path)
        progress.result = f"{path.stat().st_size / 1e6:.1f} MB; weights: {source.weights}"
    print(path)
