"""Local periods on samples that change in time, with what DMA-FL asks devices to measure."""

from fadelab_agent.drift import DriftTime, LocalSet, Part, local_set, rotated
from fadelab_agent.drift_config import RotationDrift
from fadelab_agent.partition import Indices
from fadelab_agent.period_work import F32, PeriodOutcome, Stretches
from fadelab_agent.tasks import TaskData
from fadelab_agent.training import FlatModel, train_locally
from fadelab_agent.training.probes import drift_report, period_report
from fadelab_agent.work import Trained
from fadelab_agent.workbench_config import WorkbenchConfig
from fadelab_proto.local_period import LocalPlan
from fadelab_proto.seeds import Stream, generator


class DriftingSamples:
    """One device's samples of one task, and what happens on them.

    Args:
        config: of the task's workbench.
        data: the task.
        model: shared with everything else that this process does with the task.
        device: the device's number.
        indices: its part of the training samples.

    Raises:
        DataSetError: if pictures are to turn and the task has none.

    """

    def __init__(
        self,
        config: WorkbenchConfig,
        data: TaskData,
        model: FlatModel,
        *,
        device: int,
        indices: Indices,
    ) -> None:
        if isinstance(config.drift, RotationDrift):
            rotated(data, 1.0)
        self._config = config
        self._data = data
        self._model = model
        self._device = device
        self._part = Part.of(
            indices,
            data.groups.numpy(),
            seed=config.seed,
            task=config.number,
            device=device,
        )

    def held(self, time: DriftTime) -> LocalSet:
        """Return what the device holds after some time."""
        return local_set(self._config.drift, self._part, time)

    def period(
        self,
        base: F32,
        plan: LocalPlan,
        times: Stretches,
        *,
        update_number: int,
        probe_samples: int,
    ) -> PeriodOutcome:
        """Train one period; see :class:`fadelab_agent.period_work.PeriodWork`."""
        model, data, config = self._model, self._data, self._config
        before = DriftTime(times.before_idle_s, times.before_active_s)
        begun = before.after(times.idle_s, active=False)
        ended = begun.after(times.compute_s, active=True)
        local = self.held(begun)
        model.load(base)
        waited = drift_report(
            model, data, self.held(before), local, elapsed_s=times.idle_s, active=False
        )
        training = config.training.model_copy(
            update={
                "local_steps": plan.steps,
                "local_epochs": None,
                "batch_size": plan.batch_size,
            }
        )
        result = train_locally(
            model,
            rotated(data, local.rotation_deg),
            local.indices,
            training,
            seed=config.seed,
            device=self._device,
            update=update_number,
        )
        computed = drift_report(
            model, data, local, self.held(ended), elapsed_s=times.compute_s, active=True
        )
        report = period_report(
            model,
            data,
            local,
            begun=base,
            ended=base + result.delta,
            proximal=config.training.proximal,
            samples=probe_samples,
            rng=generator(config.seed, Stream.PROBE, self._device, update_number),
        )
        trained = Trained(
            delta=result.delta,
            steps=result.steps,
            batch_size=result.samples // result.steps,
            loss=result.loss,
        )
        return PeriodOutcome(trained, len(local.indices), report, (waited, computed))
