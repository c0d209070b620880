"""The suites' images are small: one torch thread computes them fastest, and a busy machine does not slow it down."""

from __future__ import annotations

import os

import emulated
import pytest
import torch

# processes that tests start import the installed packages, not those of the source tree that they start in
os.environ["PYTHONSAFEPATH"] = "1"
emulated.provide()  # before the suites ask which backends run here


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
