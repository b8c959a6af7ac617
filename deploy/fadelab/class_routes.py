"""Packet classes of the transport and of the link: named once, they find each other."""

from collections.abc import Sequence
from typing import Any

from fadelab.methods.base import MethodPieces
from fadelab_agent.routes import ClassRoutes, MarkedShare, UplinkShares
from fadelab_emulation.packet_class import PacketClassConfig


def marked_routes(routes: ClassRoutes, classes: Sequence[PacketClassConfig]) -> ClassRoutes:
    """Return the routes with every mark decided: a link's class of the same name gives its own.

    Raises:
        ValueError: if transport and link name different marks for a class.

    """
    links = {link.name: link for link in classes}
    decided: dict[str, Any] = {}
    for name, route in routes.items():
        link = links.get(name)
        if link is not None and link.dscp is None and name in routes.model_fields_set:
            raise ValueError(
                f"radio.classes tells '{name}' by port {link.port}, but transport.classes.{name} "
                "can mark packets by dscp alone: give the radio's class a dscp"
            )
        of_link = None if link is None else link.dscp
        if None not in (of_link, route.dscp) and of_link != route.dscp:
            raise ValueError(
                f"transport.classes.{name}.dscp is {route.dscp}, but radio.classes tells '{name}' "
                f"by dscp {of_link}: leave the first one out, or give both the same"
            )
        dscp = route.dscp if of_link is None else of_link
        decided[name] = route.model_copy(update={"dscp": dscp or 0})
    return routes.model_copy(update=decided)


def uplink_shares(classes: Sequence[PacketClassConfig], server_port: int) -> UplinkShares:
    """Return how a link with these packet classes divides the uplink's rate among marks."""
    rest = 1 - sum(link.rate_share_up for link in classes)
    own = [link.rate_share_up for link in classes if link.port == server_port]
    return UplinkShares(
        default=own[0] if own else rest,
        marked=tuple(
            MarkedShare(dscp=link.dscp, rate_share=link.rate_share_up)
            for link in classes
            if link.dscp is not None
        ),
    )


def check_losses(routes: ClassRoutes, pieces: MethodPieces) -> None:
    """Raise ValueError where a class may lose packets that its method cannot do without."""
    for name, route in routes.datagrams():
        if route.repeats == 0 and pieces.cut_updates not in ("keep", "substitute"):
            raise ValueError(
                f"transport.classes.{name} sends datagrams without repeats, but the method takes "
                f"whole updates only (cut_updates is {pieces.cut_updates}): one lost datagram "
                "would cost the update; set method.cut_updates to keep, or repeats to 1 or more"
            )
