"""What is known of a row's mIoU, and where it is from."""

from dataclasses import dataclass

from deploy.paper.networks import released
from deploy.paper.printed import Row


@dataclass(frozen=True)
class Accuracy:
    """`text` as a cell shows it, empty where nothing is known; `percent` of the very network that
    is measured, None where that is not known; `printed` says " (print)" where it is not of this
    project; `note`: how it was measured, for a footnote."""

    text: str = ""
    percent: float | None = None
    printed: str = ""
    note: str = ""


def accuracy_of(row: Row) -> Accuracy:
    """Of released weights that were evaluated, else the project's own, else the printed one. The
    print of a row that another network stands in for is not the accuracy of that network."""
    own = released(row.network, row.classes) if row.network else None
    if own:
        validation = own.card["validation"]
        percent = float(validation["miou_percent"])
        note = f"measured: released weights of {own.card['data']}, {validation['protocol']}"
        return Accuracy(f"{percent:.1f}", percent, note=note)
    if row.miou:
        return Accuracy(row.miou, float(row.miou))
    if row.printed.miou:
        percent = float(row.printed.miou)
        printed = " (print)"
        return Accuracy(row.printed.miou + printed, None if row.stands_in else percent, printed)
    return Accuracy()
