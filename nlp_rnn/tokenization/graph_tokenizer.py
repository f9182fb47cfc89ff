"""A tokenizer inside of exported graphs, which hold each of its functions once."""

import tensorflow as tf

from nlp_rnn.tokenization.tokenizer import Tokenizer

_TEXT = tf.TensorSpec([None], tf.string)


class GraphTokenizer(tf.Module):
    """A Tokenizer for modules with several signatures.

    The tokenizer's functions have hundreds of operations. Here each is traced once and called by all signatures. So
    SavedModels are smaller, and are written and loaded faster.

    Attributes:
      layer: the Tokenizer.
      tokenize: string [batch] -> ragged int32 [batch, (time)]; see `Tokenizer.tokenize`.
      pieces: string [batch] -> ragged string [batch, (time)]; see `Tokenizer.pieces`.
    """

    def __init__(self, layer: Tokenizer) -> None:
        super().__init__()
        self.layer = layer
        self.tokenize = tf.function(layer.tokenize, input_signature=[_TEXT], autograph=False)
        self.pieces = tf.function(layer.pieces, input_signature=[_TEXT], autograph=False)
