"""The tables of sources: name of a source in a config -> the function that loads it.

A source is a function that takes the data settings and returns its splits. Each split is a function that yields the
examples from the start. Nothing is kept in memory, so a corpus may be larger than RAM. `corpus` draws the splits that a
source lacks.
"""

from collections.abc import Callable

from nlp_rnn.config.settings import DataConfig
from nlp_rnn.data import cldr, corpora, pair_corpora, pair_readers, readers, record_source
from nlp_rnn.data.readers import Splits

SOURCES: dict[str, Callable[[DataConfig], Splits]] = {
    "imdb": corpora.load_imdb,
    "tiny_shakespeare": corpora.load_tiny_shakespeare,
    "movie_reviews": corpora.load_movie_reviews,
    "wikitext2": corpora.load_wikitext2,
    "tatoeba_sentences": pair_corpora.load_tatoeba_sentences,
    "csv": readers.load_csv,
    "tsv": readers.load_tsv,
    "jsonl": readers.load_jsonl,
    "parquet": readers.load_parquet,
    "folders": readers.load_folders,
    "text": readers.load_text,
    "documents": readers.load_documents,
    "records": record_source.load_records,
}

PAIR_SOURCES: dict[str, Callable[[DataConfig], Splits]] = {
    "multi30k": pair_corpora.load_multi30k,
    "tatoeba": pair_corpora.load_tatoeba,
    "ted_hrlr": pair_corpora.load_ted_hrlr,
    "cldr": cldr.load_cldr,
    "aligned": pair_readers.load_aligned,
    "tmx": pair_readers.load_tmx,
}
