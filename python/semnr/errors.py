"""The errors that callers catch. Bad arguments raise TypeError or ValueError; everything else is a `SemnrError`."""

from semnr_kernels import BackendUnavailable, SemnrError, TileError, WeightsUnavailable

__all__ = ["BackendUnavailable", "SemnrError", "TileError", "WeightsUnavailable"]
