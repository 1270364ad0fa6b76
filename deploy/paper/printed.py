"""What the paper prints, row by row, and what of it is wrong or of another network.

"When Humans Meet Machines: Towards Efficient Segmentation Networks" (BMVC 2020). Figures stand as
they are printed, with the digits that they have there; cells whose print is not known here are
empty. A note says what a figure really is, and where that is known from. What this project counts
and measures is never written down here.
"""

from dataclasses import dataclass, field
from typing import Literal

About = Literal["network", "gmacs", "mparams", "fps", "miou"]


@dataclass(frozen=True)
class Printed:
    """Cells of one row, as printed: multiply-accumulates (the paper says FLOPs) in 1e9, parameters
    in 1e6, mIoU in percent, frames per second, milliseconds."""

    gmacs: str = ""
    mparams: str = ""
    miou: str = ""
    fps: str = ""
    ms: str = ""


@dataclass(frozen=True)
class Note:
    """A footnote on one cell: `corrected` is what should stand there, where that is known."""

    about: About
    text: str
    corrected: str = ""
    source: str = ""

    def __str__(self) -> str:
        instead = f"should be {self.corrected}: " if self.corrected else ""
        source = f" Source: {self.source}." if self.source else ""
        return f"{instead}{self.text}.{source}"


@dataclass(frozen=True)
class Row:
    """One row: `network` is what measures it (`hmseg.create_model`), None where nothing can, which
    `missing` explains; `sizes` are the paper's resolutions, HxW. `miou`: this project's own figure
    where no released weights have one, which a note explains. `stands_in`: what is measured is not
    the network that is printed, so that the printed mIoU is not its own."""

    key: str
    label: str
    network: str | None
    sizes: tuple[str, ...]
    classes: int = 19
    printed: Printed = field(default_factory=Printed)
    notes: tuple[Note, ...] = ()
    missing: str = ""
    miou: str = ""
    stands_in: bool = False


COUNTED = "counted by this project from the layers of"
FULL, HD, SQUARE = ("1024x2048",), ("768x1536",), ("1024x1024",)
CAS_MISSING = (
    "its found cells are published only as a drawing and its code never was: nobody can measure it"
)
_CAS = Row(
    "cas", "CAS", None, HD, missing=CAS_MISSING,
    printed=Printed("12.0", "1.7", "70.5", "108", "9.3"),
    notes=(
        Note("miou", "70.5 is its test figure; its abstract says 72.3 at 108 FPS on a TitanXp",
             source="arXiv 1908.09550, abstract"),
    ),
)  # fmt: skip
_HALF_NOTE = Note(
    "network",
    "the authors' searched network was never published; this is what this project's own search "
    "found at half width, trained on nothing but CamVid",
)
_FULL_NOTE = Note(
    "network", "the authors' searched network was never published; the name is kept for this "
    "project's own search at full width",
)  # fmt: skip

