"""Graphs hold a tokenizer's functions once, with its answers."""

import tensorflow as tf

from nlp_rnn.tokenization.graph_tokenizer import GraphTokenizer
from nlp_rnn.tokenization.tokenizer import Tokenizer

TEXTS = tf.constant(["A good film", "", "not \U0001f3ac known"])


def test_two_functions_share_one_graph_of_the_tokenizer():
    tokenizer = Tokenizer()
    tokenizer.adapt(["a good film", "a bad film"], vocab_size=20)
    in_graphs = GraphTokenizer(tokenizer)

    def count(texts):
        return in_graphs.tokenize(texts).row_lengths()

    def first(texts):
        return in_graphs.tokenize(texts).to_tensor()[:, :1], in_graphs.pieces(texts)

    counted, firsts = (
        tf.function(each).get_concrete_function(tf.TensorSpec([None], tf.string)) for each in (count, first)
    )
    called = [
        operation.get_attr("f").name
        for graph in (counted.graph, firsts.graph)
        for operation in graph.get_operations()
        if operation.type in ("PartitionedCall", "StatefulPartitionedCall")
    ]
    assert len(called) == 3
    assert called[0] == called[1] != called[2]
    tokens, pieces = tokenizer.tokenize(TEXTS), tokenizer.pieces(TEXTS)
    assert counted(TEXTS).numpy().tolist() == tokens.row_lengths().numpy().tolist()
    assert firsts(TEXTS)[0].numpy().tolist() == tokens.to_tensor()[:, :1].numpy().tolist()
    assert firsts(TEXTS)[1].to_list() == pieces.to_list()
