"""What each device is to do in its next local period: the second level, with what a run has shown."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from fadelab_proto.local_period import LocalPlan, compute_energy_j, compute_time_s
from fadelab_server.periods.figures import Figures
from fadelab_server.periods.knowledge import TaskKnowledge, Transfers
from fadelab_server.scheduler.config import SchedulingConfig
from fadelab_server.scheduler.horizon import (
    DeviceOutlook,
    PlannedPeriod,
    TaskOutlook,
    plan_device,
)
from fadelab_server.scheduler.knowledge import ProcessorTerms, period_terms
from fadelab_server.scheduler.objective import CostWeights, TaskWeights
from fadelab_server.scheduler.resources import PeriodTerms, resources


@dataclass(slots=True)
class Purse:
    """What one device has spent, and has been told to spend."""

    spent_j: float = 0.0
    price: float = 0.0
    """Of a watt, when the device was planned last."""
    committed_j: dict[int, float] = field(default_factory=dict)
    """By task, what the present period is planned to cost."""


class Planner:
    """Plans of local periods.

    A device's first period of each task is the experiment's own setting, since nothing is known
    then. So are all with ``resources: fixed``.

    Args:
        config: weights, limits and processors.
        tasks: what is known of each, in the server's order.
        mixing: alpha of an update without delay.

    """

    def __init__(
        self, config: SchedulingConfig, tasks: Sequence[TaskKnowledge], *, mixing: float
    ) -> None:
        self._config = config
        self._tasks = tasks
        self._mixing = mixing
        self._weights = CostWeights(
            config.learning_weight, config.device_energy_weight, config.station_energy_weight
        )
        self.purses = [Purse() for _ in config.capacitance_j_s2]
        self._told: dict[tuple[int, int], int] = {}
        self._transfers = {
            (task, device): Transfers()
            for task in range(len(config.tasks))
            for device in range(len(config.capacitance_j_s2))
        }

    def take_figures(self, task: int, device: int, figures: Figures) -> None:
        """Take a device's report on a period whose training is over."""
        self._tasks[task].take_figures(device, figures)
        self.purses[device].spent_j += figures.compute_j
        transfers = self._transfers[task, device]
        transfers.download_s, transfers.download_j = figures.download_s, figures.download_j
        # What computing costs is spent now; the upload is still to come.
        if task in self.purses[device].committed_j:
            self.purses[device].committed_j[task] = transfers.upload_j

    def take_upload(
        self, task: int, device: int, asked: int, *, upload_s: float, upload_j: float
    ) -> None:
        """Take what a device's upload took.

        Args:
            task: its number.
            device: its number.
            asked: the update that the device asks for next; asking again changes nothing.
            upload_s: the upload's time.
            upload_j: the device's energy.

        """
        if self._told.get((task, device)) == asked:
            return
        self._told[task, device] = asked
        self.purses[device].spent_j += upload_j
        transfers = self._transfers[task, device]
        transfers.upload_s, transfers.upload_j = upload_s, upload_j

    async def plan(
        self, task: int, device: int, *, samples: int, elapsed_s: float
    ) -> PlannedPeriod | None:
        """Return a device's next period of a task; None if none fits into its time and energy.

        Args:
            task: its number.
            device: its number.
            samples: D now.
            elapsed_s: of the window.

        """
        purse = self.purses[device]
        purse.committed_j.pop(task, None)
        left_s = self._config.window_s - elapsed_s
        budget_j = self._config.energy_budget_j
        left_j = (
            math.inf
            if budget_j is None
            else budget_j - purse.spent_j - sum(purse.committed_j.values())
        )
        known = device in self._tasks[task].views
        if self._config.resources == "fixed" or not known:
            planned = self._fixed(task, device, samples)
            if planned.energy_j > left_j:
                return None
        else:
            every = [number for number, own in enumerate(self._tasks) if device in own.views]
            outlook = DeviceOutlook(
                tuple(self._outlook(number, device) for number in every),
                devices=len(self.purses),
                window_s=self._config.window_s,
                left_s=left_s,
                left_j=left_j,
                likely_price=purse.price,
            )
            # It takes some milliseconds, and others ask meanwhile.
            found = (await asyncio.to_thread(plan_device, outlook))[every.index(task)]
            if found is None:
                return None
            planned = found
            purse.price = found.price
        purse.committed_j[task] = planned.energy_j
        return planned

    def _fixed(self, task: int, device: int, samples: int) -> PlannedPeriod:
        own = self._config.tasks[task]
        plan = LocalPlan(self._config.first_cpu_hz, own.batch_size, own.steps, 0.0)
        work = {
            "cycles_per_sample": self._config.cycles_per_sample[device][task],
            "steps": plan.steps,
            "batch_size": min(plan.batch_size, samples),
            "cpu_hz": plan.cpu_hz,
        }
        compute_s = float(compute_time_s(**work))
        compute_j = float(
            compute_energy_j(capacitance_j_s2=self._config.capacitance_j_s2[device], **work)
        )
        transfers = self._transfers[task, device]
        cost = 0.0
        if device in self._tasks[task].views:
            terms = self._terms(task, device)
            batch_size = min(plan.batch_size, terms.samples)
            cost = resources(terms, plan.cpu_hz, batch_size, plan.steps, compute_s).cost
        return PlannedPeriod(
            plan=plan,
            compute_s=compute_s,
            energy_j=compute_j + transfers.upload_j,
            length_s=compute_s + transfers.download_s + transfers.upload_s,
            cost=cost,
        )

    def _outlook(self, task: int, device: int) -> TaskOutlook:
        transfers, own = self._transfers[task, device], self._config.tasks[task]
        return TaskOutlook(
            self._terms(task, device),
            download_s=transfers.download_s,
            upload_s=transfers.upload_s,
            upload_j=transfers.upload_j,
            station_cost=own.energy_weight * self._weights.station_j * transfers.download_j,
            loss_to_gain=self._tasks[task].loss,
            mixing=self._mixing,
        )

    def _terms(self, task: int, device: int) -> PeriodTerms:
        config, own = self._config, self._config.tasks[task]
        knowledge = self._tasks[task]
        return period_terms(
            knowledge.seen,
            knowledge.views[device].local,
            ProcessorTerms(
                config.cycles_per_sample[device][task],
                config.capacitance_j_s2[device],
                *config.cpu_hz,
            ),
            (self._weights, TaskWeights(own.importance, own.energy_weight)),
            learning_rate=own.learning_rate,
            learning_rate_min=own.learning_rate,
            proximal=own.proximal,
            steps=config.steps,
        )
