from deploy.measure.ceilings import Ceilings


def test_each_type_has_its_rate():
    plain = Ceilings(2, 100.0, ())
    low = Ceilings(2, 100.0, (), {"bfloat16": 210.0})
    assert (plain.gflops("bfloat16"), low.gflops("bfloat16"), low.gflops("float32")) == (
        100,
        210,
        100,
    )
    assert (plain.highest_gflops, low.highest_gflops) == (100, 210)
    assert (str(plain), str(low)) == ("100.0 GFLOP/s", "100.0 GFLOP/s, 210.0 in bfloat16")


def test_rate_of_a_working_set_is_that_of_the_level_that_holds_it():
    ceilings = Ceilings(2, 100.0, ((16 << 10, 400.0), (256 << 10, 200.0), (1 << 30, 20.0)))
    assert ceilings.read_gbytes_per_s(1000) == 400
    assert ceilings.read_gbytes_per_s(32 << 10) == 400  # both threads' share
    assert ceilings.read_gbytes_per_s((32 << 10) + 1) == 200
    assert ceilings.read_gbytes_per_s(1 << 40) == 20
