"""What tokenizer_config.json and its neighbours change, against transformers."""

from __future__ import annotations

import pytest

from llmrs.backends.local import LocalBackend
from llmrs.errors import ModelError
from llmrs.models.tokenizer_config import read_truncation_side
from tests.models.makers import change_json, write_json


@pytest.mark.parametrize(
    ("config", "tokenizer", "side"),
    [
        ({}, {}, "end"),
        ({"truncation_side": "left"}, {}, "start"),
        ({"truncation_side": "right"}, {"direction": "Left", "max_length": 8}, "end"),
        ({}, {"direction": "Left", "max_length": 8}, "start"),
        ({}, {"direction": "Right", "max_length": 8}, "end"),
    ],
)
def test_the_side_of_truncation(tmp_path, config, tokenizer, side):
    write_json(tmp_path / "tokenizer_config.json", config)
    write_json(tmp_path / "tokenizer.json", {"truncation": tokenizer or None})
    assert read_truncation_side(tmp_path) == side


def test_a_side_that_is_none(tmp_path):
    write_json(tmp_path / "tokenizer_config.json", {"truncation_side": "both"})
    with pytest.raises(ModelError, match=r"tokenizer_config\.json: truncation_side is 'both'"):
        read_truncation_side(tmp_path)


def test_a_backend_tells_the_side(made):
    write_json(made.folder / "tokenizer_config.json", {"truncation_side": "left"})
    backend = LocalBackend(str(made.folder), dtype="f32", threads=1)
    assert backend.info.truncation_side == "start"
    change_json(made.folder / "tokenizer_config.json", truncation_side="right")
    assert LocalBackend(str(made.folder), dtype="f32", threads=1).info.truncation_side == "end"
