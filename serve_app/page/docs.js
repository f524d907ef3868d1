// The routes of this server, read off its openapi.json and written as text. Nothing here knows a route by name.

const METHODS = ["get", "post", "put", "patch", "delete"];

/** An element with attributes and children; text children stay text. */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** A sentence whose `code` stands as such. */
function prose(text) {
  return text.split("`").map((part, index) => (index % 2 ? element("code", {}, part) : part));
}

/** What a `$ref` points to; a schema without one as it is. */
function resolved(api, schema) {
  let found = schema ?? {};
  for (let depth = 0; found.$ref && depth < 20; depth += 1) {
    const steps = found.$ref.replace("#/", "").split("/");
    found = steps.reduce((tree, step) => tree?.[step.replaceAll("~1", "/").replaceAll("~0", "~")], api) ?? {};
  }
  return found;
}

/** A schema in a few words: `array of number`, `string or null`. */
function typeOf(api, schema, depth = 0) {
  const found = resolved(api, schema);
  if (depth > 5) return "…";
  if (found.const !== undefined) return JSON.stringify(found.const);
  if (found.enum) return found.enum.map((value) => JSON.stringify(value)).join(" | ");
  const choices = found.anyOf ?? found.oneOf ?? found.allOf;
  if (choices) return choices.map((choice) => typeOf(api, choice, depth + 1)).join(" or ");
  if (found.type === "array") return found.items ? `array of ${typeOf(api, found.items, depth + 1)}` : "array";
  const named = found.title && found.properties ? `object ${found.title}` : found.type;
  return [named ?? "any"].flat().join(" or ");
}

/** Bounds and default of a schema: `from 1 · to 512 · default 8`. */
function limits(api, schema) {
  const found = resolved(api, schema);
  const words = { minimum: "from", exclusiveMinimum: "above", maximum: "to", maxLength: "length to", maxItems: "items to" };
  const told = ([key]) => Number.isSafeInteger(found[key]) || typeof found[key] === "number" && found[key] < 1e15;
  const said = Object.entries(words).filter(told).map(([key, word]) => `${word} ${found[key]}`);
  const value = schema?.default ?? found.default;
  if (value !== undefined && value !== null) said.push(`default ${JSON.stringify(value)}`);
  return said.join(" · ");
}

function table(api, rows) {
  const body = element("tbody");
  for (const { name, schema, required, description } of rows) {
    const about = [description ?? resolved(api, schema).description, limits(api, schema), required ? "required" : ""];
    body.append(
      element(
        "tr",
        {},
        element("th", { scope: "row" }, element("code", {}, name)),
        element("td", {}, element("code", {}, typeOf(api, schema))),
        element("td", { class: "quiet" }, ...prose(about.filter(Boolean).join(" · "))),
      ),
    );
  }
  return element("div", { class: "table" }, element("table", {}, body));
}

/** The fields of an object and of those inside it, each by its way there: `results[].tokens[].id`. */
function fields(api, schema, way = "", depth = 0) {
  const found = resolved(api, schema);
  const required = new Set(found.required ?? []);
  return Object.entries(found.properties ?? {}).flatMap(([name, part]) => {
    const row = { name: way + name, schema: part, required: required.has(name) };
    const inside = resolved(api, part);
    const below = `${row.name}${inside.items ? "[]" : ""}.`;
    const forms = depth > 3 ? [] : inside.oneOf ?? [inside.items ?? inside];
    return [row, ...forms.flatMap((form) => fields(api, form, below, depth + 1))];
  });
}

/** The parts of a body or an answer, one table a media type. */
function content(api, media) {
  return Object.entries(media ?? {}).flatMap(([type, { schema }]) => {
    const rows = fields(api, schema);
    const line = element("p", { class: "quiet" }, element("code", {}, type), rows.length ? "" : ` ${typeOf(api, schema)}`);
    return rows.length ? [line, table(api, rows)] : [line];
  });
}

function section(api, id, method, path, operation) {
  const made = element("section", { id, "aria-labelledby": `${id}-title` });
  made.append(
    element("h2", { id: `${id}-title` }, element("code", { class: "method" }, method.toUpperCase()), element("code", {}, path)),
  );
  const about = operation.description ?? operation.summary;
  if (about) made.append(element("p", {}, ...prose(about)));
  const parameters = (operation.parameters ?? []).map((given) => resolved(api, given));
  if (parameters.length) {
    made.append(element("h3", {}, "Parameters"));
    made.append(table(api, parameters.map((given) => ({ ...given, name: `${given.name} (${given.in})` }))));
  }
  if (operation.requestBody) {
    made.append(element("h3", {}, "Body"), ...content(api, resolved(api, operation.requestBody).content));
  }
  const answers = Object.entries(operation.responses ?? {}).map(([status, given]) => [status, resolved(api, given)]);
  for (const [status, answer] of answers.filter(([status]) => status < "400")) {
    made.append(element("h3", {}, status, " ", ...prose(answer.description ?? "")), ...content(api, answer.content));
  }
  const errors = answers.filter(([status]) => status >= "400");
  if (errors.length) {
    const line = ([status, answer]) => element("li", {}, element("code", {}, status), " ", ...prose(answer.description ?? ""));
    made.append(element("h3", {}, "Errors"), element("ul", { class: "quiet" }, ...errors.map(line)));
  }
  return made;
}

function firstSentence(operation) {
  return (operation.description ?? operation.summary ?? "").split(/(?<=[.:])\s/)[0].replace(/[.:]$/, "");
}

function show(api) {
  const list = element("ul");
  const routes = document.getElementById("routes");
  let count = 0;
  for (const [path, operations] of Object.entries(api.paths ?? {})) {
    for (const method of METHODS.filter((name) => operations[name])) {
      count += 1;
      const id = `route-${count}`;
      const link = element("a", { href: `#${id}` }, element("code", {}, `${method.toUpperCase()} ${path}`));
      list.append(element("li", {}, link, " ", element("span", { class: "quiet" }, ...prose(firstSentence(operations[method])))));
      routes.append(section(api, id, method, path, operations[method]));
    }
  }
  const contents = document.getElementById("contents");
  contents.append(list);
  contents.hidden = false;
  document.getElementById("status").textContent = `${api.info?.title ?? "API"} ${api.info?.version ?? ""}: ${count} routes.`;
}

try {
  const answer = await fetch("openapi.json");
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
  show(await answer.json());
} catch (error) {
  document.getElementById("status").textContent = `openapi.json could not be shown: ${error.message}`;
}
