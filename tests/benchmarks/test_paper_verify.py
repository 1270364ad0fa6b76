"""Which networks are verified, which are not again, and what docs/paper.md says of them."""

import json
from dataclasses import replace

import pytest

from benchmarks import paper_page, paper_verify
from benchmarks.paper_verify import Verified, describe, jobs, main, read, verify, worst
from deploy.paper.jobs import Job
from deploy.resolution import Resolution
from deploy.verify import Comparison


@pytest.fixture(scope="module")
def line():
    """A network that is small here, for real: all three sides."""
    return verify(Job("tiny-mrms", Resolution(64, 64), 19), 2)


def test_torch_and_the_binary_are_compared(line):
    assert line.failed == ""
    assert set(line.shares) == {"torch", "tvm"}
    assert all(0 < share <= 1 for share in line.shares.values())
    assert (line.images, line.left_to_tvm, line.parameters) == (5, 0, 621_827)
    assert "of what is allowed on 5 images" in describe(line)


def test_every_network_of_the_paper_at_its_sizes():
    found = {str(job) for job in jobs(paper_verify.DEFAULT)}
    wanted = {"segnet 360x640", "icnet 1024x2048", "icnet 720x960", "jppnet 512x512",
              "mrms-a 768x1536", "deeplabv3plus-mobilenet-v2 768x1536"}  # fmt: skip
    assert wanted <= found
    assert len(found) == len(jobs(paper_verify.DEFAULT))  # each once


def test_what_passed_is_not_done_again(tmp_path, monkeypatch, capsys, line):
    done = []

    def stand_in(job, threads):
        done.append(job)
        failed = "torch does not match" if job.network == "mrms-b" else ""
        return replace(line, **{
            "network": job.network, "resolution": str(job.resolution), "failed": failed,
        } | dict(zip(("macs", "parameters"), paper_verify.count(job), strict=True)))  # fmt: skip

    monkeypatch.setattr(paper_verify, "verify", stand_in)
    out = tmp_path / "verify.jsonl"
    assert main(["table4", "-o", str(out)]) == 1
    assert "mrms-b 768x1536: FAILED: torch does not match" in capsys.readouterr().out
    assert main(["table4", "-o", str(out)]) == 1
    assert [job.network for job in done] == ["mrms-a", "mrms-b", "mrms-c", "mrms", "mrms-b"]
    assert len(read(out)) == 4  # the newest of each
    text = paper_page.checked(read(out))
    assert "3 of 4 passed, of " in text
    assert "Kernels left to TVM: none" in text
    assert "FAILED: mrms-b at 768x1536: torch does not match." in text
    assert main(["table9", "-o", str(out)]) == 2


def test_lines(tmp_path, line):
    (tmp_path / "v.jsonl").write_text(json.dumps(vars(line)) + "\n")
    assert read(tmp_path / "v.jsonl") == [line]
    assert read(tmp_path / "none.jsonl") == []
    assert isinstance(line, Verified)
    assert "The second was not run yet." in paper_page.checked([])


def test_the_worst_of_all_images():
    found = [Comparison("torch", image, error, 2.0, 0, 0) for image, error in (("a", 1), ("b", 2))]
    assert worst(found) == {"torch": 1.0}
