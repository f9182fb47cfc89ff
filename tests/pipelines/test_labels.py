"""Label sets, scores on a scale, rare labels and abstaining, through the commands from train to export."""

import json
import os
import random
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import nlp_rnn
from nlp_rnn.models.calibration import probabilities_of
from nlp_rnn.training.run_directory import load_run
from tests.conftest import BAD, FILLER, GOOD, SMALL, ask, refused, run_pipeline, write_csv
from tests.serving.conftest import listening

TOPICS = {"billing": ["invoice", "card", "refund"], "login": ["password", "account"], "parcel": ["courier", "late"]}


def make_text(generator, words):
    text = generator.choices(FILLER, k=generator.randint(4, 12)) + words
    generator.shuffle(text)
    return " ".join(text)


@pytest.fixture(scope="module")
def tickets(tmp_path_factory):
    """A folder with a finished run of label sets, wide and deep, runs/tickets, and its export."""
    folder = tmp_path_factory.mktemp("tickets")
    generator, lines = random.Random(1), []
    for _ in range(400):
        labels = [label for label in TOPICS if generator.random() < 0.3]
        words = [generator.choice(TOPICS[label]) for label in labels]
        lines.append("".join(f"__label__{label} " for label in labels) + make_text(generator, words))
    (folder / "tickets.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings = [*SMALL, "data.source=text", "data.train=tickets.txt", "data.multi_label=true", "data.test_fraction=0.2"]
    settings += ["model.ngrams=1", "training.epochs=4", "training.class_weights=balanced", "training.focal_gamma=1"]
    done = run_pipeline("train", "name=tickets", *settings, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("validation micro F1 ")
    assert "class weights: billing " in done.stderr
    ask("export", "--run", "runs/tickets", cwd=folder)
    return folder


@pytest.fixture(scope="module")
def stars(tmp_path_factory):
    """A folder with a finished run of scores, runs/stars, with weights of examples, and its export."""
    folder = tmp_path_factory.mktemp("stars")
    generator, rows = random.Random(2), []
    for number in range(400):
        score = number % 4 + 1
        words = generator.choices(GOOD, k=score - 1) + generator.choices(BAD, k=4 - score)
        rows.append((make_text(generator, words), str(score), "2.5" if number % 3 else "1"))
    lines = "".join(f"{text.replace(',', '')},{score},{weight}\n" for text, score, weight in rows)
    (folder / "stars.csv").write_text(f"text,stars,weight\n{lines}", encoding="utf-8")
    settings = [
        *SMALL,
        "data.source=csv",
        "data.train=stars.csv",
        "data.label_column=stars",
        "data.weight_column=weight",
    ]
    settings += ["data.labels_are=ordinal", "data.test_fraction=0.2", "training.epochs=5"]
    assert ask("train", "name=stars", *settings, cwd=folder).startswith("validation mean absolute error ")
    ask("export", "--run", "runs/stars", cwd=folder)
    return folder


def evaluate(folder, *source, split="test"):
    return json.loads(ask("evaluate", "--json", *source, "--split", split, cwd=folder))


# --- label sets ----------------------------------------------------------------------------------------------------


def test_label_sets_are_scored_alike_from_run_and_export(tickets):
    run = evaluate(tickets, "--run", "runs/tickets")["metrics"]
    model = evaluate(tickets, "--model", "saved_models/sentiment")["metrics"]
    assert run["micro_f1"] > 0.9
    assert run["mean_average_precision"] > 0.9
    for key in ("micro_f1", "macro_f1", "mean_average_precision", "cross_entropy", "calibration_error_before"):
        assert run[key] == pytest.approx(model[key], abs=1e-4), key
    calibration = load_run(tickets / "runs" / "tickets").calibration
    assert [row["threshold"] for row in run["per_class"]] == pytest.approx(calibration.thresholds, abs=1e-6)
    assert [row["label"] for row in run["per_class"]] == ["billing", "login", "parcel"]
    text = ask("evaluate", "--run", "runs/tickets", cwd=tickets)
    assert "micro F1 " in text
    assert "threshold" in text
    assert "mAP" in (tickets / "saved_models/sentiment/1/assets.extra/MODEL_CARD.md").read_text(encoding="utf-8")


@pytest.mark.further
def test_predict_and_explain_label_sets(tickets):
    model = ("--model", "saved_models/sentiment")
    texts = ("the invoice and my password .", "the film was a story")
    both, none = (json.loads(line) for line in ask("predict", *model, "--json", *texts, cwd=tickets).splitlines())
    assert (sorted(both["labels"]), none["labels"]) == (["billing", "login"], [])
    assert set(both["probabilities"]) == set(TOPICS)
    lines = ask("predict", *model, *texts, cwd=tickets).splitlines()
    first = both["labels"][0]
    assert lines[0].startswith(f"{first} {both['probabilities'][first]:.4f}, ")
    assert lines[1] == f"-\t{texts[1]}"
    found = json.loads(ask("explain", *model, "--json", "the courier was late", cwd=tickets))
    assert found["label"] == "parcel"
    assert found["tokens"][int(np.argmax(found["scores"]))] in ("courier", "late")


def test_the_attributions_of_a_label_add_up_to_the_change_of_its_logit(tickets):
    run = load_run(tickets / "runs" / "tickets")
    from nlp_rnn.training import trained_models

    model, tokenizer = trained_models.load_classifier(run)
    text = "the courier was late"
    ids = tokenizer(tf.constant([text]))
    encoder, embedding, stack = (model.get_layer(name) for name in ("encoder", "embedding", "stack"))
    vectors = embedding(ids)
    ngrams = model.get_layer("ngrams")(ids)
    bias = model.get_layer("ngrams").bias
    label = run.labels.index("parcel")
    end = stack(encoder([vectors, ids != 0]), ngrams - bias, ids != 0).numpy()[0, label]
    start = stack(encoder([vectors * 0, ids != 0]), ngrams * 0, ids != 0).numpy()[0, label]
    scores = nlp_rnn.load(tickets / "runs" / "tickets").explain(text).scores
    assert sum(scores) == pytest.approx((end - start) / run.calibration.temperature, rel=0.02)


def test_what_label_sets_do_not_have_is_refused(tickets):
    told = refused("predict", "--model", "saved_models/sentiment", "--min-probability", "0.9", "x", cwd=tickets)
    assert "--min-probability is 0.9, but the model of --model chooses any number of labels" in told
    told = refused("evaluate", "--run", "runs/tickets", "--min-probability", "0.9", cwd=tickets)
    assert "min_probability (--min-probability) is 0.9, but the model chooses any number of labels" in told
    told = refused("evaluate", "--run", "runs/tickets", "data.multi_label=false", cwd=tickets)
    assert told.splitlines()[-1] == (
        "command line: data.multi_label and data.labels_are say what a model answers, so a trained one keeps those of "
        "runs/tickets/config.yaml; leave them out"
    )
    start = ("training.start_from=runs/tickets", "data.source=text", "data.train=tickets.txt", "name=other", *SMALL)
    told = refused("train", *start, cwd=tickets)
    assert told.splitlines()[-1] == (
        "training.start_from is runs/tickets, whose data.multi_label is true and data.labels_are classes; "
        "use the same, or start from "
        "another model"
    )
    told = refused("evaluate", "--model", "saved_models/sentiment", "--baseline", cwd=tickets)
    assert "--baseline is NBSVM, which has one label per text" in told
    told = refused("predict", "--model", "saved_models/sentiment", "--min-probability", "2", "x", cwd=tickets)
    assert "'2', but must be a number from 0 to 1" in told


# --- scores on a scale ---------------------------------------------------------------------------------------------


@pytest.mark.further
def test_scores_are_evaluated_and_predicted(stars):
    run = evaluate(stars, "--run", "runs/stars")
    model = evaluate(stars, "--model", "saved_models/sentiment")
    assert run["labels"] == ["1", "2", "3", "4"]
    assert run["metrics"]["mean_absolute_error"] < 0.5
    assert run["metrics"]["confusion_matrix"] == model["metrics"]["confusion_matrix"]
    assert run["metrics"]["calibration_error_before"] == pytest.approx(
        model["metrics"]["calibration_error_before"], abs=1e-4
    )
    question = ("predict", "--model", "saved_models/sentiment", "good great lovely", "bad awful dull")
    high, low = (json.loads(line) for line in ask(*question, "--json", cwd=stars).splitlines())
    assert 1 <= low["score"] < high["score"] <= 4
    columns = ask(*question, cwd=stars).splitlines()[0].split("\t")
    assert columns == [high["label"], f"{high['probability']:.4f}", f"{high['score']:.2f}", "good great lovely"]
    found = json.loads(ask("explain", "--model", "saved_models/sentiment", "--json", "good awful", cwd=stars))
    assert found["scores"][0] > 0 > found["scores"][1]  # what raised the score, and what lowered it
    assert "mean absolute error" in ask("evaluate", "--run", "runs/stars", cwd=stars)


@pytest.mark.further
def test_exports_of_label_sets_and_scores_answer_in_a_fresh_process_with_tensorflow_alone(tickets, stars):
    texts = ["the invoice and my password .", "", "good great lovely", "😀 <br />", "bad " * 500]
    models = [str(folder / "saved_models" / "sentiment" / "1") for folder in (tickets, stars)]
    code = """
import json, sys
class Blocker:
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("nlp_rnn", "pipelines", "sklearn", "scipy", "pydantic"):
            raise ImportError(name)
sys.meta_path.insert(0, Blocker())
import tensorflow as tf
texts, *models = json.loads(sys.argv[1])
for path in models:
    model = tf.saved_model.load(path)
    answer = model.signatures["serving_default"](text=tf.constant(texts))
    print(json.dumps({name: value.numpy().tolist() for name, value in answer.items()}, default=bytes.decode))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps([texts, *models])], capture_output=True, text=True, check=False,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    sets, scores = (json.loads(line) for line in done.stdout.splitlines())
    assert set(sets) == {"labels", "probabilities", "chosen"}
    assert sets["labels"] == [["billing", "login", "parcel"]] * len(texts)
    assert set(scores) == {"label", "probability", "probabilities", "score"}
    for number, found in enumerate(nlp_rnn.load(tickets / "runs" / "tickets")(texts)):
        assert list(found.probabilities.values()) == pytest.approx(sets["probabilities"][number], abs=1e-5)
        names = [
            name for name, is_chosen in zip(sets["labels"][number], sets["chosen"][number], strict=True) if is_chosen
        ]
        assert sorted(found.labels) == names
    for number, prediction in enumerate(nlp_rnn.load(stars / "runs" / "stars")(texts)):
        assert list(prediction.probabilities.values()) == pytest.approx(scores["probabilities"][number], abs=1e-5)
        assert prediction.score == pytest.approx(scores["score"][number], abs=1e-5)
        assert (prediction.label, prediction.probability) == (
            scores["label"][number],
            pytest.approx(scores["probability"][number], abs=1e-5),
        )
        shares = np.cumsum(scores["probabilities"][number])
        assert prediction.label == str(1 + int((shares < 0.5).sum()))
        assert prediction.score == pytest.approx(np.dot(scores["probabilities"][number], [1, 2, 3, 4]), abs=1e-5)


# --- one label per text --------------------------------------------------------------------------------------------


def test_rare_labels_are_told_with_the_metrics_to_watch(tmp_path):
    generator = random.Random(3)
    rows = [
        (make_text(generator, ["awful" if number % 20 else "lovely"]), "neg" if number % 20 else "pos")
        for number in range(400)
    ]
    write_csv(tmp_path / "rare.csv", rows)
    settings = [*SMALL, "data.source=csv", "data.train=rare.csv", "training.epochs=1", "model.cell=simple_rnn"]
    done = run_pipeline("train", "name=a", *settings, cwd=tmp_path)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("imbalanced labels")]
    assert line.startswith("imbalanced labels: 'pos' has ")
    assert line.endswith(
        " training examples; accuracy says little here: watch macro F1 and the average precision of 'pos', "
        "which evaluate reports; "
        "training.class_weights=balanced makes all labels count alike"
    )
    row = json.loads((tmp_path / "runs/a/metrics.json").read_text())["validation"]["per_class"][1]
    assert (row["label"], set(row)) == (
        "pos",
        {"label", "num_examples", "precision", "recall", "f1", "average_precision"},
    )
    told = refused("train", "name=b", *settings, "training.class_weights={spam: 3}", cwd=tmp_path)
    assert told.splitlines()[-1] == (
        "training.class_weights has a weight for 'spam', but the labels of data.train are 'neg', 'pos'; correct it"
    )
    assert not (tmp_path / "runs" / "b").exists()


def test_answers_are_calibrated_and_can_be_withheld(trained):
    run = load_run(trained / "runs" / "small")
    found = evaluate(trained, "--run", "runs/small", "--min-probability", "0.97")
    metrics = found["metrics"]
    assert metrics["temperature"] == run.calibration.temperature
    (row,) = [row for row in metrics["coverage"] if row["min_probability"] == 0.97]
    assert 0 < row["coverage"] <= 1
    assert f"{row['coverage'] * 100:.2f} %" in ask(
        "evaluate", "--run", "runs/small", "--split", "test", "--min-probability", "0.97", cwd=trained
    )
    model = ("predict", "--model", "saved_models/sentiment", "the film was a story")
    answer = json.loads(ask(*model, "--json", cwd=trained))
    sure = answer["probability"]
    limit = str(min(sure + 1e-3, 1))
    withheld = json.loads(ask(*model, "--json", "--min-probability", limit, cwd=trained))
    assert (withheld["label"], withheld["probability"]) == (None, answer["probability"])
    assert ask(*model, "--min-probability", limit, cwd=trained).startswith("?\t")
    assert (
        json.loads(ask(*model, "--json", "--min-probability", str(sure - 1e-3), cwd=trained))["label"]
        == answer["label"]
    )


def test_a_damaged_calibration_is_told(trained, tmp_path):
    import shutil

    shutil.copytree(trained / "runs", tmp_path / "runs")
    (tmp_path / "runs/small/calibration.json").write_text("{}")
    told = refused("export", "--run", "runs/small", cwd=tmp_path)
    assert told.splitlines()[-1].startswith("runs/small/calibration.json: is damaged or of another model")


def test_softmax_of_logits_over_the_temperature_is_what_the_run_answers(trained):
    run = load_run(trained / "runs" / "small")
    from nlp_rnn.training import trained_models

    model, tokenizer = trained_models.load_classifier(run)
    text = "a good film with awful music"
    expected = probabilities_of(model(tokenizer(tf.constant([text]))).numpy(), "classes", run.calibration.temperature)[
        0
    ]
    found = nlp_rnn.load(trained / "saved_models" / "sentiment")(text)
    assert list(found.probabilities.values()) == pytest.approx(expected.tolist(), abs=1e-5)
    assert found.score is None


@pytest.mark.further
def test_label_sets_and_scores_on_a_server(tickets, stars):
    texts = ["the invoice and my password .", "", "good great lovely", "bad awful"]
    for folder in (tickets, stars):
        local = nlp_rnn.load(folder / "saved_models" / "sentiment")
        with listening(folder / "saved_models") as port:
            remote = nlp_rnn.load(f"http://127.0.0.1:{port}/sentiment")
            assert type(remote) is type(local)
            for one, other in zip(remote(texts), local(texts), strict=True):
                for name, value in vars(other).items():
                    exact = name in ("label", "labels") or value is None
                    assert getattr(one, name) == (value if exact else pytest.approx(value, abs=1e-5))
            one, other = remote.explain(texts[0]), local.explain(texts[0])
            assert (one.label, one.tokens) == (other.label, other.tokens)
            assert one.scores == pytest.approx(other.scores, abs=1e-5)
