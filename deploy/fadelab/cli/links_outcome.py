"""What the end of a run says of its links, in a few lines."""

from collections.abc import Iterator

from fadelab.results.schema import LinkFidelity, Summary


def link_rows(summary: Summary) -> Iterator[tuple[str, str]]:
    """Yield titles and texts; wrong connectivity, loss and delay only where there are any."""
    if summary.links.variant is not None:
        yield "back-end", f"{summary.links.variant}: {summary.links.why}"
    if summary.links.oracle:
        yield "prediction", "oracle: devices knew the true future"
    links = [link for device in summary.devices.values() for link in (device.up, device.down)]
    ratios = [link.ratio for link in links if link.ratio is not None]
    if ratios:
        leaked = f"{summary.total.leaked_packets} leaked packets"
        yield "links", f"achieved / programmed {min(ratios):.3f} to {max(ratios):.3f}, {leaked}"
    yield from _connectivity(summary)
    yield from _losses(links)
    errors_ms = [link.delay.error_ms for link in links if link.delay is not None]
    if errors_ms:
        yield "delay", f"off by {min(errors_ms):+.2f} to {max(errors_ms):+.2f} ms (link medians)"


def _connectivity(summary: Summary) -> Iterator[tuple[str, str]]:
    total = summary.total.connectivity
    if total is None:
        return
    passed = total.up.closed_passed + total.down.closed_passed
    stuck = total.up.open_stuck + total.down.open_stuck
    if passed or stuck:
        yield "connectivity", f"wrong intervals: {passed} of closed links, {stuck} of open ones"


def _losses(links: list[LinkFidelity]) -> Iterator[tuple[str, str]]:
    losses = [link.loss for link in links if link.loss is not None and link.loss.z is not None]
    if losses:
        lost, expected = sum(x.lost for x in losses), sum(x.expected for x in losses)
        worst = max((x.z for x in losses if x.z is not None), key=abs)
        yield (
            "packet loss",
            f"{lost} packets, {expected:.0f} expected; worst link {worst:+.1f} standard deviations",
        )
