// A next-word model in the browser: the words of `nlp_rnn.ondevice.words` and the steps of `ondevice.litert_model`.

import { loadAndCompile, Tensor } from "@litertjs/core";

const EOS = 3, UNKNOWN = 1;
const CONTRACTION = /(\p{L})(n['’]t|['’](?:s|re|ve|ll|d|m))(?![A-Za-z0-9_])/giu;
const WORD = new RegExp(
  "[nN]['’][tT](?![A-Za-z0-9_])|['’](?:[sSdDmM]|[rRvV][eE]|[lL][lL])(?![A-Za-z0-9_])|[0-9]+(?:[.,:/][0-9]+)+" +
  "|[\\p{Script=Han}\\p{Script=Hiragana}\\p{Script=Katakana}\\p{Script=Thai}\\p{Script=Lao}\\p{Script=Khmer}" +
  "\\p{Script=Myanmar}]\\p{M}*|[\\p{L}\\p{M}\\p{N}_\\u200c\\u200d]+|\\S", "gu");
const INVISIBLE = /[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff]+/g;
const ENDS = { unicode: /[\p{L}\p{N}_][\p{M}\u200c\u200d]*$/u, whitespace: /\S$/u };
// As in `nlp_rnn.word_kinds`.
const PICTURE =
  "[\u00a9\u00ae\u203c\u2049\u2122\u2139\u2194-\u21aa\u231a-\u23ff\u24c2\u25aa-\u27bf\u2934-\u2b55\u3030\u303d\u3297\u3299" +
  "\u{1f000}-\u{1f1e5}\u{1f200}-\u{1f3fa}\u{1f400}-\u{1faff}][\ufe0f\u{1f3fb}-\u{1f3ff}]?[\u{e0020}-\u{e007f}]*";
const EMOJI = `[\u{1f1e6}-\u{1f1ff}]{2}|[0-9#*]\ufe0f?\u20e3|${PICTURE}(?:\u200d${PICTURE})*`;
const WORD_OR_EMOJI = new RegExp(`${EMOJI}|${WORD.source}`, "gu"), WHOLE_EMOJI = new RegExp(`^(?:${EMOJI})$`, "u");

const isEmoji = (text) => WHOLE_EMOJI.test(text) && (/^\p{Emoji_Presentation}/u.test(text) || /[\ufe0f\u20e3]/u.test(text));
const isWord = (text) =>
  (/^[\p{L}\p{N}]/u.test(text) && !/^(?:n['’]t|['’](?:s|re|ve|ll|d|m))$/iu.test(text)) || isEmoji(text);

export class Model {
  // content: Uint8Array of model_int8.tflite or model_float.tflite; settings: the parsed vocabulary.json.
  static async load(content, settings) {
    for (const name of ["words", "proposable", "profane", "splitter"]) {
      if (!settings[name]) throw new Error("vocabulary.json is not that of a next-word model");
    }
    const compiled = await loadAndCompile(content, { accelerator: "wasm" });
    return new Model(compiled.signatures.step, settings);
  }

  constructor(step, settings) {
    this.step = step;
    this.settings = settings;
    this.ids = new Map(settings.words.map((word, id) => [word, id]).filter(([, id]) => id > EOS));
    const profane = new Set(settings.profane);
    this.suggestible = settings.proposable.filter((id) => !profane.has(id) && isWord(settings.words[id]));
    this.size = step.getInputDetails().find((each) => each.name.includes("states")).shape[1];
    this.read = [];  // the text so far: {id, states} for each id
    this.scores = null;  // log-probabilities after the last one
  }

  split(text) {
    text = text.replace(INVISIBLE, "");
    if (this.settings.html_breaks) text = text.replace(/<br\s*\/?>/gi, " ");
    text = text.replace(/[\s\p{Z}\p{Cc}]+/gu, " ").trim();
    if (this.settings.lowercase) text = text.toLowerCase();
    if (this.settings.splitter === "whitespace") return text.split(" ").filter(Boolean);
    return text.replace(CONTRACTION, "$1 $2").match(this.settings.whole_emoji ? WORD_OR_EMOJI : WORD) ?? [];
  }

  // The most likely next words, or completions of the word that the text ends in: [{word, probability, rest}].
  async suggest(text, count) {
    const lines = text.split("\n").map((line) => this.split(line));
    const last = /\s$/u.test(text) ? "" : lines.at(-1).at(-1) ?? "";
    const begun = ENDS[this.settings.splitter].test(last) && !isEmoji(last) ? lines.at(-1).pop() : "";
    await this.advance(lines.flatMap((words) => [EOS, ...words.map((word) => this.ids.get(word) ?? UNKNOWN)]));
    const ids = this.suggestible.filter((id) => this.settings.words[id].startsWith(begun));
    const total = begun ? ids.reduce((sum, id) => sum + Math.exp(this.scores[id]), 0) : 1;
    ids.sort((one, other) => this.scores[other] - this.scores[one]);
    return ids.slice(0, count).map((id) => {
      const word = this.settings.words[id];
      return { word, probability: Math.exp(this.scores[id]) / total, rest: word.slice(begun.length) };
    });
  }

  // Reads the ids of a text. Computes steps only from the first one that has changed.
  async advance(ids) {
    let same = 0;
    while (same < ids.length && this.read[same]?.id === ids[same]) same++;
    if (same === ids.length && same === this.read.length) return;
    same = Math.min(same, ids.length - 1);  // the scores are those of the last step only
    this.read.length = same;
    for (const id of ids.slice(same)) {
      const before = this.read.at(-1)?.states ?? new Float32Array(this.size);
      const inputs = { token_ids: new Tensor(new Int32Array([id]), [1]), states: new Tensor(before, [1, this.size]) };
      const outputs = await this.step.run(inputs);
      this.read.push({ id, states: Float32Array.from(await outputs.states.data()) });
      this.scores = Float32Array.from(await outputs.log_probabilities.data());
      for (const tensor of [...Object.values(inputs), ...Object.values(outputs)]) tensor.delete();
    }
  }
}
