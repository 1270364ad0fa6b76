"""hmseg-deploy export."""

from pathlib import Path

from deploy.cli import options
from deploy.cli.console import step
from deploy.cli.groups import grouped
from lut.files import check_writable


@grouped
def export(
    *,
    model: options.Model = options.DEFAULT_MODEL,
    given: options.SourceOptions,
    ends: options.EndOptions,
    out: options.Out = None,
) -> None:
    """Write the ONNX graph.

    Batch norm folded, image or tensor in, labels or logits out.
    """
    if out:
        check_writable(out)
    with step(f"exporting {model}") as progress:
        source = options.open_model(model, given, ends)
        from deploy.graph.export import save_onnx

        path = out or Path(f"{source.metadata.file_name}.onnx")
        save_onnx(source.graph, path)
        progress.result = f"{path.stat().st_size / 1e6:.1f} MB; weights: {source.weights}"
    print(path)
