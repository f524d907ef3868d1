// Small ways with the page's elements that every part needs. Text goes in as text: nothing here parses HTML.

export const byId = (id) => document.getElementById(id);

/** A new element with text and, where given, a class. */
export function element(name, text, className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

/** Shows a sentence in an error's place and marks the fields that it is about; an empty sentence takes both away. */
export function complain(place, sentence, ...fields) {
  place.textContent = sentence;
  place.hidden = !sentence;
  for (const field of fields) {
    if (sentence) field.setAttribute("aria-invalid", "true");
    else field.removeAttribute("aria-invalid");
  }
}
