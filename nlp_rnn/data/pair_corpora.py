"""Published corpora of pairs, for translation, and one of their sides for language models."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

from nlp_rnn.config.settings import DataConfig
from nlp_rnn.data.corpora import data_folder, tfds_rows
from nlp_rnn.data.pair_readers import aligned_lines, sides
from nlp_rnn.data.readers import SPLIT_NAMES, Example, Splits
from nlp_rnn.errors import ConfigError
from nlp_rnn.text_files import read_lines

_TATOEBA = {"es": "spa", "fr": "fra", "de": "deu"}
_TED = (
    ("az", "en"), ("az_tr", "en"), ("be", "en"), ("be_ru", "en"), ("es", "pt"), ("fr", "pt"), ("gl", "en"),
    ("gl_pt", "en"), ("he", "pt"), ("it", "pt"), ("pt", "en"), ("ru", "en"), ("ru", "pt"), ("tr", "en"),
)  # fmt: skip


def load_multi30k(data: DataConfig) -> Splits:
    """Multi30k, task 1 (Elliott et al. 2016, 2017): captions in en, de and fr, with train, val and test_2016_flickr."""
    folder = _prepared("multi30k", data)
    _require_languages(data, ("en", "de", "fr"))
    names = {"train": "train", "validation": "val", "test": "test_2016_flickr"}
    return {
        split: functools.partial(aligned_lines, *sides(folder / name, data), f"multi30k, {name}")
        for split, name in names.items()
    }


def load_tatoeba(data: DataConfig) -> Splits:
    """Pairs of the Tatoeba project in the files of manythings.org/anki: en to or from es, fr or de.

    It has only a train split; data.split=hash keeps all translations of a sentence together.

    Raises:
      ConfigError: if the files are missing, or other languages are set.
    """
    folder = _prepared("tatoeba", data)
    other = data.target_language if data.source_language == "en" else data.source_language
    if "en" not in (data.source_language, data.target_language) or other not in _TATOEBA:
        raise ConfigError(
            f"data.source is tatoeba, but data.source_language is {data.source_language} and data.target_language is "
            f"{data.target_language}; give en and one of {', '.join(_TATOEBA)}"
        )
    path = folder / f"{_TATOEBA[other]}.txt"
    return {"train": lambda: _tatoeba_pairs(path, is_from_english=data.source_language == "en")}


def load_tatoeba_sentences(data: DataConfig) -> Splits:
    """The distinct sentences of Tatoeba's pairs in data.target_language, for language models.

    Raises:
      ConfigError: if the files are missing, or another language is set.
    """
    folder, language = _prepared("tatoeba", data, name_of_source="tatoeba_sentences"), data.target_language
    if language not in _TATOEBA:
        raise ConfigError(
            f"data.target_language is {language}, but data.source tatoeba_sentences has {', '.join(_TATOEBA)}; "
            "give one of them"
        )
    path = folder / f"{_TATOEBA[language]}.txt"

    def read() -> Iterator[Example]:
        sentences = dict.fromkeys(pair.label for pair in _tatoeba_pairs(path, is_from_english=True))
        return (Example(sentence, "") for sentence in sentences)

    return {"train": read}


def _tatoeba_pairs(path: Path, *, is_from_english: bool) -> Iterator[Example]:
    for number, line in read_lines(path):
        columns = line.split("\t")
        if len(columns) < 2:
            raise ConfigError(f"{path}: line {number} has no tab; a line must be English, a tab and the other language")
        yield Example(columns[0], columns[1]) if is_from_english else Example(columns[1], columns[0])


def load_ted_hrlr(data: DataConfig) -> Splits:
    """TED talks (Qi et al. 2018) through TFDS, for the language pairs of _TED in both directions."""
    languages = (data.source_language, data.target_language)
    languages_of_data = next((pair for pair in _TED if set(pair) == set(languages)), None)
    if languages_of_data is None:
        known = ", ".join(" and ".join(pair) for pair in _TED)
        raise ConfigError(
            f"data.source is ted_hrlr, which does not have {' and '.join(languages)}; give one of the pairs {known}"
        )
    first, second = languages_of_data
    rows = tfds_rows(data, f"ted_hrlr_translate/{first.replace('_', '')}_to_{second}", "data.source=cldr")

    def stream(split: str) -> Callable[[], Iterator[Example]]:
        return lambda: (Example(*(row[column].decode("utf-8") for column in languages)) for row in rows(split))

    return {split: stream(split) for split in SPLIT_NAMES}


def _prepared(name: str, data: DataConfig, name_of_source: str = "") -> Path:
    setting = data_folder(data)
    folder = Path(setting) / name
    if not setting or not folder.is_dir():
        raise ConfigError(
            f"data.source is {name_of_source or name}, but there is no folder {folder}; "
            "set data.dir, or NLP_RNN_DATA, to the folder that "
            f"holds {name}, or use data.source={'text' if name_of_source else 'cldr, which needs no files'}"
        )
    return folder


def _require_languages(data: DataConfig, allowed: tuple[str, ...]) -> None:
    for key in ("source_language", "target_language"):
        if getattr(data, key) not in allowed:
            raise ConfigError(
                f"data.{key} is {getattr(data, key)}, but data.source {data.source} has {', '.join(allowed)}; "
                "give one of them"
            )
