"""What determines one of these networks, as data. No torch: names are looked up without it."""

from dataclasses import dataclass
from typing import Literal

from hmseg.genotype import MRMS_GENOTYPE, Genotype
from hmseg.widths import scale_channels
from lut.errors import UserError

# Rows of the paper's Table 4: (a) concatenation, (b) with LGE, (c) LCF, (d) LCF with LGE.
Head = Literal["concat", "concat-lge", "lcf", "lcf-lge"]


@dataclass(frozen=True)
class MRMSConfig:
    """Everything that determines the network; widths are derived here, once."""

    genotype: Genotype = MRMS_GENOTYPE
    width: float = 1.0
    num_classes: int = 19
    head: Head = "lcf-lge"

    def __post_init__(self) -> None:
        if self.width not in (0.5, 1.0):
            raise UserError(f"width {self.width} is not built; choose 0.5 or 1.0")
        check_num_classes(self.num_classes)

    def scaled(self, channels: int) -> int:
        """MobileNetV2's rounding of channels * width to a multiple of 8, never below 90%."""
        return scale_channels(channels, self.width)


def check_num_classes(count: int) -> None:
    """Raise UserError for classes that labels cannot tell apart."""
    if not 2 <= count <= 255:
        raise UserError(f"num_classes is {count}; labels are uint8 and 255 is void: 2 to 255")
