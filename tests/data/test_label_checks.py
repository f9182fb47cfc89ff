from collections import Counter

from nlp_rnn.data import label_checks


def test_labels_that_look_wrong_are_told():
    labels = {
        "train": Counter({"good": 50, "Good ": 3, "bad": 40, "nan": 7, "odd": 1, "1": 5, "1.0": 5, "true": 4}),
        "validation": Counter({"good": 5, "bad": 4}),
        "test": Counter(),
    }
    assert list(label_checks.warnings(labels)) == [
        "data.train has labels with one example only: 'odd'; nothing can be learned about them",
        "data.train has labels that look like missing values: 'nan' 7",
        "data.train has labels that differ only by case, spaces or the writing of a number: 'good', 'Good '; "
        "are they one?",
        "data.train has labels that differ only by case, spaces or the writing of a number: '1', '1.0', 'true'; "
        "are they one?",
        "data.validation has no examples of the labels 'Good ', 'nan', 'odd', '1', '1.0', 'true'; "
        "its metrics do not cover them",
    ]


def test_numbers_as_labels_are_questioned():
    labels = Counter({f"{number}.5": 2 for number in range(30)})
    (warning,) = label_checks.warnings({"train": labels})
    assert warning.startswith(
        "data.train has 30 labels that are all numbers; is data.label_column the column of the labels?"
    )


def test_sound_labels_and_texts_without_labels_are_fine():
    assert not list(label_checks.warnings({"train": Counter({"a": 3, "b": 3}), "test": Counter({"a": 1, "b": 1})}))
    assert not list(label_checks.warnings({"train": Counter({"": 100})}))


def test_unknown_labels_are_named_with_what_they_resemble():
    unknown = label_checks.unknown(
        Counter({"Bug": 2, "": 1, "bug": 9, "new": 1}),
        {"Bug": "it\nbreaks", "": "fine", "new": "add"},
        ["bug", "praise"],
    )
    assert unknown == (
        "'Bug' (2 examples, the first begins 'it\\nbreaks', 'bug' except for case or spaces), the empty label (1 "
        "examples, the first begins 'fine'), 'new' (1 examples, the first begins 'add')"
    )


def test_counts_are_sorted_and_shortened():
    assert label_checks.counts(Counter({"a": 1, "b": 1000})) == "'b' 1,000, 'a' 1"
    assert label_checks.counts(Counter({str(n): 1 for n in range(10)})).endswith("'7' 1, ... (10 labels)")
