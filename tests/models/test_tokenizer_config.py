"""What tokenizer_config.json and its neighbours change, against transformers."""

from __future__ import annotations

import json

import pytest
from tokenizers import Tokenizer

from llmrs.backends.local import LocalBackend
from llmrs.errors import ModelError
from llmrs.models.tokenize import ModelTokenizer
from llmrs.models.tokenizer_build import load_tokenizer
from llmrs.models.tokenizer_class import GENERIC, OTHERS, REBUILT, REGISTERED, SAME, STRICT
from llmrs.models.tokenizer_config import read_longest, read_truncation_side
from tests.models.makers import change_json, write_json
from tests.models.oracles import run_oracle
from tests.models.tokenizer_cases import KINDS, TEXTS, tokenizer_json, write_folders


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
    change_json(made.folder / "tokenizer_config.json", truncation_side="left")
    backend = LocalBackend(str(made.folder), dtype="f32", threads=1)
    assert backend.info.truncation_side == "start"
    change_json(made.folder / "tokenizer_config.json", truncation_side="right")
    assert LocalBackend(str(made.folder), dtype="f32", threads=1).info.truncation_side == "end"


# -- every class, every key -----------------------------------------------------------------------

ONLY_HERE = {
    "by-config": "its tokenizer.json is of another kind than the class that config.json asks for",
    "other-class": "the same, by tokenizer_config.json",
    "number": "1 is not true: some classes fail on it, others do not look",
    "trusting": "another class is taken where the folder is trusted, which it never is here",
    "class-empty": "the empty name is the generic class there, and surely nobody's wish",
    "unk-null": "a Unigram model without its unknown token",
}
"""What is refused here and not there, by the configuration's name."""

SENTENCEPIECE_ONLY = ("GemmaTokenizer-vocabulary-", "LlamaTokenizer-vocabulary-")
"""Classes whose folders have a file in SentencePiece's format, never these."""


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """Folders of every class, and the ids that transformers gives to texts in each."""
    place = tmp_path_factory.mktemp("tokenizers")
    names = list(write_folders(place))
    write_json(place / "cases.json", names)
    write_json(place / "texts.json", TEXTS)
    run_oracle("tokens_oracle.py", place)
    return place, json.loads((place / "ids.json").read_text(encoding="utf-8"))


def tokens_of(folder):
    """The ids of each text, or why the folder is refused."""
    try:
        tokenizer = load_tokenizer(folder / "tokenizer.json")
    except ModelError as error:
        return str(error)
    return [tokenizer.encode(text).ids for text in TEXTS]


@pytest.mark.parametrize("kind", [kind.name for kind in KINDS])
def test_tokens_are_those_of_transformers(cases, kind):
    """Or the folder is refused; what is refused here alone is listed with its reason."""
    place, expected = cases
    same = 0
    for name, theirs in expected.items():
        if not name.startswith(f"{kind}-"):
            continue
        ours = tokens_of(place / name)
        if isinstance(ours, str):
            word = name.removeprefix(f"{kind}-")
            known = word in ONLY_HERE or name.startswith(SENTENCEPIECE_ONLY)
            assert isinstance(theirs, str) or known, f"{name}: {ours}"
            assert str(place / name) in ours
        elif not isinstance(theirs, str):
            assert ours == theirs, name
            same += 1
    assert same >= 40


def test_the_table_of_classes_is_that_of_transformers(tmp_path):
    run_oracle("classes_oracle.py", tmp_path)
    theirs = json.loads((tmp_path / "classes.json").read_text(encoding="utf-8"))
    for kind, name in theirs["registered"].items():
        found = REGISTERED[kind]
        if found == "":
            assert name.removesuffix("Tokenizer") in OTHERS.split(), kind
        else:
            assert SAME.get(name, name) == found, kind
    assert {*STRICT} <= {*theirs["strict"]}
    assert all(REGISTERED[kind] == GENERIC for kind in {*theirs["strict"]} - {*STRICT})
    for name in theirs["built"]:
        known = SAME.get(name, name) in REBUILT or name.removesuffix("Tokenizer") in OTHERS.split()
        assert known, name


