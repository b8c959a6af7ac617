"""The report's card on signs and moduli."""

from report_outline import text_of
from report_runs import change, make_run, with_links

from fadelab.report.sp_fl import sp_fl
from fadelab.results.schema import ClassTraffic
from fadelab.results.sp_fl_schema import ClassArrivals, SpFlRounds

SIGNS = ClassArrivals(
    packets=40, predicted=0.875, empirical=0.85, low=0.77, high=0.98, inside=True, carried=0.825
)
ROUNDS = SpFlRounds(
    loss="deadline",
    rounds=5,
    updates=40,
    both=10,
    signs_alone=24,
    none=6,
    sign=SIGNS,
    modulus=ClassArrivals(packets=34),
    mean_sign_power=0.6,
    last_kappa=None,
)
QUEUES = [
    ClassTraffic(name="default", packets=11, bytes=1_100, overflowed=0),
    ClassTraffic(name="sign", packets=70, bytes=71_000, overflowed=3),
    ClassTraffic(name="modulus", packets=90, bytes=99_000),
]


def test_predicted_carried_and_arrived_stand_beside_the_queues_of_every_device() -> None:
    run = change(with_links(make_run(2), classes=QUEUES), sp_fl=ROUNDS)
    card = sp_fl(run)
    visible = text_of(card)
    assert "Loss mode deadline" in visible
    for share in ("87.5 %", "77.0 % to 98.0 %", "82.5 %", "85.0 %"):
        assert share in visible
    # Two classes with their headings; two devices with theirs.
    assert card.count("<tr>") == 3 + 3
    assert "142000" in visible
    for device in run.devices.values():
        assert str(device.bytes.up.wire) in visible


def test_other_methods_have_no_such_card() -> None:
    assert not sp_fl(make_run(2))
