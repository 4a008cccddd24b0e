"""A clock for trainings, so that they have a known number of steps."""


class Clock:
    """Time that passes by so many seconds at each look."""

    def __init__(self, seconds=1.0):
        self.now, self._seconds = 0.0, seconds

    def monotonic(self):
        self.now += self._seconds
        return self.now