# -- what is refused ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bert():
    return tokenizer_json(KINDS[0])


@pytest.fixture
def folder(tmp_path, bert):
    write_json(tmp_path / "config.json", {"model_type": "bert"})
    write_json(tmp_path / "tokenizer.json", bert)
    return tmp_path


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"split_numbers": True}, "split_numbers is not known"),
        ({"tokenizer_class": "BertJapaneseTokenizer"}, "tokenizer_class = 'BertJapaneseTokenizer'"),
        ({"auto_map": {"AutoTokenizer": ["a.B", None]}}, "auto_map names code"),
        ({"auto_map": ["a.B", None]}, "auto_map names code"),
        ({"do_lower_case": "yes"}, r"do_lower_case is of the wrong type \(str\)"),
        ({"do_lower_case": None}, "do_lower_case is null"),
        ({"padding_side": "both"}, "padding_side"),
        ({"model_input_names": ["input_ids"]}, "model_input_names"),
        ({"fast_tokenizer_files": ["tokenizer.4.0.0.json"]}, "fast_tokenizer_files"),
        ({"init_inputs": ["vocab.txt"]}, "init_inputs"),
        ({"fix_mistral_regex": True}, "fix_mistral_regex"),
        ({"added_tokens_decoder": None}, "added_tokens_decoder"),
        ({"added_tokens_decoder": {"x": {"content": "a"}}}, "id is not a number"),
        ({"added_tokens_decoder": {"7": "a"}}, "has no content"),
        ({"mask_token": {"content": "a"}}, "mask_token is neither a string nor an AddedToken"),
        ({"additional_special_tokens": "abc"}, "not a list of tokens"),
        ({"tokenizer_class": 3}, "tokenizer_class is of the wrong type"),
        ({"tokenizer_class": ""}, "tokenizer_class is empty"),
        ({"trust_remote_code": True}, "trust_remote_code is not supported, only false"),
    ],
)
def test_a_setting_that_is_not_understood_ends_the_start(folder, config, words):
    write_json(folder / "tokenizer_config.json", config)
    with pytest.raises(ModelError, match=words) as raised:
        load_tokenizer(folder / "tokenizer.json")
    assert str(folder / "tokenizer_config.json") in str(raised.value)
    assert "\n" not in str(raised.value)


def test_settings_of_other_files_are_no_less_checked(folder):
    write_json(folder / "special_tokens_map.json", {"do_lower_case": False})
    with pytest.raises(ModelError, match=r"special_tokens_map\.json: do_lower_case is not known"):
        load_tokenizer(folder / "tokenizer.json")


@pytest.mark.parametrize("value", [["[PAD]"], 3, {"content": ["[PAD]"]}, {"[PAD]": 0}])
@pytest.mark.parametrize(
    "key", ["pad_token", "own_token", "extra_special_tokens", "additional_special_tokens"]
)
def test_tokens_of_other_types(folder, key, value):
    """In either file: refused, and no traceback."""
    if value == ["[PAD]"] and key not in ("pad_token", "own_token"):
        value = [["[PAD]"]]
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        write_json(folder / name, {key: value})
        write_json(folder / "added_tokens.json", {"new": 900})
        with pytest.raises(ModelError):
            load_tokenizer(folder / "tokenizer.json")
        (folder / name).unlink()


@pytest.mark.parametrize("value", [3, "a", [1], {"a": "b"}, {"a": None}])
def test_added_tokens_of_other_types(folder, value):
    for key in ("tokenizer_config.json", "added_tokens.json"):
        content = {"added_tokens_decoder": value} if key == "tokenizer_config.json" else value
        write_json(folder / key, content)
        with pytest.raises(ModelError):
            load_tokenizer(folder / "tokenizer.json")
        (folder / key).unlink()


