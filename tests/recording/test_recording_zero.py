"""The zero of foreign times: on whole seconds, and the same for an import and for a look in place."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundstation.errors import BadInput
from groundstation.recording.formats.registry import read_file
from groundstation.recording.importing import import_tags
from groundstation.recording.tag_sources import open_tags
from groundstation.recording.zero import since_zero, zero_of

HOUR_PS = 3_600 * 10**12


@given(st.integers(-(2**62), 2**62))
def test_the_first_tag_lies_less_than_an_hour_from_the_zero(first_ps: int) -> None:
    zero_ps = zero_of(first_ps)
    assert zero_ps % 10**12 == 0
    assert abs(first_ps - zero_ps) < HOUR_PS
    assert zero_ps == 0 or 0 <= first_ps - zero_ps < 10**12


@pytest.mark.parametrize("first_ps", [5, -HOUR_PS + 1, HOUR_PS, -(2**62) + 1, 2**62 - 100])
def test_an_import_counts_from_the_same_zero(tmp_path: Path, first_ps: int) -> None:
    path = tmp_path / "tags.npy"
    np.save(path, first_ps + np.arange(50))
    made = import_tags(read_file(path), path, tmp_path / "made", {}, None).recording
    in_place, recorded = (
        np.concatenate([piece.block.time_ps for piece in open_tags(source).read()]) for source in (path, made)
    )
    assert np.array_equal(in_place, recorded)
    assert np.array_equal(in_place, np.array([first_ps + k - zero_of(first_ps) for k in range(50)]))


def test_tags_too_far_apart_are_refused_and_nothing_is_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "tags.npy"
    np.save(path, np.array([1 - 2**62, 2**62 - 1]))
    with pytest.raises(BadInput, match=r"tags\.npy has tags more than 2\^62 ps"):
        import_tags(read_file(path), path, tmp_path / "made", {}, None)
    assert not (tmp_path / "made").exists()
    assert since_zero(np.array([2**62]), 0, "it").tolist() == [2**62]
