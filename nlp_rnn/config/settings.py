"""The settings: frozen dataclasses with types, ranges and defaults. `loading` reads their values."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, with_config

from nlp_rnn.config.tables import TASKS, Kind
from nlp_rnn.config.types import (
    AttentionName,
    BatchSize,
    CellName,
    ClassWeights,
    Fraction,
    MatmulPrecision,
    NonNegativeFloat,
    NonNegativeInt,
    NumLayers,
    OptionalFraction,
    OptionalSize,
    Outputs,
    PadMultiple,
    PathText,
    PoolingName,
    PositiveFloat,
    PositiveInt,
    Seed,
    Size,
    SoftmaxName,
    SourceName,
    Switch,
    TaskName,
)  # fmt: skip

_section = with_config(ConfigDict(extra="forbid"))


@_section
@dataclass(frozen=True)
class DataConfig:
    """Where the examples come from and how they are split."""

    source: SourceName = "imdb"
    # Folder of the prepared data sets; TFDS data are in it or in its subfolder tfds. Empty: the environment variable
    # NLP_RNN_DATA. For the source records: the folder that `nlp-rnn records` wrote.
    dir: PathText = ""
    # Your own files. csv, tsv, jsonl, parquet, text, tmx: a file, plain, .gz or a .zip of one. folders: a folder.
    # documents: a file or a folder. aligned: the path of two files with parallel lines, without their endings .en, .de.
    train: PathText = ""
    validation: PathText = ""
    test: PathText = ""
    text_column: str = "text"
    label_column: str = "label"  # empty: labels are not read; translation: the column of the target
    # Encoding of text files: any encoding of Python, such as cp1252 or utf-16.
    encoding: str = "utf-8"
    # csv and tsv: the character between columns, or "tab"; empty: the comma for csv, the tab for tsv.
    delimiter: str = ""
    # csv and tsv: whether the first line names the columns. Without it, text_column and label_column are numbers from
    # 1.
    has_header: Switch = True
    # csv and tsv. "double": fields may be enclosed in quotation marks, which are doubled inside. "none": quotation
    # marks are part of the text. Empty: double for csv; for tsv, recognised from the file.
    quoting: Literal["", "double", "none"] = ""
    # Classifiers: whether a text has any number of labels instead of one. The labels are several __label__ of a line
    # (source text), lists (jsonl, parquet), parts of a label column, or columns of their own.
    multi_label: Switch = False
    label_separator: str = ""  # csv, tsv, jsonl, parquet: separates the labels in the label column, such as "|"
    # csv, tsv, jsonl, parquet: one column per label, with 1 or true if the text has it, else 0, false or nothing.
    label_columns: tuple[str, ...] = ()
    # Classifiers of one label per text: "classes", or "ordinal" for a scale of three numbers or more, such as stars.
    labels_are: Literal["classes", "ordinal"] = "classes"
    # csv, tsv, jsonl, parquet: a column with the weight of each example in training, 0 or more; empty: all equal.
    weight_column: str = ""
    # imdb, language models and classifiers with training.teacher or training.virtual_adversarial: also train on its
    # 50,000 unlabelled reviews. Texts that are also in validation or test are left out.
    use_unlabeled: Switch = False
    # Translation: the languages of the source and the target, as BCP 47 tags.
    source_language: str = "en"
    target_language: str = "de"
    # Translation: leaves out pairs in which one side has more than length_ratio times the characters of the other, plus
    # 10.
    length_ratio: Annotated[float, Field(strict=True, ge=1, allow_inf_nan=False)] = 6.0
    num_pairs: PositiveInt = 20000  # cldr: number of pairs to generate
    # documents: name patterns of the files to read from a folder, such as ["*.py"].
    patterns: tuple[str, ...] = ("*",)
    # How missing validation and test splits are drawn from train. "hash": by a seeded hash of the text, so that equal
    # texts stay together. "blocks": in blocks of block_size rows, for files in which neighbouring rows are related.
    # "contiguous": the beginning of the text is train, the middle validation, the end test, cut between two characters.
    split: Literal["hash", "blocks", "contiguous"] = "hash"
    block_size: PositiveInt = 250  # in rows
    validation_fraction: Fraction = 0.1
    test_fraction: Fraction = 0.0
    # Trains on this many examples only, drawn by the seed with each label's share; 0: all. For learning curves. With
    # training.teacher or training.virtual_adversarial (and without data.multi_label) this is the number of labels: the
    # other texts are trained on without theirs.
    max_examples: NonNegativeInt = 0
    # Removes texts of train that are also in validation or test. Use false for published splits.
    remove_repeated: Switch = True
    # Largest length of a text in tokens. Longer texts keep their start, their end, or half of it from both ends.
    max_length: PositiveInt = 512
    keep: Literal["start", "end", "both"] = "both"
    # Token ids are computed once and kept here; empty: the environment variable NLP_RNN_CACHE, else ~/.cache/nlp-rnn.
    cache_dir: PathText = ""

    @property
    def outputs(self) -> Outputs:
        """What a classifier answers: one of several classes, any number of labels, or a score on a scale."""
        return "label_sets" if self.multi_label else "ordinal" if self.labels_are == "ordinal" else "classes"


@_section
@dataclass(frozen=True)
class TokenizerConfig:
    """How text becomes ids. Training and exported models normalise text with the same graph."""

    level: Literal["word", "char", "subword"] = "word"  # subword: SentencePiece's unigram pieces with byte fallback
    vocab_size: PositiveInt = 20000  # includes special pieces and hash buckets
    min_count: PositiveInt = 2  # words and characters with fewer occurrences in train are unknown
    # The largest allowed share of unknown tokens in the training texts (0-1). With more, the command stops before
    # training.
    max_unknown: Annotated[float, Field(strict=True, ge=0, le=1)] = 0.34
    # Your own vocabulary instead of a trained one: a file with one piece per line, or a sentencepiece .model (subword).
    vocabulary: PathText = ""
    # "lower": Unicode lower case. "keep": unchanged. "markers" (words): lower case with <title> or <upper> before the
    # word.
    case: Literal["lower", "keep", "markers"] = "lower"
    nfkc: Switch = False  # Unicode normal form KC, which replaces full-width letters, ligatures and the like
    html_breaks: Switch = True  # <br /> is white space (not at level char)
    # Words. unicode: for any script. treebank: Penn Treebank rules for English. whitespace: for text that is already
    # split.
    splitter: Literal["unicode", "treebank", "whitespace"] = "unicode"
    oov_buckets: NonNegativeInt = 0  # number of ids that unknown words share by hash, instead of <unk>
    reserved: tuple[str, ...] = ()  # symbols with their own id that are never split, such as "<sep>"
    split_digits: Switch = False  # subwords: a piece holds at most one digit, so that numbers are read digit by digit
    # Temperature of subword regularisation, which draws other segmentations in training; 0: off. 5 to 10 is usual,
    # which is sentencepiece's alpha 0.2 to 0.1.
    sampling: NonNegativeFloat = 0.0


@_section
@dataclass(frozen=True)
class ModelConfig:
    """The recurrent model."""

    # Run directory or exported SavedModel of a language model whose vocabulary, embedding and recurrent layers are
    # copied; empty: random weights.
    init_from: PathText = ""
    # Pretrained vectors for the embedding: a text file of word vectors, plain, .gz or a .zip of one (GloVe, word2vec
    # with its header line, or fastText's .vec); or the run directory or exported SavedModel of a classifier or language
    # model, whose other layers and vocabulary may differ. Their dimension must be model.embedding_dim. Words without a
    # vector there begin with random ones. Empty: all vectors begin random.
    vectors: PathText = ""
    vectors_trainable: Switch = True  # false: the embedding is not trained
    cell: CellName = "lstm"
    embedding_dim: Size = 128
    units: Size = 128
    num_layers: NumLayers = 1
    # Units of the last recurrent layer; 0: model.units, or for language models with tied embeddings
    # model.embedding_dim.
    last_units: OptionalSize = 0
    is_bidirectional: Switch = True
    # Reads texts from the end to the start. A language model then predicts the token before, for model.init_from of a
    # classifier that also reads backwards.
    is_reversed: Switch = False
    is_residual: Switch = False
    layer_norm: Switch = False
    pooling: tuple[PoolingName, ...] = ("last", "max", "mean")
    # Classifiers that read in one direction: training reads a text in chunks of about this many tokens. The result is
    # the same, in a little more time, with memory that hardly grows with the length of the texts. 0: at once.
    chunk_length: NonNegativeInt = 0
    # Classifiers: before training, the mean and the spread of the pooled features are fitted on training texts, and the
    # output layer reads them standardised. Features of pretrained layers change little from text to text, so without
    # it the output layer learns slowly from them.
    standardize: Switch = False
    # Drops whole words of the input: in classifiers single occurrences, in language models all occurrences in a batch.
    word_dropout: Fraction = 0.0
    embedding_dropout: Fraction = 0.0  # drops embedding dimensions, the same ones at every time step
    dropout: Fraction = 0.2  # between layers (the same dimensions at every time step) and before the output
    output_dropout: OptionalFraction = None  # before the output; empty: model.dropout
    recurrent_dropout: Fraction = 0.0  # on the state
    weight_dropout: Fraction = 0.0  # on the recurrent matrix (DropConnect), drawn once per batch
    # This package's loop over time, on a CPU for all cells but simple_rnn, on Keras's backend JAX for lstm and gru.
    # "auto": where it is faster (on JAX: always). "on": always. "off": Keras's loop.
    fast: Literal["auto", "on", "off"] = "auto"
    # Language models: the output uses the embedding's table, so the last layer has embedding_dim units.
    tie_embeddings: Switch = True
    # In training; evaluation is exact. sampled and adaptive are for vocabularies of 10,000 and more.
    softmax: SoftmaxName = "full"
    # softmax sampled: number of words computed per batch; half are the most frequent words, half are drawn.
    num_sampled: PositiveInt = 4096
    # Classifiers: largest n of the word n-grams of a linear part beside the recurrent part, as in NBSVM; 0: no linear
    # part. It is fitted after training, and then the weights of the two parts on validation data. It takes one megabyte
    # per class, from n = 3 on two megabytes; two classes share theirs.
    ngrams: Annotated[int, Field(strict=True, ge=0, le=5)] = 0
    # Translation: the decoder's attention over the source and its number of heads.
    attention: AttentionName = "general"
    num_heads: Size = 1
    # Translation: each decoder step also reads the attention's output of the step before. Steps then run one by one.
    input_feeding: Switch = False
    # softmax adaptive: first ids of the clusters of rarer words, such as [2000, 10000].
    cutoffs: tuple[PositiveInt, ...] = ()

    def units_of(self, number: int, *, default: int = 0) -> int:
        """Units of recurrent layer `number` (from 0); `default` applies to the last layer if last_units is 0."""
        return (self.last_units or default or self.units) if number == self.num_layers - 1 else self.units

    @property
    def final_dropout(self) -> float:
        """The rate of dropout before the output."""
        return self.dropout if self.output_dropout is None else self.output_dropout


@_section
@dataclass(frozen=True)
class TrainingConfig:
    """How the model is trained."""

    # Run directory or exported SavedModel of a model with the same settings, for example trained on more text. Training
    # starts from its best weights and uses its vocabulary. model.ngrams may differ, since the linear part is fitted
    # anew. Empty: random weights.
    start_from: PathText = ""
    batch_size: BatchSize = 64
    epochs: PositiveInt = 10
    # 0: an epoch is the whole training set. Otherwise language models read on in the next epoch.
    max_steps_per_epoch: NonNegativeInt = 0
    # lazy_adam updates only the rows of the embedding that are in the batch. It is faster for large vocabularies, and
    # its weights differ from those of adam.
    optimizer: Literal["adam", "adamw", "lazy_adam", "sgd"] = "adam"
    learning_rate: PositiveFloat = 1e-3
    # The learning rate of each layer below the output is that of the layer above divided by this; 1: the same for all.
    # Source: Howard & Ruder 2018, section 3.2.
    layer_decay: Annotated[float, Field(strict=True, ge=1, allow_inf_nan=False)] = 1.0
    # Gradual unfreezing: numbers of epochs in which only the output trains, then also the last recurrent layer, and so
    # on. After them all layers train. Empty: all layers train from the start. Source: Howard & Ruder 2018, section 3.3.
    unfreeze: tuple[PositiveInt, ...] = ()
    # After a warm-up: "constant"; "cosine", a fall to 0; "one_cycle", the same from a lower start (Smith 2018);
    # "flat_cosine", constant to the middle, a fall to a tenth of the peak, and at the end, for as many steps as the
    # warm-up has, to 0, for long trainings.
    schedule: Literal["constant", "cosine", "one_cycle", "flat_cosine"] = "one_cycle"
    warmup_fraction: Fraction = 0.1  # of all steps
    beta_1: Fraction = 0.9  # adam, adamw, lazy_adam: decay of the mean gradient
    beta_2: Fraction = 0.999  # adam, adamw, lazy_adam: decay of the mean squared gradient
    epsilon: PositiveFloat = 1e-7
    weight_decay: NonNegativeFloat = 0.0  # adamw only
    clip_norm: NonNegativeFloat = 1.0  # global norm of the gradient; 0: no clipping
    # Number of parts in which each batch is computed one after the other. The result is the same with less memory.
    gradient_accumulation: PositiveInt = 1
    # Classifiers and translators: batches are padded to a multiple of this number of time steps. 0: as few as possible;
    # on JAX, which compiles each length anew, multiples of 32. On TPUs all batches have length data.max_length. Without
    # effect on predictions of classifiers with TensorFlow.
    pad_to_multiple_of: PadMultiple = 0
    ema_momentum: Fraction = 0.0  # evaluate, keep and export the moving average of the weights; 0: the weights
    # Momentum of the average at step t (from 0) is at most (1 + t) / (10 + t), so that it forgets the initial weights,
    # however short the training is. Without it, 0.999 keeps 37 % of them after 1,000 steps.
    ema_ramp: Switch = False
    # Language models: number of time steps of back-propagation. The state is carried over from window to window.
    window: PositiveInt = 35
    # Language models: draws the length of each window around `window`, so that the cuts move (Merity et al. 2018,
    # section 4.1).
    random_window: Switch = True
    # Language models: in each epoch, each row of the batch begins at a drawn place of its part of the text, reads to
    # the end of the part, and then from its beginning. So batches differ from epoch to epoch. Source: Press 2019.
    partial_shuffle: Switch = False
    # Language models: share of rows whose carried state is set to zero before each window. Without it, a model that
    # reads a long text once sees only states far from the zero state with which evaluation, generation and transfer
    # begin.
    state_reset: Fraction = 0.0
    # Penalties on the mean square of the last layer's outputs, and of their change from step to step (Merity et al.
    # 2017).
    activation_regularization: NonNegativeFloat = 0.0
    temporal_regularization: NonNegativeFloat = 0.0
    # R-Drop: each step computes its batch twice with different dropout. The loss is the mean of both, plus this weight
    # times the mean of both Kullback-Leibler divergences between the predictions. 0: one pass, in half the time; 0.5 to
    # 3 is usual. (The paper adds both losses, so its weight is twice this one.) Between the passes differ dropout,
    # output_dropout, embedding_dropout, recurrent_dropout, and word_dropout of classifiers. They share weight_dropout,
    # and word_dropout of other models, which are drawn once per batch. Source: Liang et al. 2021, section 2.1.
    r_drop: NonNegativeFloat = 0.0
    # Classifiers: share of the training texts that are replaced by an excerpt in each epoch, of any length from one
    # token to the whole text. A model of long texts then also reads short ones in training.
    excerpts: Annotated[float, Field(strict=True, ge=0, le=1)] = 0.0
    # Classifiers: adversarial training. Each step also trains on texts whose embedding vectors are moved in the
    # direction in which the loss grows fastest. This is the length of the move over a whole text, in standard
    # deviations of its vectors; 0: no such pass, in half the time; the paper has 5. Source: Miyato et al. 2017,
    # section 3.
    adversarial: NonNegativeFloat = 0.0
    # Classifiers: virtual adversarial training. Each step also moves the vectors of its texts against the model's own
    # answer, by this length, and adds the divergence of the two predictions to the loss. It does not read the labels,
    # so it also learns from texts without one: unless data.multi_label is set, some texts of train may then have none.
    # 0: no such passes, in a third of the time. Source: Miyato et al. 2017, section 3.
    virtual_adversarial: NonNegativeFloat = 0.0
    # Run directories of trained models of the same vocabulary, and labels or languages, from which the model learns.
    # Classifiers learn to predict their mean probabilities; unless data.multi_label is set, some texts of train may
    # then have no label. Language models and translators learn to predict the mean probabilities of each next token.
    # Translators also learn from the teachers' joint translations of the sentences of train. Sources: Hinton et al.
    # 2015; Kim & Rush 2016, sections 3.1 and 3.2.
    teacher: tuple[PathText, ...] = ()
    # Weight of the teachers' probabilities beside a text's own label or the true next token, 0-1. They alone count for
    # a text without a label. Of tokens, only the likeliest ones have them; the rest counts for the true token.
    # Translators with a teacher: 0: only its translations. Above 0, tokenizer.sampling leaves the targets as they are.
    teacher_share: Annotated[float, Field(strict=True, ge=0, le=1)] = 0.5
    label_smoothing: Fraction = 0.0  # translation: share of the target probability spread over all pieces
    scheduled_sampling: Fraction = 0.0  # translation: share of the decoder's inputs that are its own predictions
    # Language models: after training, fits one temperature of the probabilities on validation data (Guo et al. 2017),
    # which evaluation and exports use. Classifiers are always calibrated.
    fit_temperature: Switch = False
    # Classifiers: weight of each label in the loss. "balanced": in inverse proportion to its number of examples. Or
    # weights by label, such as {pos: 5}; the others have 1. With data.multi_label, the weight applies to the texts that
    # have the label; balanced: texts with and without it have equal weight in total.
    class_weights: ClassWeights = "none"
    # Classifiers: exponent of the focal loss, which gives well classified examples less weight (2 is usual); 0: the
    # cross-entropy.
    focal_gamma: NonNegativeFloat = 0.0
    monitor: Literal["val_accuracy", "val_cross_entropy"] = "val_cross_entropy"
    patience: NonNegativeInt = 3  # epochs without improvement before training stops; 0: never
    checkpoint_seconds: PositiveInt = 120  # seconds between checkpoints; one is also saved after every epoch
    tensorboard: Switch = False  # needs the extra `tensorboard`


@_section
@dataclass(frozen=True)
class HardwareConfig:
    """The devices and their precision."""

    # auto: what TF_CONFIG or TPU_NAME names, else all GPUs, else the CPU. cpu, gpu: one device. mirrored: several GPUs
    # of one machine. multi_worker: the machines in TF_CONFIG with all their GPUs. tpu: the TPU in TPU_NAME.
    strategy: Literal["auto", "cpu", "gpu", "mirrored", "multi_worker", "tpu"] = "auto"
    # mirrored: number of GPUs; 0: all. On a machine without GPUs, the CPU is split into this many devices, for trials.
    num_replicas: NonNegativeInt = 0
    # Time to wait for other machines: at the start of multi_worker, and for a batch of input_service.
    connect_seconds: PositiveInt = 300
    # HOST:PORT of `nlp-rnn serve-inputs`, which reads, resamples and pads the batches of classifiers and translators;
    # empty: the trainer prepares them itself. The service has no password: use it in trusted networks only.
    input_service: str = ""
    mixed_precision: Literal["off", "float16", "bfloat16"] = "off"
    # Type of the large matrix products of training, in the fast recurrent layers and the softmax. bfloat16 is faster on
    # CPUs with AVX-512 BF16 or AMX, and less exact. Weights, states, gates and sums stay float32, and so do the
    # products of a decoder with model.input_feeding.
    matmul_precision: MatmulPrecision = "float32"
    is_deterministic: Switch = True  # TensorFlow's deterministic kernels: the same seed gives the same weights


@_section
@dataclass(frozen=True)
class Config:
    """All settings that make a run repeatable. Every run and exported model saves them with all defaults filled in."""

    task: TaskName = "sentiment"
    name: str = ""  # name of the run directory; empty: the name of the config file, else the task
    runs_dir: PathText = "runs"
    seed: Seed = 1
    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)

    @property
    def kind(self) -> Kind:
        """The kind of model: "classifier", "language_model" or "translator"."""
        return TASKS[self.task].kind

    @property
    def vocabulary_from(self) -> str:
        """The trained model whose vocabulary is taken: where the weights come from, or the teacher; empty: none."""
        return self.training.start_from or self.model.init_from or next(iter(self.training.teacher), "")

    @property
    def trains_on_unlabelled(self) -> bool:
        """Whether texts of train may have no label: of training.teacher or virtual_adversarial."""
        needs_none = bool(self.training.teacher or self.training.virtual_adversarial)
        return self.kind == "classifier" and needs_none and not self.data.multi_label


PAIR_SOURCES = ("multi30k", "tatoeba", "ted_hrlr", "cldr", "aligned", "tmx")  # for translation only
TFDS_SOURCES = ("imdb", "tiny_shakespeare", "records", "ted_hrlr")  # read with TensorFlow
# Read from data.train.
FILE_SOURCES = ("csv", "tsv", "jsonl", "parquet", "folders", "text", "documents", "aligned", "tmx")
