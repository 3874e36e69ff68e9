"""The demo, with little training and few digits on the RTL; the report says what the table says."""

import json

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("torch")

from espalier.demo import data, machine, report, train

IMAGES = 12


def test_digits_are_rows_of_pixels():
    digits = data.digits()
    assert digits.train.shape == (1347, 8, 8) and digits.test.shape == (450, 8, 8)
    assert digits.train.min() == 0 and digits.train.max() == 1
    assert not {row.tobytes() for row in digits.test} <= {row.tobytes() for row in digits.train}


def test_costs_are_means_of_the_counters(running_sum):
    counters = {"cycles": 4000, "product_cycles": 1000, "words": 1500}
    run = machine.Run(scores=None, inferences=10, steps=8, counters=counters)
    cost = machine.measured(running_sum, run)
    assert (cost.cycles, cost.busy, cost.microseconds) == (400, 0.75, 4.0)
    assert cost.actual_per_cycle == 2 * 1500 * 4 / 4000 and cost.effective_per_cycle == 0


def test_agreement_counts_images():
    assert str(report.Agreement(images=12, equal=11)) == "11 of 12"


@pytest.mark.slow
def test_dense_8_bits_lose_at_most_one_sample():
    from espalier.demo.run import accuracy, scores

    digits = data.digits()
    model = train.train_float(digits, epochs=12)
    exact = accuracy(scores(model, digits), digits)
    assert exact > 0.9
    dense = accuracy(scores(train.dense_8_bit(model, digits), digits), digits)
    assert abs(dense - exact) <= 1 / len(digits.test) + 1e-9


@pytest.mark.slow
def test_the_demo_runs_and_reports_what_it_prints(tmp_path, capsys):
    from espalier.demo.run import run

    result = run(tmp_path, images=IMAGES, epochs=3)
    printed = capsys.readouterr().out
    saved = json.loads((tmp_path / "report.json").read_text())
    assert result.agreement.equal == result.agreement.images == IMAGES
    assert [v["name"] for v in saved["variants"]] == [
        "float",
        "8 bits",
        "compressed",
        "SMALL",
        "DE1_SOC",
    ]
    assert (tmp_path / "digits.png").stat().st_size > 10_000
    floats, *_, small, large = result.variants
    assert floats.size_bytes >= 8 * large.size_bytes
    assert saved["clock_origin"] == "assumed" and small.cost.source == "simulated"
    for variant in (small, large):
        assert 0 < variant.cost.busy < 1
        assert (
            f"{variant.cost.cycles:,.0f}" in printed
            and f"{variant.cost.microseconds:.1f}" in printed
        )
    assert f"{IMAGES} of {IMAGES}" in printed
