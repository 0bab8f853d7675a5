"""The telescope behind a simulated mount: it moves by the laws of `MountDynamics`, and the world sees it."""

from drivers.simulators.program import Loop, World
from groundstation.simulation.mount import MountDynamics
from groundstation.simulation.parameters import MountParameters


class Telescope:
    """The two axes, and their motion on the world's blackboard. Call `publish` after every command to `axes`."""

    def __init__(self, world: World, loop: Loop, parameters: MountParameters | None = None) -> None:
        self.parameters = parameters or world.parameters.mount
        self.axes = MountDynamics(self.parameters, loop.clock.utc_ns(), world.parameters.seed)
        self._board, self._loop = world.board, loop
        self._wake_up_ns: int | None = None
        self.publish()

    def publish(self) -> None:
        """Tell the world how the telescope moves, as far as that is settled; come back when there is more."""
        for motion in self.axes.motions(self._loop.clock.utc_ns()):
            self._board.add_motion(motion)
        next_ns = self.axes.next_motions_utc_ns()
        if next_ns is not None and next_ns != self._wake_up_ns:
            self._wake_up_ns = next_ns
            self._loop.at(next_ns, self._wake_up)

    def _wake_up(self) -> None:
        self._wake_up_ns = None
        self.publish()
