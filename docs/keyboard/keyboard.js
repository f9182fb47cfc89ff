const COUNT = 3;
const MISSING = "LiteRT's files are not beside this page; put them there with: make keyboard-page";
const [files, status, error, text, words] = ["files", "status", "error", "text", "words"].map((id) => document.getElementById(id));
let model = null, suggestions = [], turn = Promise.resolve(), newest = 0;

async function use(content, settings, name) {
  const { Model } = await import("./model.js");
  status.textContent = "Loading the model ...";
  error.textContent = "";
  model = await Model.load(content, settings);
  text.disabled = false;
  status.textContent = `Model: ${name}, ${settings.words.length.toLocaleString("en")} words, ${(content.length / 1e6).toFixed(1)} MB` +
    (settings.ngrams ? ", without its n-gram model" : "");
  await show();
}

// One call after the other; of the keys that were pressed meanwhile, only the last one counts.
function show() {
  const number = ++newest;
  turn = turn.then(async () => {
    if (!model || number !== newest) return;
    const start = performance.now(), typed = text.value;
    suggestions = await model.suggest(typed, COUNT);
    words.dataset.text = typed;
    words.dataset.milliseconds = (performance.now() - start).toFixed(1);
    words.replaceChildren(...suggestions.map((each, place) => {
      const button = document.createElement("button");
      button.textContent = each.word;
      button.title = `${(100 * each.probability).toFixed(1)} %`;
      button.addEventListener("click", () => accept(place));
      return button;
    }));
  }).catch(report);
  return turn;
}

function accept(place) {
  if (!suggestions[place] || words.dataset.text !== text.value) return;
  text.value += suggestions[place].rest + " ";
  text.focus();
  show();
}

function report(found) {
  error.textContent = found.message ?? String(found);
  status.textContent = "";
}

files.addEventListener("change", async () => {
  try {
    const all = [...files.files], end = (name) => all.find((each) => each.name.endsWith(name));
    const [file, vocabulary] = [end(".tflite"), end(".json")];
    if (!file || !vocabulary) throw new Error("Choose two files together: model_int8.tflite and vocabulary.json.");
    await use(new Uint8Array(await file.arrayBuffer()), JSON.parse(await vocabulary.text()), file.name);
  } catch (found) {
    report(found);
  }
});
text.addEventListener("input", show);
text.addEventListener("keydown", (event) => {
  const place = event.altKey ? ["1", "2", "3"].indexOf(event.key) : -1;
  if (place < 0) return;
  event.preventDefault();
  turn.then(() => accept(place));
});

try {
  const { loadLiteRt } = await import("@litertjs/core").catch(() => { throw new Error(MISSING); });
  await loadLiteRt(new URL("litert/wasm/", location.href).href);
  status.textContent = "Choose a model.";
  const beside = await fetch("model/vocabulary.json");  // the folder of an export, if there is one
  if (beside.ok) {
    const content = await (await fetch("model/model_int8.tflite")).arrayBuffer();
    await use(new Uint8Array(content), await beside.json(), "model/model_int8.tflite");
  }
} catch (found) {
  report(found);
}
