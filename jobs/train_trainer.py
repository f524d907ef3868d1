"""Ray Train's trainer without its placement group cleaner, which can end a healthy run.

The cleaner asks the API of "the" Ray cluster on this machine whether the run's controller is alive. Where RAY_ADDRESS
is not set and another cluster was started later, that one answers that it knows no such actor, and the cleaner takes
the workers' places away (seen with ray 2.60). It is there for drivers that go on after their controller has died; ours
end, and Ray frees what their job had.
"""

from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2.api.callback import RayTrainCallback


class Trainer(TorchTrainer):
    """A TorchTrainer that only its own controller can end."""

    def _create_default_callbacks(self) -> list[RayTrainCallback]:
        callbacks = super()._create_default_callbacks()
        return [callback for callback in callbacks if not isinstance(callback, PlacementGroupCleanerCallback)]
