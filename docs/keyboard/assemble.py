"""Puts the keyboard page together with LiteRT's files for browsers, and optionally a model: `make keyboard-page`."""

import argparse
import shutil
from pathlib import Path

PAGE = Path(__file__).parent
_FILES = {
    "@litertjs/core/dist/index.js": "litert/core.js",
    "@litertjs/wasm-utils/dist/index.js": "litert/wasm-utils.js",
    # The second pair is for browsers without relaxed SIMD.
    **{
        f"@litertjs/core/wasm/litert_wasm_{kind}.{end}": f"litert/wasm/litert_wasm_{kind}.{end}"
        for kind in ("internal", "compat_internal")
        for end in ("js", "wasm")
    },
}
_MODEL = ("model_int8.tflite", "vocabulary.json")


def assemble(modules: Path, to: Path, model: Path | None = None) -> None:
    """Writes a folder that any web server can serve.

    Args:
      modules: node_modules, with @litertjs/core.
      model: a version of a next-word LiteRT export, such as saved_models/next_word_litert/1; None: the user
        chooses one.
    """
    (to / "litert" / "wasm").mkdir(parents=True, exist_ok=True)
    for name in ("index.html", "keyboard.js", "model.js"):
        shutil.copyfile(PAGE / name, to / name)
    for source, name in _FILES.items():
        shutil.copyfile(modules / source, to / name)
    if model:
        (to / "model").mkdir(exist_ok=True)
        for name in _MODEL:
            shutil.copyfile(model / name, to / "model" / name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--modules", type=Path, required=True, help="the folder node_modules with @litertjs/core")
    parser.add_argument("--to", type=Path, required=True, help="the folder to write")
    parser.add_argument("--model", type=Path, help="version of an export, such as saved_models/next_word_litert/1")
    options = parser.parse_args()
    assemble(options.modules, options.to, options.model)
    print(f"serve it with: python -m http.server --bind 127.0.0.1 --directory {options.to} 8080")
