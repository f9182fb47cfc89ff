"""How far adversarial training moves the vectors of texts. Plain Keras, on any backend.

Source: Miyato et al. 2017, "Adversarial Training Methods for Semi-Supervised Text Classification", section 3. Instead
of normalising the embeddings, as the paper does, the length of the move is measured in the spread of each text's
vectors. Virtual adversarial training moves them in the direction in which the model's own answer loses probability
fastest. Of two classes, that is the direction in which the predictions diverge fastest, up to its sign;
the paper approximates it with random numbers.
"""

from typing import Any

import keras


def moves(vectors: Any, gradients: Any, mask: Any, length: float) -> Any:
    """How far each vector moves: along the gradient, all vectors of a text together by `length` standard deviations.

    Args:
      vectors: float [batch, time, features].
      gradients: of the loss by them, in the same shape.
      mask: bool [batch, time], False where padding is, which does not move.
      length: of the move of a text as one vector [time * features], in standard deviations of its vectors' entries.

    Returns:
      in the shape and dtype of `vectors`; 0 for texts without gradient, such as rows of weight 0.
    """
    ops = keras.ops
    real = ops.cast(mask, "float32")[:, :, None]
    num_real = ops.maximum(ops.sum(real, axis=1, keepdims=True), 1.0)
    values, slopes = ops.cast(vectors, "float32") * real, ops.cast(gradients, "float32") * real
    mean = ops.sum(values, axis=1, keepdims=True) / num_real  # the mean vector of the text
    squares = ops.sum(ops.square(values - mean) * real, axis=[1, 2], keepdims=True)
    variance = squares / (num_real * vectors.shape[2])
    slopes = ops.where(ops.isfinite(slopes), slopes, 0.0)  # of float16, whose optimizer skips such a step
    largest = ops.max(ops.abs(slopes), axis=[1, 2], keepdims=True)  # so that tiny gradients' squares are not 0
    slopes = ops.divide_no_nan(slopes, largest)
    norm = ops.sqrt(ops.sum(ops.square(slopes), axis=[1, 2], keepdims=True))
    return ops.cast(length * ops.sqrt(variance) * ops.divide_no_nan(slopes, norm), vectors.dtype)
