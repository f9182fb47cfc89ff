"""The vectors with which an embedding begins (model.vectors): of a text file, or of a trained model."""

from pathlib import Path

import numpy as np

from nlp_rnn.config.settings import Config, ModelConfig
from nlp_rnn.errors import ConfigError
from nlp_rnn.special_ids import PAD_ID, SPECIAL_PIECES
from nlp_rnn.training import word_vectors
from nlp_rnn.training.origin import Origin, find_origin
from nlp_rnn.training.transfer import weight_of


def check(config: Config) -> None:
    """Checks that model.vectors has vectors that fit, so that mistakes are reported before the data are read.

    Raises:
      ConfigError: if it does not exist, has no vectors, or their dimension is not model.embedding_dim; or if they are
        the output's table too, but are not to be trained, unless one language model takes the table of another.
    """
    model, is_trained_output = config.model, False
    if not model.vectors:
        return
    if Path(model.vectors).is_dir():
        source = _find_model(model).config
        is_trained_output = source.kind == config.kind == "language_model" and source.model.tie_embeddings
    else:
        word_vectors.check_file(model)
    if _is_frozen_output(config) and not is_trained_output:
        raise ConfigError(
            "model.vectors_trainable is false, but model.tie_embeddings uses the embedding as the output's table, "
            "which must be trained; set model.tie_embeddings=false or model.vectors_trainable=true, or set "
            "model.vectors to a language model that was trained with model.tie_embeddings"
        )


def _is_frozen_output(config: Config) -> bool:
    """Whether the embedding is the output's table too and is not trained."""
    return config.kind != "classifier" and config.model.tie_embeddings and not config.model.vectors_trainable


def match_vocabulary(config: Config, pieces: list[str]) -> word_vectors.Match:
    """Reads the vectors of a vocabulary from model.vectors.

    Args:
      config: its model.vectors is the path.
      pieces: all pieces of the vocabulary by id, special pieces first.

    Raises:
      ConfigError: see `check` and `word_vectors.read_vectors`; also if it has no vector of the vocabulary, or not all
        vectors of an output's table that is not trained.
    """
    model = config.model
    if Path(model.vectors).is_dir():
        match = _of_model(_find_model(model), pieces)
    else:
        match = word_vectors.read_vectors(Path(model.vectors), pieces, model.embedding_dim)
    if not (match.rows >= len(SPECIAL_PIECES)).any():
        raise ConfigError(
            f"model.vectors is {model.vectors}, which contains none of the {len(pieces) - len(SPECIAL_PIECES):,} "
            "entries of the vocabulary; give vectors of its language, or leave model.vectors empty"
        )
    lacking = sorted({*range(len(pieces))} - {PAD_ID, *match.rows.tolist()})
    if lacking and _is_frozen_output(config):
        raise ConfigError(
            f"model.vectors_trainable is false, but model.vectors, {model.vectors}, lacks {len(lacking):,} of the "
            f"{len(pieces):,} pieces that the model predicts, such as {pieces[lacking[0]]!r}; use the texts and the "
            "tokenizer.* settings of that model, or model.vectors_trainable=true"
        )
    return match


def _find_model(model: ModelConfig) -> Origin:
    """The model in model.vectors."""
    origin = find_origin("model.vectors", model.vectors)
    if origin.config.kind == "translator" or origin.config.tokenizer.level == "char":
        raise ConfigError(
            f"model.vectors is {model.vectors}, a model of the task {origin.config.task}; give a classifier or a "
            "language model of words or subwords, or a text file of vectors"
        )
    dimension = origin.config.model.embedding_dim
    if dimension != model.embedding_dim:
        raise ConfigError(
            f"model.embedding_dim is {model.embedding_dim}, but the vectors of model.vectors, {model.vectors}, have "
            f"{dimension} numbers; set model.embedding_dim={dimension}"
        )
    return origin


def _of_model(origin: Origin, pieces: list[str]) -> word_vectors.Match:
    """The vectors of the pieces that both vocabularies have."""
    from nlp_rnn.tokenization.build import tokenizer_of  # imports TensorFlow

    arrays = {name.partition(":")[2]: values for name, values in origin.load().items()}
    table = weight_of(arrays, "embedding", "embeddings")
    if table is None:
        raise ConfigError(f"model.vectors is {origin.path}, which has no embedding; give another model")
    ids = {piece: number for number, piece in enumerate(tokenizer_of(origin.path).all_pieces()) if number != PAD_ID}
    rows = [number for number, piece in enumerate(pieces) if number != PAD_ID and piece in ids]
    vectors = np.asarray(table[[ids[pieces[number]] for number in rows]], np.float32)
    return word_vectors.Match(np.array(rows, np.int64), vectors, num_by_case=0, left_out={})
