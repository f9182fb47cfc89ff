"""Writes DistilBERT with random weights as ONNX, in float32 and int8, for benchmarks/distilbert.py.

A module of its own, since PyTorch and TensorFlow do not go together in one process.
"""

import sys
from pathlib import Path

import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from transformers import DistilBertConfig, DistilBertForSequenceClassification


def main(folder: Path) -> None:
    """Writes float32.onnx and int8.onnx."""
    model = DistilBertForSequenceClassification(DistilBertConfig()).eval()
    ids = torch.randint(1000, 30000, (1, 64))
    torch.onnx.export(
        model, (ids, torch.ones_like(ids)), str(folder / "float32.onnx"), dynamo=False,
        input_names=["input_ids", "attention_mask"], output_names=["logits"],
        dynamic_axes={name: {0: "rows", 1: "time"} for name in ("input_ids", "attention_mask")},
    )  # fmt: skip
    quantize_dynamic(folder / "float32.onnx", folder / "int8.onnx", weight_type=QuantType.QInt8)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
