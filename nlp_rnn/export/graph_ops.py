"""Checks the ops of a SavedModel before it is loaded: a model of others could hold ops that write files or run code.

allowed_ops.txt lists the ops that are allowed: those of our exports, and TensorFlow's ops on numbers, strings, images,
tables and variables. None of them writes a file, calls Python or opens a connection.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from nlp_rnn.errors import ConfigError

# Each SavedModel holds them to be saved again, outside the functions that it offers.
_SAVE_OPS = {"SaveV2", "MergeV2Checkpoints"}


@functools.cache
def allowed_ops() -> frozenset[str]:
    """The names of the allowed ops."""
    path = Path(__file__).with_name("allowed_ops.txt")
    return frozenset(path.read_text(encoding="utf-8").split())


def check_ops(folder: Path) -> None:
    """Checks all ops of a SavedModel.

    Raises:
      ConfigError: if there is an op that is not allowed, or the file is damaged.
    """
    path = folder / "saved_model.pb"
    try:
        saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); export it again") from None
    except DecodeError:
        raise ConfigError(f"{path}: is damaged (it is not a SavedModel); export it again") from None
    if forbidden := sorted({op for graph in saved.meta_graphs for op in _forbidden_ops(graph)}):
        more = f" and {len(forbidden) - 3} more" if len(forbidden) > 3 else ""
        raise ConfigError(
            f"--model is {folder}, but its graph holds the ops {', '.join(forbidden[:3])}{more}, which could write "
            "files, run code or open connections; use a model whose graph has none of them"
        )


def _forbidden_ops(graph: Any) -> set[str]:
    bodies = {function.signature.name: function.node_def for function in graph.graph_def.library.function}
    ops = {node.op for nodes in (graph.graph_def.node, *bodies.values()) for node in nodes} - bodies.keys()
    if graph.HasField("object_graph_def"):  # TensorFlow 2
        begin, nodes = list(graph.object_graph_def.concrete_functions), []
    else:
        nodes = _nodes_of_signatures(graph)
        begin = [name for node in nodes for name in _called(node)]
    run = {node.op for node in nodes}.union(*({node.op for node in bodies[name]} for name in _calls(begin, bodies)))
    return ops - allowed_ops() - (_SAVE_OPS - run)


def _calls(begin: list[str], bodies: Mapping[str, Any]) -> set[str]:
    """The names of some functions and of all that they call."""
    called, unread = set(), [name for name in begin if name in bodies]
    while unread:
        name = unread.pop()
        if name not in called:
            called.add(name)
            unread += [each for node in bodies[name] for each in _called(node) if each in bodies]
    return called


def _called(node: Any) -> list[str]:
    attributes = node.attr.values()
    functions = [value.func.name for value in attributes if value.HasField("func")]
    return [node.op, *functions, *(each.name for value in attributes for each in value.list.func)]


def _nodes_of_signatures(graph: Any) -> list[Any]:
    """The nodes of TensorFlow 1 that signatures, initialization and restoring of weights need."""
    nodes = {node.name: node for node in graph.graph_def.node}
    outputs = [output.name for signature in graph.signature_def.values() for output in signature.outputs.values()]
    collections = [name for collection in graph.collection_def.values() for name in collection.node_list.value]
    needed, unread = set(), [graph.saver_def.restore_op_name, *outputs, *collections]
    while unread:
        name = unread.pop().lstrip("^").partition(":")[0]
        if name in nodes and name not in needed:
            needed.add(name)
            unread += nodes[name].input
    return [nodes[name] for name in needed]
