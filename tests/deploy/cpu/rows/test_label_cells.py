import pytest

from deploy.bilinear import Axis
from deploy.cpu.isa import AVX2, AVX512, NEON
from deploy.cpu.rows.label_cells import CellTile, best_cell_tile, pack_bands


@pytest.mark.parametrize(
    ("isa", "factor", "tile"),
    [
        (AVX512, 8, CellTile(8, 2, 4)),  # all of a cell
        (AVX512, 4, CellTile(4, 4, 1)),
        (AVX512, 16, CellTile(16, 1, 8)),  # in two bands
        (AVX512, 3, CellTile(4, 4, 1)),
        (AVX2, 8, CellTile(8, 1, 4)),  # 16 registers: in two bands
        (AVX2, 4, CellTile(4, 2, 2)),
        (NEON, 8, CellTile(4, 1, 8)),
        (NEON, 2, CellTile(4, 1, 2)),
    ],
)
def test_tiles_fit_cells_and_registers(isa, factor, tile):
    found = best_cell_tile(isa, Axis(32, 32 * factor), Axis(64, 64 * factor))
    assert found == tile
    assert found.px * found.rows == isa.lanes
    assert 2 * found.vectors < isa.registers


def test_a_band_is_read_whole_at_the_end_of_the_rows():
    rows, tile = Axis(3, 12), CellTile(4, 2, 3)
    starts, share = pack_bands(rows, tile)
    assert starts.tolist() == [0, 6, 10, 12]  # half a row of the scores lies above the first
    assert share.size == (rows.out + tile.band) * tile.px
    shares = share.reshape(-1, tile.px)
    assert (shares == shares[:, :1]).all()
    assert shares[:6, 0].tolist() == [0, 0, 0.125, 0.375, 0.625, 0.875]
    assert not shares[rows.out :].any()
