// Shows the API description as a page: no library, nothing from outside.
"use strict";

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

async function show() {
  const api = await (await fetch("/api/openapi.json")).json();
  const list = [];
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const title = element("h3");
      title.append(element("span", method.toUpperCase(), `method ${method}`), element("code", path));
      list.push(title, element("p", operation.summary));
      for (const parameter of operation.parameters || []) {
        const line = element("p", undefined, "muted");
        line.append(element("code", parameter.name), ` ${parameter.description || ""}`);
        list.push(line);
      }
      const example = operation["x-example"];
      if (example) list.push(element("pre", example.replaceAll("{origin}", location.origin)));
    }
  }
  document.getElementById("paths").replaceChildren(...list);
}
show();
