// What is put into the page. Text of the node gets in by textContent alone, so that none of it is ever read as HTML.

const byId = (id) => document.getElementById(id);

function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}

/** Changes nothing when nothing changed: what a reader has marked stays marked. */
function say(element, text) {
  const said = String(text ?? "");
  if (element.textContent !== said) element.textContent = said;
}

/**
 * Makes the children of `parent` those of `items`, in their order. An element stays, and keeps the focus, as long as its
 * item's key is there.
 */
function keep(parent, items, keyOf, create, update) {
  const used = new Set();
  const keys = items.map((item, place) => {
    let key = String(keyOf(item, place));
    while (used.has(key)) key += "+";
    used.add(key);
    return key;
  });
  const old = new Map();
  for (const child of [...parent.children]) {
    if (used.has(child.dataset.key)) old.set(child.dataset.key, child);
    else child.remove();
  }
  items.forEach((item, place) => {
    const child = old.get(keys[place]) ?? create(item);
    child.dataset.key = keys[place];
    if (parent.children[place] !== child) parent.insertBefore(child, parent.children[place] ?? null);
    update(child, item);
  });
}

/**
 * Rows of a table. `cells` gives those of an item: a text, or one with a class (`kind`) and perhaps a share that is done (0
 * to 1). Classes of the head's cells hold, too.
 */
function rows(body, items, keyOf, cells) {
  const heads = [...body.parentElement.tHead.rows[0].cells];
  const create = () => {
    const row = make("tr");
    row.append(...heads.map((head) => make("td", head.className)));
    return row;
  };
  keep(body, items, keyOf, create, (row, item) => {
    cells(item).forEach((cell, place) => {
      const { text, kind = "", done = 0 } = typeof cell === "object" && cell !== null ? cell : { text: cell };
      const element = row.cells[place];
      say(element, text);
      const wanted = `${heads[place].className} ${kind}`.trim();
      if (element.className !== wanted) element.className = wanted;
      element.style.setProperty("--done", `${done * 100}%`);
    });
  });
}

/** Names with what they are, in a `dl`. */
function facts(list, pairs) {
  const create = () => {
    const pair = make("div");
    pair.append(make("dt"), make("dd"));
    return pair;
  };
  keep(list, pairs, ([name]) => name, create, (pair, [name, text, kind = ""]) => {
    say(pair.children[0], name);
    say(pair.children[1], text);
    pair.className = kind;
  });
}

/**
 * Bars under each other: a name, a track, a text. Of a bar: `share` of the track that is filled (0 to 1), `parts` that
 * divide what is filled by their sizes, `marks` as shares of the track, `kind` for its colour.
 */
function bars(list, items) {
  const create = () => {
    const bar = make("div", "bar");
    const track = make("div", "track");
    track.append(make("div", "fill"), make("div", "marks"));
    bar.append(make("span", "name"), track, make("span", "text"));
    return bar;
  };
  keep(list, items, (item) => item.name, create, (bar, { name, share, text, parts = [], marks = [], kind = "", title = "" }) => {
    const [label, track, said] = bar.children;
    const [fill, ticks] = track.children;
    bar.className = `bar ${kind}`.trim();
    say(label, name);
    label.title = title || name;
    say(said, text);
    const filled = Math.min(1, Math.max(0, share));
    fill.style.width = `${filled * 100}%`;
    fill.classList.toggle("some", filled > 0);
    // Parts that would be thinner than the gaps between them are one.
    const room = track.clientWidth * filled;
    const divided = parts.length > 1 && room / parts.length >= 4 ? parts : [];
    keep(fill, divided, (_, place) => place, () => make("i"), (part, size) => {
      part.style.flexGrow = size;
    });
    keep(ticks, marks, (_, place) => place, () => make("i"), (tick, at) => {
      tick.style.left = `${Math.min(1, at) * 100}%`;
    });
  });
}
