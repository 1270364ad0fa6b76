import subprocess
import sys

from benchmarks.networks import table


def test_ratio_to_the_first_round_by_round():
    rows = table({"a": [[1_000_000, 1_000_000], [2_000_000]], "b": [[1_500_000], [2_500_000]]})
    assert rows[2] == "| a | 1.500 [1.000..2.000] | 1.000 [1.000..1.000] |"
    assert rows[3] == "| b | 2.000 [1.500..2.500] | 1.375 [1.250..1.500] |"


def test_a_mistake_is_one_line_and_exit_code_2():
    command = [sys.executable, "-m", "benchmarks.networks", "missing.hmseg"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: missing.hmseg: no such file\n"