TABLE_1 = (
    Row(
        "segnet", "SegNet", "segnet", ("360x640",),
        printed=Printed("286", "29.5", "", "16.7", "59.9"),
        notes=(
            Note("gmacs", "this cell alone counts two operations for each multiply-accumulate",
                 "142.8", f"{COUNTED} alexgkendall/SegNet-Tutorial @bb68b64; with 20 classes "
                 "142.9, twice which is 285.8"),
        ),
    ),
    Row(
        "icnet", "ICNet", "icnet", FULL, printed=Printed("", "26.5", "", "30.3", "33.0"),
        notes=(
            Note("mparams", "26.5 are megabytes of float32 weights (6.70 M x 4 bytes = 26.8 MB), "
                 "copied from table to table since", "6.70",
                 f"{COUNTED} hszhao/ICNet's prototxt @dd2bf78; that it is megabytes is inferred"),
        ),
    ),
    Row(
        "erfnet", "ERFNet", "erfnet", ("512x1024",),
        printed=Printed("27.7", "20", "", "11.2", "89.3"),
        notes=(
            Note("gmacs", "4% more than the network has",
                 source=f"{COUNTED} Eromera/erfnet_pytorch @d4a46fa"),
            Note("mparams", "a slip of the decimal point", "2.06",
                 f"{COUNTED} Eromera/erfnet_pytorch @d4a46fa; its paper says 2.06"),
        ),
    ),
    Row(
        "swiftnet", "SwiftNet", "swiftnet-mnv2", FULL,
        printed=Printed("41.0", "2.4", "69.4", "27.7", "36.1"),
        notes=(
            Note("network", "the MobileNetV2 variant, trained from scratch; the well-known "
                 "SwiftNet is on ResNet-18 (11.8 M, 104 G, 39.9 FPS, 75.5% test)",
                 source="counts, and orsic/swiftnet @2b88990, which has no MobileNetV2: its "
                 "decoder's details are inferred"),
            Note("gmacs", "7% more than the network as inferred has"),
            Note("miou", "a validation figure among test figures"),
        ),
    ),
    Row(
        "fast-scnn", "Fast-SCNN", "fast-scnn", FULL,
        printed=Printed("11.7", "1.1", "", "106.2", "9.4"),
        notes=(
            Note("gmacs", "neither multiply-accumulates nor twice as many (13.4)", "6.71",
                 f"{COUNTED} Tramac/Fast-SCNN-pytorch @0638517; where 11.7 comes from is unknown"),
        ),
    ),
    Row(
        "dfanet", "DFANet", "dfanet-b", SQUARE,
        printed=Printed("2.1", "4.8", "67.1", "120", "8.3"),
        notes=(
            Note("network", "variant B; A has 3.4 G, 100 FPS and 71.3%",
                 source="multiply-accumulates of both variants, from two ports: lxtGH/Fast_Seg "
                 "@7895738, huaifeng1993/DFANet @3444e2f"),
            Note("mparams", "seems to be megabytes (1.10 M x 4 bytes = 4.4 MB)", "1.10",
                 "counted by this project from the two ports; that it is megabytes is inferred"),
        ),
    ),
    Row(
        "bisenet", "BiSeNet", "bisenetv1-x39", HD,
        printed=Printed("14.8", "5.8", "68.4", "105.8", "9.5"),
        notes=(
            Note("network", "the Xception39 variant; that on ResNet-18 has 74.7% and 65.5 FPS",
                 source="ycszen/TorchSeg @62eeb15"),
            Note("gmacs", "5% less than the network has",
                 source=f"{COUNTED} ycszen/TorchSeg @62eeb15"),
            Note("mparams", "5.8 are MiB of float32 weights (1.542 M x 4 bytes = 5.88 MiB)",
                 "1.54", f"{COUNTED} ycszen/TorchSeg @62eeb15; that it is MiB is inferred, both "
                 "variants fit"),
        ),
    ),
    Row(
        "mobilenetv3", "MobileNetV3", "lraspp-mobilenet-v3-large", FULL,
        printed=Printed("9.74", "1.51", "72.4", "46.6", "21.5"),
        notes=(
            Note("gmacs", "5% more than the network has at this size, 3% more than the 9.48 "
                 "that it has at 1025x2049", source=f"{COUNTED} tensorflow/models"),
            Note("miou", "a validation figure among test figures"),
            Note("fps", "no source in its own paper"),
        ),
    ),
    Row(
        "df1-seg", "DF1-Seg-d8", "df1-seg", FULL,
        printed=Printed("28.2", "6.7", "", "136.9", "7.3"),
        notes=(
            Note("network", "d8 is most likely the same network, read at 1/8 of the size",
                 source="names of layers in lixincn2015/Partial-Order-Pruning @e136726; inferred"),
            Note("gmacs", "less than its backbone alone has (31.2)", "41.6",
                 f"{COUNTED} its prototxt @e136726"),
            Note("mparams", "less than its backbone alone has (8.02); of ICNet 6.7 M and 28.3 G "
                 "are published, of FasterSeg 28.2 G: whose this row's are is unknown",
                 "13.1", f"{COUNTED} its prototxt @e136726; FasterSeg's: the README of iNAS"),
            Note("fps", "with TensorRT 3.0.4 on a GTX 1080 Ti", source="its README"),
        ),
    ),
    _CAS,
    Row("mrms", "MRMS", "mrms", HD, printed=Printed("7.33", "2.1")),
    Row(
        "tiny-mrms", "TinyMRMS", "tiny-mrms", HD, printed=Printed("2.8", "0.6"),
        notes=(
            Note("mparams", "97.7% fewer parameters than ICNet, as the text says, are so against "
                 "26.5; against its 6.70 M it is 91%", source="the note on ICNet"),
        ),
    ),
    Row("hmseg", "HMSeg", "hmseg", HD, printed=Printed("8.1", "2.3"), notes=(_FULL_NOTE,),
        stands_in=True),
    Row(
        "tiny-hmseg", "HMSeg, half width", "tiny-hmseg", HD,
        printed=Printed("3.0", "0.7", "71.4", "172.4"), notes=(_HALF_NOTE,), stands_in=True,
    ),
)  # fmt: skip

