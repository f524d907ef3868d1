// The request as a command line that can be pasted into a shell. The key stays a variable of that shell.

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** The command for `body` posted to `url`. */
export function curlCommand(url, body, keyNeeded) {
  return [
    `curl -sS ${quoted(url)}`,
    ...(keyNeeded ? ['-H "Authorization: Bearer $EMBINV_API_KEY"'] : []),
    `-H ${quoted("Content-Type: application/json")}`,
    `-d ${quoted(JSON.stringify(body))}`,
  ].join(" \\\n  ");
}

/** Puts text on the clipboard; returns false where the browser does not let a page do so. */
export async function copy(text, element) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Outside https and localhost there is no clipboard API: the text is selected, and copied the old way.
    getSelection().selectAllChildren(element);
    return document.execCommand("copy");
  }
}
