"""Work of a GPU that is recorded once, as a CUDA graph, and then replayed: the GPU does not wait for Python to start each kernel."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from petseg_lib.config import ReadableError

Work = Callable[..., tuple[Tensor, ...]]


class RecordingError(ReadableError):
    """Work that does what cannot be recorded, such as waiting for the GPU; or there is not the memory to record it."""


class Recorded:
    """Some work that is done as it stands at first, and replayed from its second call with tensors of the same shapes on.

    Besides its arguments, the work may use and change only tensors that stay where they are, such as weights; it must not
    wait for the GPU, and Python's part in it is played at the first two calls alone.
    """

    def __init__(self, work: Work) -> None:
        """Args: work: takes CUDA tensors and returns a tuple of them."""
        self.work = work
        self._recordings: dict[tuple[torch.Size, ...], _Recording | None] = {}

    def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """What the work returns. The next call writes over it: copy what must last.

        Raises:
            RecordingError: the work cannot be recorded.
        """
        shapes = tuple(each.shape for each in arguments)
        if shapes not in self._recordings:  # libraries make themselves ready here, which cannot be recorded
            self._recordings[shapes] = None
            return self.work(*arguments)
        recording = self._recordings[shapes]
        if recording is None:
            first = next(filter(None, self._recordings.values()), None)
            recording = self._recordings[shapes] = _Recording(self.work, arguments, first)
        return recording.replay(arguments)

    def forget(self) -> None:
        """Begin anew: the next call does the work as it stands."""
        self._recordings.clear()


@contextmanager
def released(*works: Work | None) -> Iterator[None]:
    """Lets go of the memory of what was recorded in the end, even where a traceback that a notebook keeps holds the rest."""
    try:
        yield
    finally:
        for work in works:
            if isinstance(work, Recorded):
                work.forget()


class _Recording:
    def __init__(self, work: Work, arguments: tuple[Tensor, ...], first: "_Recording | None") -> None:
        """Recordings compute in the memory of the first one: what one leaves there is used before another is replayed."""
        self._arguments = [torch.empty_like(each) for each in arguments]
        self._graph = torch.cuda.CUDAGraph()
        # The threads that pin the next batches may go on meanwhile.
        try:
            with torch.cuda.graph(self._graph, first and first.pool, capture_error_mode="thread_local"):
                self._results = work(*self._arguments)
        except RuntimeError as error:
            cause = error.__context__ or error  # the recording's end fails as well, and says less
            raise RecordingError(
                f"a training step cannot be recorded as a CUDA graph ({str(cause).splitlines()[0]}): set cuda_graphs = False, and "
                "start the kernel anew"
            ) from error
        self.pool = self._graph.pool()

    def replay(self, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        for own, given in zip(self._arguments, arguments, strict=True):
            own.copy_(given)
        self._graph.replay()
        return self._results
