"""The ids that every vocabulary begins with, and the mark of a word's beginning in subwords."""

PAD_ID, UNK_ID, BOS_ID, EOS_ID = 0, 1, 2, 3
SPECIAL_PIECES = ("<pad>", "<unk>", "<s>", "</s>")
WORD_START = "\u2581"  # sentencepiece's mark for the beginning of a word
