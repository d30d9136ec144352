// The API reference: the OpenAPI document as a page. Every text goes in as text, never as markup.

const VERBS = ["get", "post", "put", "patch", "delete"];
const SCHEMA = "#/components/schemas/";

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== undefined && child !== null));
  return element;
}

// A type as text and links: "array of Rendition", "string or null".
function typeOf(schema) {
  if (!schema || schema === true) return ["anything"];
  if (schema.$ref) {
    const name = schema.$ref.replace(SCHEMA, "");
    return [make("a", { href: `#schema-${name}` }, name)];
  }
  const several = schema.oneOf || schema.anyOf;
  if (several) return several.flatMap((one, i) => (i ? [" or ", ...typeOf(one)] : typeOf(one)));
  if (schema.allOf) return schema.allOf.flatMap((one, i) => (i ? [" and ", ...typeOf(one)] : typeOf(one)));
  if (schema.enum) return [schema.enum.filter((value) => value !== null).join(", ")];
  const types = [].concat(schema.type || "object");
  return types.flatMap((type, i) => {
    const text = type === "array" ? ["list of ", ...typeOf(schema.items)] : [schema.format && type !== "null" ? `${type} (${schema.format})` : type];
    return i ? [" or ", ...text] : text;
  });
}

function bounds(schema) {
  const said = [];
  if (schema.minimum !== undefined || schema.maximum !== undefined) said.push(`${schema.minimum ?? "…"} to ${schema.maximum ?? "…"}`);
  if (schema.default !== undefined) said.push(`default ${JSON.stringify(schema.default)}`);
  if (schema.pattern) said.push(schema.pattern);
  return said.length ? ` (${said.join("; ")})` : "";
}

function row(name, schema, description, required) {
  const cells = [make("code", {}, name), required ? " *" : ""];
  return make("tr", {}, make("td", {}, ...cells), make("td", {}, ...typeOf(schema)), make("td", {}, `${description || ""}${bounds(schema || {})}`));
}

function properties(schema, rows = []) {
  for (const part of schema.allOf || []) {
    if (part.$ref) rows.push(make("tr", {}, make("td", {}, "all of"), make("td", {}, ...typeOf(part)), make("td", {})));
    else properties(part, rows);
  }
  for (const [name, one] of Object.entries(schema.properties || {})) {
    rows.push(row(name, one, one.description, (schema.required || []).includes(name)));
  }
  return rows;
}

function content(described) {
  const [first] = Object.values((described && described.content) || {});
  return first ? typeOf(first.schema) : ["nothing"];
}

function operation(path, verb, one) {
  const scope = ((one.security || [])[0] || {}).token;
  const section = make("section", { id: one.operationId },
    make("h2", {}, make("span", { class: "verb", "data-verb": verb }, verb.toUpperCase()), path),
    make("p", {}, [one.summary, one.description].filter(Boolean).join(" ")),
    make("p", {}, scope && scope.length ? `Scope: ${scope.join(", ")}` : "No token needed"));
  if ((one.parameters || []).length) {
    section.append(make("h3", {}, "Parameters"), make("table", {},
      ...one.parameters.map((p) => row(p.name, p.schema, `${p.in}. ${p.description || ""}`, p.required))));
  }
  if (one.requestBody) section.append(make("h3", {}, "Body"), make("p", {}, ...content(one.requestBody)));
  section.append(make("h3", {}, "Answers"), make("table", {}, ...Object.entries(one.responses).map(([status, answer]) =>
    make("tr", {}, make("td", {}, status === "default" ? "any other" : status), make("td", {}, ...content(answer)), make("td", {}, answer.description)))));
  return section;
}

function show(api) {
  const page = document.getElementById("document");
  const contents = document.getElementById("contents");
  document.getElementById("about").textContent = api.info.description;
  document.getElementById("version").textContent = `Version ${api.info.version}`;
  for (const tag of api.tags) {
    contents.append(make("h2", {}, tag.name));
    for (const [path, item] of Object.entries(api.paths)) {
      for (const verb of VERBS.filter((name) => item[name] && item[name].tags.includes(tag.name))) {
        page.append(operation(path, verb, item[verb]));
        contents.append(make("a", { href: `#${item[verb].operationId}` }, item[verb].summary || item[verb].operationId));
      }
    }
  }
  contents.append(make("h2", {}, "schemas"));
  for (const [name, schema] of Object.entries(api.components.schemas)) {
    const section = make("section", { id: `schema-${name}` }, make("h2", {}, name), make("p", {}, schema.description || ""));
    const rows = properties(schema);
    if (name === "ProblemCode") {
      section.append(make("table", {}, ...schema.enum.map((code) => make("tr", { id: `problem-${code}` }, make("td", {}, make("code", {}, code))))));
    } else if (rows.length) section.append(make("table", {}, ...rows));
    else section.append(make("p", {}, ...typeOf(schema)));
    page.append(section);
    contents.append(make("a", { href: `#schema-${name}` }, name));
  }
  // The target was not there when the page came.
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

try {
  const answer = await fetch("/v1/openapi.json");
  if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
  show(await answer.json());
} catch (error) {
  document.getElementById("about").textContent = `The document cannot be read (${error.message}): is the API of this daemon running?`;
}
