"""The arrays of a run against a plain double loop."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrs.models.packing import PADDING, pack
from llmrs.models.plan import plan

PAD = 1
texts = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=20), min_size=1, max_size=12)


def plainly(run, texts, counted):
    """The same arrays, one place after the other."""
    ids = np.full((run.rows, run.columns), PAD)
    positions = np.zeros((run.rows, run.columns))
    segments = np.full((run.rows, run.columns), PADDING)
    starts, lengths = [], []
    for row, members in enumerate(run.texts):
        column = 0
        for index in members:
            real = 0
            for place, token in enumerate(texts[index]):
                real += token != PAD
                ids[row, column + place] = token
                segments[row, column + place] = len(starts)
                number = (PAD if token == PAD else PAD + real) if counted else place
                positions[row, column + place] = number
            starts.append(row * run.columns + column)
            lengths.append(len(texts[index]))
            column += len(texts[index])
    return ids, positions, segments, starts, lengths


@pytest.mark.parametrize("counted", [False, True])
@given(texts)
def test_arrays(counted, texts):
    encoder = SimpleNamespace(padding_id=PAD, positions_skip_padding=counted)
    arrays = [np.array(text, np.int32) for text in texts]
    for run in plan([len(text) for text in texts], 32):
        for ours, theirs in zip(pack(run, arrays, encoder), plainly(run, texts, counted), strict=True):
            assert ours.dtype == np.int32
            np.testing.assert_array_equal(ours, theirs)
