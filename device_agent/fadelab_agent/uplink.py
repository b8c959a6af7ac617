"""Getting one update to the server, through closing windows, broken streams and restarts."""

import asyncio
import math
from collections.abc import Coroutine

import grpc

from fadelab_agent.encoded_update import EncodedUpdate
from fadelab_agent.progress import (
    FRUITLESS_ATTEMPTS,
    RETRY_PAUSE_S,
    ProgressWatch,
    StalledError,
)
from fadelab_agent.radio import Radio
from fadelab_agent.upload_attempt import SessionLostError, UploadAttempt, UploadOutcome
from fadelab_agent.upload_ways import UploadWays
from fadelab_proto.clock import Clock
from fadelab_proto.events import EventLog

__all__ = ["ContactLostError", "SessionLostError", "Uplink", "UploadOutcome"]


class ContactLostError(Exception):
    """The contact window ended."""


class Uplink:
    """Upload updates, resuming where the server says it stands.

    Args:
        ways: where each packet class goes; a channel takes all of them in one stream.
        radio: tells contact and rate.
        clock: paces attempts.
        log: where broken attempts are told of.
        stall_s: seconds in contact without progress that are always tolerated.

    """

    def __init__(
        self,
        ways: UploadWays | grpc.aio.Channel,
        *,
        radio: Radio,
        clock: Clock,
        log: EventLog,
        stall_s: float,
    ) -> None:
        self._ways = ways if isinstance(ways, UploadWays) else UploadWays.one_stream(ways)
        self._radio = radio
        self._clock = clock
        self._log = log
        self._stall_s = stall_s

    async def upload(
        self,
        update: EncodedUpdate,
        outcome: UploadOutcome | None = None,
        *,
        gives_up: bool = False,
    ) -> UploadOutcome:
        """Send ``update`` until the server has taken or refused it.

        Args:
            update: what to send.
            gives_up: whether the end of the contact window ends the update too: in the next one the
                server is told to do with what has arrived, and nothing more is sent.
            outcome: filled in as the upload goes on. After a new join, give the one of the
                upload that lost its session, so that it is resumed and not begun again.

        Raises:
            StalledError: if several attempts in a row moved nothing although the link was open.
            DatagramTooLongError: if a packet that is to travel as a datagram does not fit.
            SessionLostError: if the server asks for a new join.

        """
        outcome = outcome or UploadOutcome()
        fruitless = 0
        while True:
            await self._radio.contact()
            outcome.attempts += 1
            watch = self._watch(update)
            blamed = True
            attempt = self._attempt(update, outcome, watch)
            try:
                if await (self._in_contact(attempt, outcome) if gives_up else attempt):
                    return outcome
                cause = "the server ended the stream early"
            except ContactLostError:
                # However little a short window carries, it says nothing of the transfer.
                cause, blamed = "the contact window closed", False
            except grpc.aio.AioRpcError as error:
                cause = f"{error.code().name}: {error.details()}"
            except StalledError as error:
                cause = str(error)
            fruitless = 0 if watch.pieces else fruitless + blamed
            self._log.write(
                "upload_interrupted",
                update_id=update.header.update_id,
                cause=cause,
                acknowledged=len(outcome.acknowledged),
                packets=len(update.packets),
            )
            if fruitless >= FRUITLESS_ATTEMPTS:
                raise StalledError(
                    f"update {update.header.update_id}: {fruitless} attempts in a row moved no "
                    f"packet beyond {len(outcome.acknowledged)} of {len(update.packets)}; "
                    f"last cause: {cause}"
                )
            await self._clock.sleep_until(self._clock.now_s() + RETRY_PAUSE_S)

    async def _in_contact(
        self, attempt: Coroutine[None, None, bool], outcome: UploadOutcome
    ) -> bool:
        """Return what an attempt does, or break it off at the end of the contact window."""
        trying = asyncio.create_task(attempt)
        lost = asyncio.create_task(self._radio.loss_of_contact())
        try:
            await asyncio.wait((trying, lost), return_when=asyncio.FIRST_COMPLETED)
            if trying.done():
                return trying.result()
            outcome.given_up = True
            raise ContactLostError
        finally:
            for task in (trying, lost):
                task.cancel()
            await asyncio.gather(trying, lost, return_exceptions=True)

    def _watch(self, update: EncodedUpdate) -> ProgressWatch:
        longest = max((len(packet) for packet in update.packets), default=0)
        return ProgressWatch(
            self._radio,
            unit_bytes=math.ceil(longest / self._ways.least_share),
            minimum_s=self._stall_s,
            uplink=True,
        )

    async def _attempt(
        self, update: EncodedUpdate, outcome: UploadOutcome, watch: ProgressWatch
    ) -> bool:
        """Send what is missing once; return whether the server is done with the update."""
        attempt = UploadAttempt(self._ways, update, outcome, watch, self._clock)
        return await watch.guard(attempt.run())