def test_an_unknown_token_that_the_vocabulary_lacks(folder):
    """The library fails on it when a text has an unknown character."""
    write_json(folder / "tokenizer_config.json", {"unk_token": "unheard of", "added_tokens_decoder": {}})
    with pytest.raises(ModelError, match="no BertTokenizer can be made of it"):
        load_tokenizer(folder / "tokenizer.json")


def test_types_of_tokens_are_refused_where_the_model_is_told_them(folder, bert):
    template = json.loads(json.dumps(bert))
    for piece in template["post_processor"]["single"]:
        next(iter(piece.values()))["type_id"] = 1
    write_json(folder / "tokenizer.json", template)
    config = {"tokenizer_class": "PreTrainedTokenizerFast"}
    write_json(folder / "tokenizer_config.json", config)
    load_tokenizer(folder / "tokenizer.json")
    names = ["input_ids", "token_type_ids", "attention_mask"]
    write_json(folder / "tokenizer_config.json", {**config, "model_input_names": names})
    with pytest.raises(ModelError, match="gives tokens types"):
        load_tokenizer(folder / "tokenizer.json")


def test_a_special_token_that_the_word_table_lacks(folder):
    size = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size()
    write_json(folder / "tokenizer_config.json", {"cls_token": "[NEW]"})
    with pytest.raises(ModelError, match="no row for a special token"):
        ModelTokenizer(folder / "tokenizer.json", max_tokens=8, vocabulary=size)


# -- lengths --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "longest"),
    [
        ({"model_max_length": 8}, 8),
        ({"max_len": 9}, 9),
        ({"model_max_length": 8, "max_len": 9}, 8),
        ({"model_max_length": None, "max_len": 9}, 1e30),
        ({}, 1e30),
        ({"model_max_length": 1e30}, 1e30),
    ],
)
def test_the_longest_input_of_a_tokenizer(tmp_path, config, longest):
    write_json(tmp_path / "tokenizer_config.json", config)
    assert read_longest(tmp_path) == longest


def test_a_length_that_is_no_whole_number(tmp_path):
    write_json(tmp_path / "tokenizer_config.json", {"model_max_length": 16.0})
    with pytest.raises(ModelError, match=r"model_max_length is 16\.0, expected a whole number"):
        read_longest(tmp_path)


# -- vocabularies ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["XLMRobertaTokenizer", "T5Tokenizer", "PreTrainedTokenizerFast"])
def test_a_vocabulary_that_cannot_be_read_says_how_to_convert_it(tmp_path, kind):
    write_json(tmp_path / "config.json", {"model_type": "bert"})
    write_json(tmp_path / "tokenizer_config.json", {"tokenizer_class": kind})
    with pytest.raises(ModelError, match=r"tokenizer\.json is missing.*save_pretrained"):
        load_tokenizer(tmp_path / "tokenizer.json")


def test_a_vocabulary_of_which_a_part_is_missing(tmp_path):
    write_json(tmp_path / "config.json", {"model_type": "roberta"})
    write_json(tmp_path / "vocab.json", {"a": 0})
    with pytest.raises(ModelError, match=r"and so is merges\.txt"):
        load_tokenizer(tmp_path / "tokenizer.json")


def test_the_default_model_without_its_tokenizer_json(default_folder, tmp_path):
    """Its vocab.txt and settings make the same tokenizer."""
    for name in ("config.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json"):
        (tmp_path / name).symlink_to(default_folder / name)
    with_json, without = (
        ModelTokenizer(place / "tokenizer.json", max_tokens=64, vocabulary=30522)
        for place in (default_folder, tmp_path)
    )
    expected = [each.payload.tolist() for each in with_json.prepare(TEXTS, truncate="end")]
    assert [each.payload.tolist() for each in without.prepare(TEXTS, truncate="end")] == expected
