import json

import pytest

from nlp_rnn.errors import ConfigError
from nlp_rnn.ondevice import personal_words
from nlp_rnn.ondevice.continuous_cache import SIZE, CacheSettings, ContinuousCache
from nlp_rnn.ondevice.memory_file import load_memory, save_memory
from nlp_rnn.ondevice.personal_words import PersonalWords

KNOWN = {"the", "meets", "dear", "and", "see", "you"}


def make(*lines):
    words = PersonalWords(KNOWN.__contains__, str.lower)
    for line in lines:
        words.learn(line)
    return words


def make_cache(tokens=(), vocab_size=4):
    cache = ContinuousCache(CacheSettings(share=0.5, theta=0.0), vocab_size=vocab_size, features=1)
    for token in tokens:
        cache.add([1.0], token)
    return cache


def spelled(words, begun="", before=""):
    return [each.spelling for each in words.find(begun, before, 9)]


# --- learning ---------------------------------------------------------------------------------------------------------


def test_a_word_is_suggested_after_its_second_use():
    words = make("Dear Zofia")
    assert not spelled(words)
    words.learn("see you and Zofia")
    assert spelled(words) == spelled(words, "zo") == ["Zofia"]
    assert not spelled(words, "za")
    assert words.words() == [("Zofia", 2)]


def test_known_words_are_the_models_own():
    assert not spelled(make("the the the", "The the"))


def test_the_word_before_counts():
    words = make("dear Zofia", "dear Zofia", "meets Wanda", "meets Wanda")
    assert spelled(words, before="dear") == ["Zofia", "Wanda"]
    assert spelled(words, before="meets") == ["Wanda", "Zofia"]
    found = {each.spelling: each.probability for each in words.find("", "dear", 9)}
    assert found["Zofia"] == pytest.approx((2 + 1 * 2 / 4) / (2 + 1))  # (c(dear, Zofia) + k p(Zofia)) / (c(dear) + k)
    assert found["Wanda"] == pytest.approx((0 + 1 * 2 / 4) / (2 + 1))
    assert sum(found.values()) == pytest.approx(1)


def test_the_first_word_of_a_line_tells_nothing_about_its_case():
    words = make("see flurb", "Flurb and flurb", "Flurb", "Flurb", "Flurb")
    assert spelled(words) == ["flurb"]


@pytest.mark.parametrize(
    "line",
    [
        "pin 4711 and code ab12cd34",
        "zofia@example.org",
        "see https://zofia.example/secret www.zofia.example",
        "they'll we've isn't",
        "a" * 41,
        "\u200d \ufe0f 👨‍👩‍👧 ❤️",
    ],
)
def test_secrets_and_what_is_no_word_are_not_learnt(line):
    words = make(line, line, line)
    assert not [word for word in spelled(words) if word.lower() not in ("pin", "code", "they", "we", "is", "a")]


def test_a_pasted_word_of_100_000_letters_is_passed_over_at_once():
    words = make("zofia " + "word" * 30_000 + " zofia")  # took two minutes while it was searched for addresses
    assert spelled(words) == ["zofia"]


@pytest.mark.parametrize("line", ["नमस्ते दुनिया", "שלום עולם", "مرحبا", "ёжик", "cafe\u0301"])
def test_words_of_other_scripts_keep_their_marks(line):
    assert sorted(spelled(make(line, line))) == sorted(line.split())


def test_the_word_used_longest_ago_is_forgotten(monkeypatch):
    monkeypatch.setattr(personal_words, "MAX_WORDS", 2)
    words = make("see aaa aaa", "see bbb bbb", "see aaa", "see ccc ccc")
    assert spelled(words) == ["aaa", "ccc"]
    assert all(set(each) <= {"aaa", "ccc"} for each in words._followers.values())


def test_thousands_of_words_are_found_fast():
    words = make()
    letters = "abcdefghij"
    for number in range(20_000):
        word = "x" + "".join(letters[int(digit)] for digit in f"{number:05}")
        words.learn(f"{word} {word}")
    assert len(words) == 20_000
    assert spelled(words, "xbcdef") == ["xbcdef"]
    assert len(words.find("x", "", 5)) == 5


# --- files ------------------------------------------------------------------------------------------------------------


def test_what_was_learnt_comes_back_and_can_be_read(tmp_path):
    words, path = make("see Wanda", "dear Zofia", "dear Zofia"), tmp_path / "memory.json"
    save_memory(path, words, make_cache([1, 2, 2]))
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["words"][1] == {"word": "Zofia", "uses": 2, "after": {"dear": 2}}
    again, cache = make(), make_cache()
    load_memory(path, again, cache)
    assert again.find("", "dear", 9) == words.find("", "dear", 9)
    assert again.to_json() == words.to_json()
    assert len(cache) == 3
    again.learn("see Wanda")
    assert spelled(again, "wa") == ["Wanda"]


def test_words_that_this_model_knows_are_left_to_it(tmp_path):
    save_memory(tmp_path / "memory.json", make("see Zofia Zofia"), make_cache())
    words = PersonalWords({"zofia"}.__contains__, str.lower)
    load_memory(tmp_path / "memory.json", words, make_cache())
    assert not len(words)


def damaged(change):
    content = {"format": 1, "words": [{"word": "Zofia", "uses": 2, "after": {"dear": 1}}], "cache": None}
    change(content)
    return json.dumps(content).encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is damaged"),
        (b"[]", "holds no object"),
        (b"{}", "is not a memory of the console"),
        (b"PK\x03\x04 no archive", "is not readable as a memory of the console"),
        (damaged(lambda content: content.update(format=2)), "has the format 2, of a later version than this one"),
        (damaged(lambda content: content.update(words={})), "words must be a list of at most 20,000 entries"),
        (damaged(lambda content: content["words"][0].update(uses=-1)), "entry 1 of words is not a word with its uses"),
        (damaged(lambda content: content["words"][0].update(word="a b")), "entry 1 of words is not a word"),
        (damaged(lambda content: content["words"][0].update(after={"dear": "x"})), "entry 1 of words is not a word"),
        (damaged(lambda content: content["words"].append(7)), "entry 2 of words is not a word"),
        (damaged(lambda content: content.update(cache={"count": 1})), "its cache is not readable"),
        (damaged(lambda content: content.update(cache=make_cache([9], 99).to_json())), "the memory of another model"),
    ],
)
def test_a_damaged_or_foreign_file_is_one_line_and_changes_nothing(tmp_path, content, message):
    path = tmp_path / "memory.json"
    path.write_bytes(content)
    words, cache = make("see Wanda Wanda"), make_cache([1])
    with pytest.raises(ConfigError) as caught:
        load_memory(path, words, cache)
    told = str(caught.value)
    assert told.startswith(f"{path}: ")
    assert message in told
    assert "give another file" in told
    assert "\n" not in told
    assert (spelled(words), len(cache)) == (["Wanda"], 1)


def test_a_huge_file_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "memory.json"
    with open(path, "wb") as file:
        file.truncate(100_000_000)
    with pytest.raises(ConfigError, match="more than 50,000,000 bytes"):
        load_memory(path, make(), make_cache())


def test_a_cache_of_another_size_is_another_models():
    content = make_cache([1]).to_json()
    with pytest.raises(ConfigError, match="another model"):
        ContinuousCache(CacheSettings(0.5, 0.0), vocab_size=4, features=2).from_json(content)
    assert len(content["ids"]) > SIZE
