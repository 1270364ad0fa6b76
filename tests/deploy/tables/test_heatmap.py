from deploy.tables.heatmap import heatmap_columns
from hmseg.operators import OPERATORS, Space


def test_every_operator_entry_has_its_place_once():
    space = Space((256, 512), 0.5)
    columns = heatmap_columns(space)
    assert len(columns) == 35
    assert all(len(keys) == len(OPERATORS) for keys in columns.values())
    cells = [key for keys in columns.values() for key in keys]
    assert len(cells) == len(set(cells)) == 315
    assert set(cells) == space.operator_keys()
    for keys in columns.values():
        for op, key in zip(OPERATORS, keys, strict=True):
            assert key.kernel == op.kernel
            assert key.op == "stem_block" or key.hidden == key.cin * op.expansion
