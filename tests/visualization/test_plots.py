"""What pictures show, read from their axes."""

from pathlib import Path

import numpy as np
import PIL.Image

from nlp_rnn.visualization import plots


def test_the_slices_of_a_search_have_names_and_short_numbers(monkeypatch):
    figures = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: figures.append(figure))
    values = [0.5, 0.4, 0.6]
    slices = [
        plots.Slice("training.learning_rate", 0.7, [0.000326443, 0.00195634, 0.00387953], values, is_logarithmic=True),
        plots.Slice("model.cell", 0.3, ["lstm", "gru", "lstm"], values, is_logarithmic=False),
    ]
    trials = [(number, value, "complete") for number, value in enumerate(values)]
    plots.plot_tuning(trials, slices, Path("unused.png"), title="a search", monitor="val_cross_entropy")
    (figure,) = figures
    figure.canvas.draw()
    labels = {axes.get_xlabel(): [tick.get_text() for tick in axes.get_xticklabels()] for axes in figure.axes}
    assert labels["training.learning_rate"] == ["0.00033", "0.002", "0.0039"]
    assert labels["model.cell"] == ["lstm", "gru"]


def test_texts_of_the_user_are_shown_as_they_are(tmp_path, monkeypatch):
    """Between dollar signs, matplotlib reads formulas; of a wrong one it makes an error."""
    usual, figures = plots._save, []
    monkeypatch.setattr(plots, "_save", lambda figure, path: (figures.append(figure), usual(figure, path)))
    words = ["from", r"$\nothing$", "to", "$9", "\x1b[2J"]
    plots.plot_attributions([(" ", word, 1.0) for word in words], tmp_path / "words.png", title=r"$\nothing$ \x1b")
    plots.plot_confusion([[1, 2], [3, 4]], [r"$\no$", "\x1b[31m"], tmp_path / "labels.png", title="x")
    plots.plot_activations([*"$\\no$\x1b"], np.ones(6), tmp_path / "unit.png", title="unit 3")
    plots.plot_attention([r"$\no$", "b"], ["c"], [[0.5, 0.5]], tmp_path / "attention.png")
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) == 4
    words, labels, unit, attention = map(texts_of, figures)
    assert [*words][:6] == [r"\$\nothing\$ \x1b", "from", r"\$\nothing\$", "to", r"\$9", r"\x1b[2J"]
    assert {r"\$\no\$", r"\x1b[31m"} <= set(labels)
    assert "".join(unit).count(r"\$") == 2
    assert {r"\$\no\$", "b", "c"} <= set(attention)


def texts_of(figure):
    """The texts of a figure: titles, texts in axes, names at their edges."""
    found = [text.get_text() for text in figure.texts]
    for axes in figure.axes:
        found += [text.get_text() for text in (*axes.texts, *axes.get_xticklabels(), *axes.get_yticklabels())]
    return found


def test_the_confusion_of_hundreds_of_classes_is_drawn(tmp_path):
    matrix = np.eye(700, dtype=int).tolist()
    plots.plot_confusion(matrix, [f"class {number}" for number in range(700)], tmp_path / "many.png", title="many")
    plots.plot_confusion([[3, 1], [0, 2]], ["neg", "pos"], tmp_path / "two.png", title="two")
    widths = []
    for name in ("many", "two"):
        with PIL.Image.open(tmp_path / f"{name}.png") as picture:
            widths.append(picture.width)
    assert 300 < widths[1] < widths[0] < 5000


def test_words_are_drawn_beside_each_other_whatever_their_width(tmp_path, monkeypatch, caplog):
    usual, figures = plots._save, []
    monkeypatch.setattr(plots, "_save", lambda figure, path: (figures.append(figure), usual(figure, path)))
    words = ["\x1b\x1b", "喜欢", "b\n\t", "x" * 200, "end"]
    plots.plot_attributions([(" ", word, 1.0) for word in words], tmp_path / "a.png", title="t")
    drawn = [(*text.get_position(), text.get_text()) for text in figures[0].axes[0].texts]
    assert drawn == [
        (0, 0.5, r"\x1b\x1b"), (9, 0.5, "喜欢"), (14, 0.5, r"b\n\t"), (20, 0.5, "x" * 60 + "..."), (84, 0.5, "end"),
    ]  # fmt: skip
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'a.png'}: boxes stand for 2 characters that Matplotlib's font does not have"
    ]


def test_long_labels_can_be_told_apart_and_a_long_title_is_whole(tmp_path, monkeypatch):
    usual, figures = plots._save, []
    monkeypatch.setattr(plots, "_save", lambda figure, path: (figures.append(figure), usual(figure, path)))
    labels = [f"customer_service_{name}" for name in ("refund", "return", "change", "cancel")]
    title = f"{'n' * 90}: accuracy 50.00 %"
    plots.plot_confusion(np.eye(4, dtype=int).tolist(), labels, tmp_path / "a.png", title=title)
    (axes,) = figures[0].axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == [
        "custome…refund", "custome…return", "custome…change", "custome…cancel",
    ]  # fmt: skip
    figures[0].canvas.draw()
    assert all(tick.get_rotation() for tick in axes.get_xticklabels())  # beside each other they would overlap
    assert figures[0]._suptitle.get_window_extent().width <= figures[0].bbox.width
    assert figures[0].get_suptitle().replace("\n", "").replace(" ", "").endswith("accuracy50.00%")
