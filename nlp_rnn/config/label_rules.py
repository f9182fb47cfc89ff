"""Rules between the settings of classifiers' labels; `rules` calls them."""

from collections.abc import Callable

from nlp_rnn.config.settings import Config


def check_labels(config: Config, report: Callable[[str, str], None]) -> None:
    """Reports (setting, message) for each broken rule."""
    data, training = config.data, config.training
    if config.kind != "classifier":
        return
    tables = ("csv", "tsv", "jsonl", "parquet")
    if data.weight_column and data.source not in tables:
        fault = f"data.weight_column is {data.weight_column}, but data.source is {data.source}, which has no columns"
        report("data.weight_column", f"{fault}; leave it empty, or use one of {', '.join(tables)}")
    if data.multi_label:
        _check_label_sets(config, report)
    else:
        for key in ("label_separator", "label_columns"):
            if value := getattr(data, key):
                shown = list(value) if isinstance(value, tuple) else repr(value)
                fault = f"data.{key} is {shown}, but data.multi_label is false, so a text has one label"
                report(f"data.{key}", f"{fault}; set data.multi_label=true or leave it out")
    if training.teacher and training.focal_gamma:
        fault = f"training.focal_gamma is {training.focal_gamma}, but training.teacher gives probabilities"
        report("training.focal_gamma", f"{fault}; the focal loss needs one true label; use 0")
    if training.teacher and training.class_weights != "none":
        fault = "training.class_weights is set, but training.teacher gives probabilities"
        report("training.class_weights", f"{fault}; weights need true labels: train the teachers with them; use none")
    if data.labels_are == "ordinal":
        if data.multi_label:
            fault = "data.labels_are is ordinal, but data.multi_label is true"
            report("data.labels_are", f"{fault}; a text has one score or several labels; leave one of the two out")
        if training.focal_gamma:
            fault = f"training.focal_gamma is {training.focal_gamma}, but data.labels_are is ordinal"
            report("training.focal_gamma", f"{fault}; the focal loss applies only to classes; use 0")
        if config.model.ngrams:
            fault = f"model.ngrams is {config.model.ngrams}, but data.labels_are is ordinal"
            report("model.ngrams", f"{fault}; the linear part applies only to classes; use 0")


def _check_label_sets(config: Config, report: Callable[[str, str], None]) -> None:
    data, tables = config.data, ("csv", "tsv", "jsonl", "parquet")
    if data.source not in (*tables, "text", "records"):
        fault = f"data.multi_label is true, but data.source is {data.source}, which has one label per text"
        report("data.multi_label", f"{fault}; use one of {', '.join((*tables, 'text', 'records'))}, or false")
    for key in ("label_separator", "label_columns"):
        if (value := getattr(data, key)) and data.source not in tables:
            fault = (
                f"data.{key} is {list(value) if isinstance(value, tuple) else repr(value)}, "
                f"but data.source is {data.source}"
            )
            report(f"data.{key}", f"{fault}; it applies only to {', '.join(tables)}; leave it out")
    if data.label_separator and data.label_columns:
        fault = (
            f"data.label_separator is {data.label_separator!r}, but data.label_columns names a column for each label"
        )
        report("data.label_separator", f"{fault}; leave one of the two out")
    if data.source in ("csv", "tsv") and not data.label_separator and not data.label_columns:
        fault = "data.multi_label is true, but nothing separates the labels of a row"
        report("data.multi_label", f'{fault}; set data.label_separator, such as "|", or data.label_columns')
    if len(set(data.label_columns)) != len(data.label_columns) or "" in data.label_columns:
        fault = f"data.label_columns is {list(data.label_columns)}"
        report("data.label_columns", f"{fault}, but must name each column once")
