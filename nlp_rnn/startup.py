"""Importing TensorFlow without its start-up noise."""

import os
import re
import sys
import tempfile

_START_UP_NOISE = re.compile(rb"WARNING: All log messages before absl|^I\d{4} |failed call to cuInit|oneDNN supports DT_|^\s*$")


def import_tensorflow() -> None:
    """Imports TensorFlow without the notes it always writes at start-up; what else it writes then is passed on.

    They come from C++ before any log setting is read, so the file descriptor itself is watched meanwhile.
    """
    if "tensorflow" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as notes:
        os.dup2(notes.fileno(), 2)
        try:
            import tensorflow as tf

            # The first operation looks for devices; the first transposes tell what oneDNN lacks.
            for dtype in (tf.int32, tf.int64, tf.bool):
                tf.transpose(tf.zeros((1, 1), dtype))
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            notes.seek(0)
            for line in notes:
                if not _START_UP_NOISE.search(line):
                    os.write(2, line)
