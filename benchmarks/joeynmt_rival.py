"""JoeyNMT's side of `benchmarks.translation`. It runs in its own virtual environment, since its protobuf differs.

Reads batches from the .npz file in the first argument, then one command per line ("train" or "decode") from standard
input, and answers each with one line when it is done.
"""

import json
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from joeynmt.batch import Batch
from joeynmt.model import build_model
from joeynmt.search import search
from joeynmt.vocabulary import Vocabulary


def main() -> None:
    """Builds the model, then obeys."""
    arrays = np.load(sys.argv[1])
    settings = json.loads(str(arrays["settings"]))
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(1)
    model = make_model(settings)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    batches = [make_batch(arrays[f"source_{n}"], arrays[f"target_{n}"]) for n in range(settings["num_batches"])]
    print("ready", sum(weight.numel() for weight in model.parameters()), flush=True)
    for line in sys.stdin:
        command = line.strip()
        if command == "train":
            train(model, optimizer, batches)
        else:
            decode(model, make_batch(arrays["source_decode"], None), settings)
        print("done", flush=True)


def make_model(settings: dict[str, Any]) -> torch.nn.Module:
    """Bidirectional LSTM, LSTM with input feeding and Luong's attention, tied embeddings."""
    names: dict[str, Any] = {
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "sep_token": None,
        "lang_tags": [],
    }
    ids: dict[str, Any] = {"unk_id": 0, "pad_id": 1, "bos_id": 2, "eos_id": 3, "sep_id": None}
    vocabulary = Vocabulary(
        [str(number) for number in range(settings["vocab_size"] - 4)], SimpleNamespace(**names, **ids)
    )
    embeddings = {"embedding_dim": settings["units"], "scale": False}
    shared: dict[str, Any] = {
        "type": "recurrent",
        "rnn_type": "lstm",
        "num_layers": 1,
        "dropout": settings["dropout"],
        "embeddings": embeddings,
    }
    config: dict[str, Any] = {
        "tied_embeddings": True, "tied_softmax": True,
        "encoder": {**shared, "hidden_size": settings["units"] // 2, "bidirectional": True},
        "decoder": {**shared, "hidden_size": settings["units"], "attention": "luong",
                    "input_feeding": settings["input_feeding"]},
    }  # fmt: skip
    model = build_model(config, vocabulary, vocabulary)
    model.loss_function = ("crossentropy", settings["label_smoothing"])
    return model


def make_batch(source: np.ndarray, target: np.ndarray | None) -> Batch:
    """Ids of ours, padded with 0, as a batch of JoeyNMT's, padded with 1; the source with its end."""
    source = swap(source)
    begin = None if target is None else np.concatenate([np.full((len(target), 1), 2), swap(target)], axis=1)
    return Batch(
        src=torch.tensor(source, dtype=torch.long), src_length=torch.tensor((source != 1).sum(1)), src_prompt_mask=None,
        trg=None if begin is None else torch.tensor(begin, dtype=torch.long), trg_prompt_mask=None,
        indices=torch.arange(len(source)), device=torch.device("cpu"), pad_index=1, eos_index=3,
        is_train=target is not None,
    )  # fmt: skip


def swap(ids: np.ndarray) -> np.ndarray:
    """Pad and unknown the other way round."""
    return np.where(ids == 0, 1, np.where(ids == 1, 0, ids))


def train(model: torch.nn.Module, optimizer: torch.optim.Optimizer, batches: list[Batch]) -> None:
    """A step on each batch."""
    model.train()
    for batch in batches:
        batch.sort_by_src_length()
        optimizer.zero_grad()
        loss, _, _, _ = model(return_type="loss", **vars(batch))
        (loss / batch.ntokens).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


def decode(model: torch.nn.Module, batch: Batch, settings: dict[str, Any]) -> None:
    """Beam search over one batch; no hypothesis may end before the longest length."""
    model.eval()
    batch.sort_by_src_length()
    length = settings["max_length"]
    search(
        model,
        batch,
        max_output_length=length,
        min_output_length=length,
        beam_size=settings["beam_size"],
        beam_alpha=1.0,
    )


if __name__ == "__main__":
    main()
