"""Early stopping of an Attacker's round, by its reward on held-out scenes.

every N updates -> the mean reward on fixed scenes -> a rise: these weights are kept | none, K times: the end
"""

from collections.abc import Callable

from aot_core.attacker.round_state import RoundState
from aot_core.contracts.attacker_round import PatienceSettings
from aot_core.tracking.protocol import Tracker


class Watch:
    """Measures a round from time to time and says when it has ended. Its state is part of the round's checkpoints."""

    def __init__(
        self, settings: PatienceSettings, state: RoundState, look: Callable[[], float], tracker: Tracker
    ) -> None:
        """
        Args:
            look: the mean reward on the held-out scenes of the editor and policy as they are.
        """
        self.settings, self.state, self.look, self.tracker = settings, state, look, tracker
        if not state.looks:
            self._look()

    @property
    def best(self) -> int:
        """The look (from 0, before the first update) whose Attacker is kept: the last one that counted as a rise."""
        best = 0
        for number, reward in enumerate(self.state.looks):
            if reward > self.state.looks[best] + self.settings.rise:
                best = number
        return best

    @property
    def ended(self) -> bool:
        return len(self.state.looks) - 1 - self.best >= self.settings.looks

    def after_update(self) -> None:
        """To be called when `state.update` updates are done."""
        if self.state.update % self.settings.every == 0:
            self._look()

    def _look(self) -> None:
        with self.state.averaged():
            self.state.looks.append(self.look())
            if self.best == len(self.state.looks) - 1:
                self.state.keep()
        self.tracker.log_metrics({"attacker/look": self.state.looks[-1]}, step=self.state.update)
