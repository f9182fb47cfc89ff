"""A map of attention as text."""

from nlp_rnn.visualization import attention_map


def test_the_map_in_the_terminal():
    found = attention_map.AttentionMap(["a", "\u2581bc"], ["x", "yz"], [[1.0, 0.0], [0.25, 0.75]], [-0.1, -0.2])
    assert attention_map.to_terminal(found).splitlines() == [" x |██  |", "yz |░░▓▓|", "    a", "      b", "      c"]
    assert attention_map.to_plain(found).splitlines() == ["x\ta\t1.0000\t-0.1000", "yz\t\u2581bc\t0.7500\t-0.2000"]


def test_wide_characters_and_marks_keep_their_columns():
    shares = [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    found = attention_map.AttentionMap(["我", "e\u0301x", "b"], ["喜欢", "yz"], shares, [-0.1, -0.2])
    assert attention_map.to_terminal(found).splitlines() == [
        "喜欢 |██    |", "  yz |    ██|", "      我e\u0301 b", "        x",
    ]  # fmt: skip
    plain = attention_map.to_plain(found._replace(target_tokens=["\n", "y"]))
    assert plain.splitlines() == ["\\n\t我\t1.0000\t-0.1000", "y\tb\t1.0000\t-0.2000"]
