"""Logged decisions made again: the same policy must make the same of the same observations."""

from fadelab.results.record import Event, RunRecord, number
from fadelab.twin.schema import DecisionReplay
from fadelab_agent.contact_decision import decides_alike
from fadelab_agent.policy import PolicyConfig, build_policy

_NAMED = 5


def replay_decisions(record: RunRecord, config: PolicyConfig) -> DecisionReplay:
    """Give every logged observation to the policy, and compare what it decides.

    Floats are compared to the last bit, which JSON keeps. The library of mathematical functions of
    another machine may differ there.
    """
    policy = build_policy(config)
    replayed = incomplete = 0
    differing: list[Event] = []
    for name, skipped in (("plan", False), ("contact_skipped", True)):
        for event in record.of("agent", name):
            alike = decides_alike(policy, event, skipped=skipped)
            if alike is None:
                incomplete += 1
                continue
            replayed += 1
            if not alike:
                differing.append(event)
    return DecisionReplay(
        replayed=replayed,
        incomplete=incomplete,
        mismatches=len(differing),
        mismatched=[_name(record, event) for event in differing[:_NAMED]],
    )


def _name(record: RunRecord, event: Event) -> str:
    t_s = number(event, "mono_s") - (record.start_mono_s or 0.0)
    return f"device {event['id']}, update {int(number(event, 'update_id'))}, {t_s:.3f} s"