_CAMVID = ("720x960",)
TABLE_2 = (
    Row("enet", "ENet", "enet", _CAMVID, 11),
    Row("icnet", "ICNet", "icnet", _CAMVID, 11),
    Row(
        "bisenet", "BiSeNet", "bisenetv1-x39", _CAMVID, 11, Printed(miou="65.6"),
        (Note("network", "the Xception39 variant, as in Table 1"),),
    ),
    Row("fast-scnn", "Fast-SCNN", "fast-scnn", _CAMVID, 11),
    Row("cas", "CAS", None, _CAMVID, 11, missing=CAS_MISSING),
    Row("mrms", "MRMS", "mrms", _CAMVID, 11),
    Row("tiny-mrms", "TinyMRMS", "tiny-mrms", _CAMVID, 11),
    Row("hmseg", "HMSeg", "hmseg", _CAMVID, 11, notes=(_FULL_NOTE,), stands_in=True),
    Row(
        "tiny-hmseg", "HMSeg, half width", "tiny-hmseg", _CAMVID, 11, notes=(_HALF_NOTE,),
        stands_in=True,
    ),
)  # fmt: skip

_LIP = ("512x512",)
TABLE_3 = (
    Row(
        "deeplab", "DeepLab", "deeplabv2-r101", _LIP, 20, Printed("183.1", "42.5"),
        (
            Note("mparams", "42.50 M is ResNet-101 without the pyramid, which the "
                 "multiply-accumulates include", "43.97", "counted by this project"),
        ),
    ),
    Row(
        "jppnet", "JPPNet", "jppnet", _LIP, 20, Printed("374.0", "93.4"),
        (
            Note("network", "measured here: the part that parses, refined once; the print also "
                 "refines the pose, and what its authors evaluate refines twice (107.8 M, 444.7 G) "
                 "at three scales, flipped", source="Engineering-Course/LIP_JPPNet @f274c9b"),
            Note("gmacs", "3% less than the network has with its pose refined too (385.7)",
                 source=f"{COUNTED} Engineering-Course/LIP_JPPNet @f274c9b"),
        ),
    ),
    Row("ce2p", "CE2P", "ce2p", _LIP, 20, Printed("87.7", "66.7")),
    Row("mrms", "MRMS", "mrms", _LIP, 20),
    Row("tiny-mrms", "TinyMRMS", "tiny-mrms", _LIP, 20),
    Row("hmseg", "HMSeg", "hmseg", _LIP, 20, Printed("1.8", "2.3"), (_FULL_NOTE,),
        stands_in=True),
    Row("tiny-hmseg", "HMSeg, half width", "tiny-hmseg", _LIP, 20, Printed("0.7", "0.7"),
        (_HALF_NOTE,), stands_in=True),
)  # fmt: skip

TABLE_4 = (
    Row("a", "(a) concatenation", "mrms-a", HD, printed=Printed("6.35", "1.8")),
    Row("b", "(b) with LGE", "mrms-b", HD, printed=Printed("6.37", "1.8")),
    Row("c", "(c) LCF", "mrms-c", HD, printed=Printed("7.32", "2.0")),
    Row("d", "(d) LCF and LGE: MRMS", "mrms", HD, printed=Printed("7.33", "2.1")),
)
