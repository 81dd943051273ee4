"use strict";
// One rater's way through the pages. State is {rater, participant, consent, about, started, page, answers: {text: {scores,
// milliseconds}}}; participant is the id of another source, "" without one. It is kept in localStorage after every choice. Texts are only ever set as textContent: nothing in them can run.
(() => {
  const study = JSON.parse(document.getElementById("study").textContent);
  const by = (id) => document.getElementById(id);
  const fieldsets = [...document.querySelectorAll("#items fieldset")];
  const items = fieldsets.map((fieldset) => fieldset.dataset.item);
  let state = null;
  let order = [];
  let shownAt = 0;  // since when the current page is in sight, 0 while it is not

  // Storage ----------------------------------------------------------------------------------------------------

  const key = (of) => ["kdutils", study.study, study.version, of.rater, ...(of.participant ? [of.participant] : [])].join(":");

  const storage = (() => {
    try {
      localStorage.setItem("kdutils:try", "1");
      localStorage.removeItem("kdutils:try");
      return localStorage;
    } catch (error) {
      return null;
    }
  })();

  function keep() {
    try {
      storage.setItem(key(state), JSON.stringify(state));
    } catch (error) {
      warnOfStorage();
    }
  }

  function warnOfStorage() {
    notice("This browser does not keep your answers. Do not close or reload this page before you have saved a file" +
      " (“Save unfinished answers as a file”).");
  }

  function kept(rater, participant) {
    try {
      return checked(JSON.parse(storage.getItem(key({rater, participant}))), rater);
    } catch (error) {
      return null;
    }
  }

  // Return what is usable of a stored or imported state: known texts, whole numbers in range; null for none.
  function checked(found, rater) {
    if (!found || found.rater !== rater) return null;
    const clean = {rater, participant: ID.test(found.participant || "") ? found.participant : "", consent: found.consent === true, about: {}, started: String(found.started || now()).slice(0, 30),
      page: 0, answers: {}};
    for (const name of Object.keys(study.ask)) {
      clean.about[name] = String((found.about || {})[name] || "").slice(0, 60);
    }
    for (const text of study.orders[rater]) {
      const old = (found.answers || {})[text];
      if (!old) continue;
      const scores = {};
      for (const item of items) {
        const score = (old.scores || {})[item];
        if (Number.isInteger(score) && score >= 1 && score <= points(text)) scores[item] = score;
      }
      clean.answers[text] = {scores, milliseconds: Math.max(0, Math.round(Number(old.milliseconds) || 0))};
    }
    const open = study.orders[rater].findIndex((text) => missing(clean, text).length);
    clean.page = open < 0 ? study.orders[rater].length : open;
    return clean;
  }

  const points = (text) => study.task === "rating" ? study.scale.length : study.texts[text].choices.length;
  const missing = (of, text) => items.filter((item) => !((of.answers[text] || {}).scores || {})[item]);
  const now = () => new Date().toISOString().slice(0, 19) + "Z";

  // Who ----------------------------------------------------------------------------------------------------------

  // The address may hold a code (?rater=R001A), an id of a panel (?PROLIFIC_PID=…, ?participant=…), or both. An id alone
  // draws a code by its checksum: the same person always gets the same code, and two persons may get one.
  const ID = /^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$/;

  function personOf(address) {
    const values = [...new URLSearchParams(address)].map(([name, value]) => [name.toLowerCase(), value.trim()]);
    const given = (values.find(([name]) => name === "rater") || ["", ""])[1];
    const id = (values.find(([name, value]) => study.id_names.includes(name) && ID.test(value)) || ["", ""])[1];
    const codes = Object.keys(study.orders).sort();
    if (codes.includes(given.toUpperCase()) || /^r\d{3,}[a-z]$/i.test(given) || !(id || ID.test(given))) return {rater: given.toUpperCase().slice(0, 12), participant: id};
    const participant = id || given;
    const draw = parseInt(sha256([study.study, study.version, participant].join(":")).slice(0, 8), 16);
    return {rater: codes[draw % codes.length], participant};
  }

  // Start ------------------------------------------------------------------------------------------------------

  function notice(text) {
    by("notice").textContent = text;
    by("notice").hidden = !text;
  }

  function begin(found) {
    state = found;
    order = study.orders[state.rater];
    keep();
    if (!storage) warnOfStorage();
    show(state.page);
  }

  by("start-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const rater = by("rater").value.trim().toUpperCase();
    const consent = by("consent");
    const error = !Object.hasOwn(study.orders, rater) ? "This rater code is not known. Please check what you were sent."
      : consent && !consent.checked ? "Please tick the box if you agree to take part." : "";
    by("start-error").textContent = error;
    if (error) return;
    const found = kept(rater, person.participant);
    if (found) {
      const done = answered(found);
      if (done) notice(`Welcome back: ${done} of ${study.orders[rater].length} pages were already answered in this browser.`);
      begin({...found, consent: !!consent, about: aboutNow(found.about)});
    } else {
      begin({rater, participant: person.participant, consent: !!consent, about: aboutNow({}), started: now(), page: 0, answers: {}});
    }
  });

  // What the rater says about themselves: what is filled in now, else what was said before.
  function aboutNow(before) {
    const about = {};
    for (const field of document.querySelectorAll("[data-ask]")) about[field.dataset.ask] = field.value.trim() || before[field.dataset.ask] || "";
    return about;
  }

  const missingPages = () => order.some((text) => missing(state, text).length);
  const answered = (of) => study.orders[of.rater].filter((text) => !missing(of, text).length).length;

  by("import").addEventListener("change", async () => {
    const file = by("import").files[0];
    let found = null;
    try {
      const read = JSON.parse(await file.text());
      const answers = {};
      for (const answer of read.answers) answers[answer.text] = answer;
      if (read.study !== study.study || read.version !== study.version) throw new Error("another study");
      if (Object.hasOwn(study.orders, read.rater)) found = checked({...read, answers}, read.rater);
    } catch (error) {
      found = null;
    }
    by("import").value = "";
    by("start-error").textContent = found ? "" : "This is not an unfinished file of this form.";
    if (!found) return;
    if (by("consent") && !found.consent) {
      by("start-error").textContent = "Please tick the box if you agree to take part, then choose the file again.";
      if (!by("consent").checked) return;
      by("start-error").textContent = "";
      found.consent = true;
    }
    notice(`${answered(found)} of ${study.orders[found.rater].length} pages were read from the file.`);
    begin({...found, about: aboutNow(found.about)});
  });

  // Pages ------------------------------------------------------------------------------------------------------

  function show(page) {
    leave();
    state.page = page;
    keep();
    by("start").hidden = true;
    by("page").hidden = page >= order.length;
    by("finish").hidden = page < order.length;
    if (page >= order.length) {
      by("saved").hidden = true;
      by("finish-heading").focus();
      window.scrollTo(0, 0);
      return;
    }
    const text = study.texts[order[page]];
    by("heading").textContent = `Page ${page + 1} of ${order.length}`;
    by("code").textContent = `Rater ${state.rater} · ${answered(state)} of ${order.length} pages answered`;
    by("progress").value = answered(state) / order.length;
    by("question").textContent = text.question;
    by("answer").textContent = text.answer;
    by("explanation").textContent = text.explanation || "(no explanation is shown)";
    showChoices(text);
    fieldsets.forEach(fill);
    by("page-error").textContent = "";
    by("back").disabled = page === 0;
    by("next").textContent = page + 1 < order.length ? "Next" : "Finish";
    by("heading").focus();
    window.scrollTo(0, 0);
    if (!document.hidden) shownAt = performance.now();
  }

  function showChoices(text) {
    const rating = study.task === "rating";
    by("choices").replaceChildren(...(rating ? text.choices : []).map((choice) => {
      const line = document.createElement("li");
      line.dir = "auto";
      line.textContent = choice;
      if (choice === text.answer) {
        line.className = "answered";
        const mark = document.createElement("span");
        mark.className = "mark";
        mark.textContent = " ← the model’s answer";
        line.append(mark);
      }
      return line;
    }));
    by("answer-box").hidden = !rating || !text.answer || text.choices.includes(text.answer);
    if (rating) return;
    const name = items[0];
    fieldsets[0].querySelector(".list").replaceChildren(...text.choices.map((choice, place) => {
      const label = document.createElement("label");
      const radio = document.createElement("input");
      Object.assign(radio, {type: "radio", name, value: String(place + 1)});
      const number = document.createElement("b");
      number.textContent = String(place + 1);
      const words = document.createElement("span");
      words.dir = "auto";
      words.textContent = choice;
      label.append(radio, number, words);
      return label;
    }));
  }

  function fill(fieldset) {
    const score = ((state.answers[order[state.page]] || {}).scores || {})[fieldset.dataset.item];
    for (const radio of fieldset.querySelectorAll("input")) radio.checked = Number(radio.value) === score;
    mark(fieldset, false);
  }

  function mark(fieldset, missing) {
    fieldset.classList.toggle("missing", missing);
    fieldset.setAttribute("aria-invalid", missing);
  }

  function answer() {
    const text = order[state.page];
    state.answers[text] = state.answers[text] || {scores: {}, milliseconds: 0};
    return state.answers[text];
  }

  function choose(fieldset, score) {
    answer().scores[fieldset.dataset.item] = score;
    fill(fieldset);
    by("page-error").textContent = "";
    keep();
  }

  function leave() {
    if (!shownAt || !state || state.page >= order.length) return;
    answer().milliseconds += Math.round(performance.now() - shownAt);
    shownAt = 0;
  }

  function next() {
    const open = missing(state, order[state.page]);
    fieldsets.forEach((fieldset) => mark(fieldset, open.includes(fieldset.dataset.item)));
    if (open.length) {
      by("page-error").textContent = open.length === 1 ? "One answer is still missing." : `${open.length} answers are still missing.`;
      focus(fieldsets[items.indexOf(open[0])]);
    } else {
      notice(storage ? "" : by("notice").textContent);
      show(state.page + 1);
    }
  }

  function back() {
    if (state.page > 0) show(state.page - 1);
  }

  function focus(element) {
    element.focus({preventScroll: true});
    element.scrollIntoView({block: "nearest"});
  }

  // After a tap or click the focus goes to the statement, so that → is Next and does not move the choice.
  let pointer = false;
  document.addEventListener("pointerdown", () => { pointer = true; }, true);
  document.addEventListener("keydown", () => { pointer = false; }, true);
  by("items").addEventListener("change", (event) => {
    const fieldset = event.target.closest("fieldset");
    choose(fieldset, Number(event.target.value));
    if (pointer) fieldset.focus({preventScroll: true});
  });
  by("items").addEventListener("submit", (event) => {
    event.preventDefault();
    next();
  });
  by("back").addEventListener("click", back);

  document.addEventListener("keydown", (event) => {
    if (by("page").hidden || event.repeat || event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
    const own = document.activeElement.closest("fieldset");
    if (!by("shortcuts").checked) return;
    const radio = document.activeElement.matches("input[type=radio]");
    const button = document.activeElement.matches("button, #shortcuts");
    const digit = /^[1-9]$/.test(event.key) ? Number(event.key) : 0;
    if (digit && digit <= points(order[state.page])) {
      const at = own || fieldsets[items.indexOf(missing(state, order[state.page])[0])];
      if (!at) return;  // it would change an answer that nobody looks at
      choose(at, digit);
      const after = fieldsets.slice(fieldsets.indexOf(at) + 1).find((fieldset) => !fieldset.querySelector(":checked"));
      focus(after || by("next"));
    } else if (event.key === "Enter" && !button) {
      next();
    } else if (event.key === "ArrowRight" && !radio) {
      next();
    } else if (event.key === "ArrowLeft" && !radio) {
      back();
    } else {
      return;
    }
    event.preventDefault();
  });

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      leave();
      if (state) keep();
    } else if (state && state.page < order.length) {
      shownAt = performance.now();
    }
  });
  window.addEventListener("pagehide", () => {
    leave();
    if (state) keep();
  });
  window.addEventListener("storage", (event) => {
    if (state && event.key === key(state)) notice("This form is open in another window too: please use only one.");
  });
  window.addEventListener("beforeunload", (event) => {
    if (!storage && state) event.preventDefault();
  });

  // Save -------------------------------------------------------------------------------------------------------

  function result(complete) {
    const content = {
      format: "kdutils-ratings-1", study: study.study, version: study.version, task: study.task, rater: state.rater,
      ...(state.participant ? {participant: state.participant} : {}),
      started: state.started, saved: now(), complete, signed: complete && by("sign").checked, consent: state.consent,
      about: state.about,
      answers: order.map((text, place) => ({position: place + 1, text, ...(state.answers[text] || {scores: {}, milliseconds: 0})})),
    };
    return {...content, checksum: sha256(canonical(content))};
  }

  // JSON with sorted keys and no spaces, as kdutils.human_study.forms.canonical writes it.
  function canonical(value) {
    if (Array.isArray(value)) return "[" + value.map(canonical).join(",") + "]";
    if (value === null || typeof value !== "object") return JSON.stringify(value);
    return "{" + Object.keys(value).sort().map((name) => JSON.stringify(name) + ":" + canonical(value[name])).join(",") + "}";
  }

  function table() {
    const person = state.participant ? [state.participant] : [];
    const head = ["study", "version", "rater", ...person.map(() => "participant"), "position", "text", ...items, "milliseconds", "checksum"];
    const lines = order.map((text, place) => {
      const found = state.answers[text];
      const cells = [study.study, study.version, state.rater, ...person, place + 1, text, ...items.map((item) => found.scores[item]), found.milliseconds];
      return [...cells, sha256(cells.join("|")).slice(0, 16)].join(",");
    });
    return [head.join(","), ...lines].join("\r\n") + "\r\n";
  }

  // As kdutils.human_study.forms.completion_code.
  function completionCode() {
    const answers = Object.fromEntries(order.map((text) => [text, state.answers[text].scores]));
    return sha256(canonical({study: study.study, version: study.version, rater: state.rater, answers})).slice(0, 8).toUpperCase();
  }

  // Two people with one code save files of different names: their id, or the start of a code of their own, is part of it.
  function save(ending, content, type) {
    const own = state.participant || (missingPages() ? sha256(state.started) : completionCode()).slice(0, 4).toUpperCase();
    const name = `${study.study}_${state.rater}_${own}_${ending}`;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([content], {type}));
    link.download = name;
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    return name;
  }

  function saveFinished(ending, content, type) {
    by("finish-error").textContent = by("sign").checked ? "" : "Please tick the box if you answered these yourself.";
    if (!by("sign").checked) return;
    const text = content();
    by("file-name").textContent = save(ending, text, type);
    by("copy").value = text;
    by("completion").textContent = study.completion_code || completionCode();
    by("saved").hidden = false;
    by("saved-heading").focus();
  }

  by("finish-form").addEventListener("submit", (event) => {
    event.preventDefault();
    saveFinished("ratings.json", () => JSON.stringify(result(true), null, 1) + "\n", "application/json");
  });
  by("save-csv").addEventListener("click", () => saveFinished("ratings.csv", table, "text/csv"));
  by("finish-back").addEventListener("click", back);
  by("save-unfinished").addEventListener("click", () => {
    leave();
    shownAt = performance.now();
    const name = save("unfinished.json", JSON.stringify(result(false), null, 1) + "\n", "application/json");
    notice(`Saved as ${name}. To go on elsewhere, open this form there and choose “I have an unfinished file”.`);
  });
  by("forget").addEventListener("click", () => {
    if (!confirm("Remove your answers from this browser? The file that you saved stays.")) return;
    if (storage) storage.removeItem(key(state));
    state = null;
    location.reload();
  });

  // SHA-256 (FIPS 180-4). The browser's own is missing on pages opened as a file in some browsers.
  function sha256(text) {
    const bytes = [...new TextEncoder().encode(text)];
    const length = bytes.length * 8;
    const rotate = (word, by) => (word >>> by) | (word << (32 - by));
    const fraction = (root) => ((root - Math.floor(root)) * 2 ** 32) | 0;
    const primes = [];
    for (let n = 2; primes.length < 64; n++) if (primes.every((p) => n % p)) primes.push(n);
    const hash = primes.slice(0, 8).map((p) => fraction(Math.sqrt(p)));
    const k = primes.map((p) => fraction(Math.cbrt(p)));
    bytes.push(0x80);
    while (bytes.length % 64 !== 56) bytes.push(0);
    for (let shift = 56; shift >= 0; shift -= 8) bytes.push(shift > 31 ? Math.floor(length / 2 ** shift) & 255 : (length >>> shift) & 255);
    for (let at = 0; at < bytes.length; at += 64) {
      const w = [];
      for (let i = 0; i < 64; i++) {
        if (i < 16) {
          const b = at + 4 * i;
          w.push((bytes[b] << 24) | (bytes[b + 1] << 16) | (bytes[b + 2] << 8) | bytes[b + 3]);
        } else {
          const s0 = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ (w[i - 15] >>> 3);
          const s1 = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ (w[i - 2] >>> 10);
          w.push((w[i - 16] + s0 + w[i - 7] + s1) | 0);
        }
      }
      let [a, b, c, d, e, f, g, h] = hash;
      for (let i = 0; i < 64; i++) {
        const s1 = rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25);
        const one = (h + s1 + ((e & f) ^ (~e & g)) + k[i] + w[i]) | 0;
        const s0 = rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22);
        const two = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
        [a, b, c, d, e, f, g, h] = [(one + two) | 0, a, b, c, (d + one) | 0, e, f, g];
      }
      [a, b, c, d, e, f, g, h].forEach((word, i) => { hash[i] = (hash[i] + word) | 0; });
    }
    return hash.map((word) => (word >>> 0).toString(16).padStart(8, "0")).join("");
  }

  const person = personOf(location.search);
  by("rater").value = person.rater;
  by("participant").textContent = person.participant;
  by("person").hidden = !person.participant;
  by("rater").readOnly = !!person.participant;
  if (!storage) warnOfStorage();
})();
