from deploy.measure.ceilings import Ceilings


def test_rate_of_a_working_set_is_that_of_the_level_that_holds_it():
    ceilings = Ceilings(2, 100.0, ((16 << 10, 400.0), (256 << 10, 200.0), (1 << 30, 20.0)))
    assert ceilings.read_gbytes_per_s(1000) == 400
    assert ceilings.read_gbytes_per_s(32 << 10) == 400  # both threads' share
    assert ceilings.read_gbytes_per_s((32 << 10) + 1) == 200
    assert ceilings.read_gbytes_per_s(1 << 40) == 20
