"""Forked processes: what they leave behind when they fail, die or do not want to end."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

import pytest

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.local.children import Channel, Child, Family, exit_code_of, fork_child, how_it_ended
from fadelab.local.nursery import send_descriptors
from fadelab_agent.membership import RefusedError
from fadelab_agent.tasks import DataSetMissing
from fadelab_emulation.sandbox import Refusal, SandboxError
from fadelab_server.app import ListenError
from fadelab_server.checkpoint import CheckpointError

# Other tests of the session may have left threads behind, beside which forking earns a warning.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")

LONG_S = 30.0


def fail(error: BaseException) -> Callable[[Channel], None]:
    def body(_: Channel) -> None:
        raise error

    return body


def obedient(channel: Channel) -> None:
    """Say that it lives, then do nothing until SIGTERM."""
    channel.send(ready=True)
    signal.pause()


def stubborn(channel: Channel) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    channel.send(ready=True)
    while True:
        signal.pause()


def in_family(children: list[Child], scenario: Callable[[Family], Awaitable[None]]) -> None:
    async def main() -> None:
        family = Family()
        for child in children:
            family.adopt(child)
        try:
            await asyncio.wait_for(scenario(family), LONG_S)
        finally:
            for child in children:
                await family.end(child, grace_s=0)

    asyncio.run(main())


def last_words(child: Child) -> tuple[object, object, int]:
    message = child.channel.receive()
    _, status = os.waitpid(child.pid, 0)
    os.close(child.descriptor)
    assert message is not None
    return message["failed"], message["code"], os.waitstatus_to_exitcode(status)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (FadelabError(ExitCode.INTERRUPTED, "no more"), ExitCode.INTERRUPTED),
        (ListenError("no port"), ExitCode.ADDRESS_IN_USE),
        (CheckpointError("no disk"), ExitCode.CHECKPOINT),
        (RefusedError("not you"), ExitCode.REFUSED),
        (SandboxError(Refusal.USER_NAMESPACES_OFF, "no namespaces"), ExitCode.ENVIRONMENT),
        (DataSetMissing("no pictures"), ExitCode.DATA_MISSING),
    ],
)
def test_a_known_error_becomes_a_sentence_and_its_exit_code(
    error: Exception, code: ExitCode
) -> None:
    sentence, sent, ended = last_words(fork_child("clerk", fail(error)))
    assert (sentence, sent, ended) == (f"clerk: {error}", code, code)


def test_a_defect_becomes_a_traceback_and_code_1(capfd: pytest.CaptureFixture[str]) -> None:
    sentence, sent, ended = last_words(fork_child("clerk", fail(LookupError("where?"))))
    assert sentence == "clerk: LookupError: where?"
    assert (sent, ended) == (1, 1)
    assert "Traceback" in capfd.readouterr().err


def test_only_known_errors_have_a_code() -> None:
    assert exit_code_of(RuntimeError("x")) is None
    assert exit_code_of(ListenError("x")) == ExitCode.ADDRESS_IN_USE


def test_a_child_does_not_run_its_parents_clean_up() -> None:
    reader, writer = os.pipe()
    child = None
    try:
        child = fork_child("clerk", lambda _: None)
    finally:
        os.write(writer, b"x")
    os.waitpid(child.pid, 0)
    os.close(child.descriptor)
    assert os.read(reader, 10) == b"x"
    os.close(reader)
    os.close(writer)


def test_messages_pass_both_ways_and_a_closed_end_reads_as_none() -> None:
    def echo(channel: Channel) -> None:
        while (message := channel.receive()) is not None:
            channel.send(echo=message)

    child = fork_child("echo", echo)
    child.channel.send(number=7, text="ü")
    assert child.channel.receive() == {"echo": {"number": 7, "text": "ü"}}
    child.channel.close()
    assert os.waitpid(child.pid, 0)[1] == 0
    os.close(child.descriptor)


def test_sending_to_a_process_that_is_gone_does_not_matter() -> None:
    ours, theirs = Channel.pair()
    theirs.close()
    ours.send(anybody=True)
    send_descriptors(ours, [0])
    assert ours.drain() == []
    ours.close()


def test_a_result_is_returned_while_all_children_live() -> None:
    async def scenario(family: Family) -> None:
        assert await family.unless_one_dies(child.channel.receive_async()) == {"ready": True}

    child = fork_child("worker", obedient)
    in_family([child], scenario)


def test_an_early_end_is_reported_in_the_childs_own_words() -> None:
    error = CheckpointError("the disk is full")

    async def scenario(family: Family) -> None:
        with pytest.raises(FadelabError, match=r"^clerk: the disk is full$") as caught:
            await family.unless_one_dies(asyncio.sleep(LONG_S))
        assert caught.value.code == ExitCode.CHECKPOINT

    in_family([fork_child("worker", obedient), fork_child("clerk", fail(error))], scenario)


def test_last_words_count_whoever_has_heard_them() -> None:
    async def scenario(family: Family) -> None:
        assert await child.channel.receive_async() is not None
        with pytest.raises(FadelabError, match=r"^clerk: the disk is full$") as caught:
            await family.unless_one_dies(asyncio.sleep(LONG_S))
        assert caught.value.code == ExitCode.CHECKPOINT

    child = fork_child("clerk", fail(CheckpointError("the disk is full")))
    in_family([child], scenario)


def test_a_child_that_was_killed_is_named_with_the_signal() -> None:
    async def scenario(family: Family) -> None:
        victim.signal(signal.SIGKILL)
        with pytest.raises(FadelabError, match="clerk ended unexpectedly with SIGKILL") as caught:
            await family.unless_one_dies(asyncio.sleep(LONG_S))
        assert caught.value.code == ExitCode.COMPONENT_FAILED

    victim = fork_child("clerk", obedient)
    in_family([victim], scenario)


def test_a_child_that_may_end_ends_without_harm() -> None:
    async def scenario(family: Family) -> None:
        async def work() -> str:
            await family.ended(child)
            return "done"

        assert await family.unless_one_dies(work(), may_end=("clerk",)) == "done"
        assert child.exit_code == 0

    child = fork_child("clerk", lambda _: None)
    in_family([child], scenario)


def test_a_child_that_may_end_must_still_end_well() -> None:
    async def scenario(family: Family) -> None:
        with pytest.raises(FadelabError, match="the disk is full"):
            await family.unless_one_dies(asyncio.sleep(LONG_S), may_end=("clerk",))

    in_family([fork_child("clerk", fail(CheckpointError("the disk is full")))], scenario)


def test_a_broken_connection_is_put_down_to_the_death_behind_it() -> None:
    async def scenario(family: Family) -> None:
        async def work() -> None:
            victim.signal(signal.SIGKILL)
            raise ConnectionResetError("stream ended")

        with pytest.raises(FadelabError, match="clerk ended unexpectedly with SIGKILL"):
            await family.unless_one_dies(work())

    victim = fork_child("clerk", obedient)
    in_family([victim], scenario)


def test_an_error_of_the_work_itself_stays_what_it_is() -> None:
    async def scenario(family: Family) -> None:
        async def work() -> None:
            raise ValueError("mine")

        with pytest.raises(ValueError, match="mine"):
            await family.unless_one_dies(work())

    in_family([fork_child("clerk", obedient)], scenario)


@pytest.mark.parametrize(
    ("body", "grace_s", "number"),
    [(obedient, LONG_S, signal.SIGTERM), (stubborn, 0.05, signal.SIGKILL)],
)
def test_end_asks_first_and_then_insists(
    body: Callable[[Channel], None], grace_s: float, number: signal.Signals
) -> None:
    async def scenario(family: Family) -> None:
        assert await child.channel.receive_async() == {"ready": True}
        await family.end(child, grace_s=grace_s)
        assert child.exit_code == -number
        await family.end(child, grace_s=grace_s)

    child = fork_child("worker", body)
    in_family([child], scenario)


def test_ends_are_put_into_words() -> None:
    assert how_it_ended(3) == "exit code 3"
    assert how_it_ended(-9) == "SIGKILL"


def test_giving_up_the_wait_for_an_end_leaves_the_end_to_be_seen() -> None:
    async def main() -> int:
        family = Family()
        child = fork_child("patient", lambda channel: channel.receive() and None)
        family.adopt(child)
        waiting = asyncio.create_task(family.ended(child))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        child.channel.send(go=True)
        return await asyncio.wait_for(family.ended(child), 30)

    assert asyncio.run(main()) == 0
