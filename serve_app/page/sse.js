// Server-sent events out of a fetch body. EventSource cannot POST, so the few rules of the format that the server uses
// are read here. No reconnecting: an inversion that broke off is begun anew by whoever asked for it.

/** Yields {event, data} of each event; `data` is the text, not yet parsed. */
export async function* events(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let buffer = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      buffer += done ? decoder.decode() : decoder.decode(value, { stream: true });
      const blocks = buffer.split(/\r\n\r\n|\n\n/);
      buffer = blocks.pop();
      for (const block of blocks) yield* parsed(block);
      if (done) return;
    }
  } finally {
    reader.cancel().catch(() => {}); // the reader stopped early: the server need not go on
  }
}

function* parsed(block) {
  let event = "message";
  const data = [];
  for (const line of block.split(/\r\n|\n|\r/)) {
    const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line);
    if (field === "event") event = value;
    if (field === "data") data.push(value);
  }
  if (data.length) yield { event, data: data.join("\n") };
}
