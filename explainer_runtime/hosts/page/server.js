// The server, asked with the reader's token, which is kept in memory and nowhere else.

export const base = new URL("../", import.meta.url);

let token = "";
let asking = null;

// What the server refused, or why it could not be asked, in words.
export class Refused extends Error {}

export function known() {
  return token !== "";
}

function askForToken() {
  asking ??= new Promise((answer, refuse) => {
    const dialog = document.getElementById("token");
    const word = document.getElementById("token-word");
    document.getElementById("token-why").textContent = token === ""
      ? "This server answers those who show it a token."
      : "The server does not know that token.";
    dialog.querySelector("form").onsubmit = event => {
      event.preventDefault();
      token = word.value.trim();
      dialog.close();
    };
    dialog.onclose = () => {
      asking = null;
      if (word.value === "") refuse(new Refused("Without a token the server does not answer."));
      word.value = "";
      answer();
    };
    dialog.showModal();
  });
  return asking;
}

export async function ask(path, {headers = {}, ...options} = {}) {
  for (;;) {
    const sent = token;
    let response;
    if (/[^\x21-\x7e]/.test(sent)) { // no header can carry it, so no server knows it
      await askForToken();
      continue;
    }
    try {
      response = await fetch(new URL(path, base), {
        ...options, cache: "no-store",
        headers: {...headers, ...(sent && {authorization: `Bearer ${sent}`})},
      });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refused("The server cannot be reached now. Nothing is lost: try again when it is back.");
    }
    if (response.status === 401) {
      if (sent === token) await askForToken();
      continue;
    }
    if (!response.ok) throw new Refused(await reason(response));
    return response;
  }
}

async function reason(response) {
  try {
    return said(JSON.parse(await response.text()).error);
  } catch {
    return `The server answered with status ${response.status}.`;
  }
}

// The page sends one picture; the server counts the values of tensors.
function said(error) {
  return String(error).replace(/^inputs\[0\]\.data(\[0\])?/, "image");
}

// The events of a stream as documents; one that is an error is thrown.
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const {value, done} = await reader.read().catch(error => {
      if (error.name === "AbortError") throw error;
      throw new Refused("The connection was lost before the answer had come. Try again.");
    });
    if (done) return;
    const pieces = (rest + value).split("\n\n");
    rest = pieces.pop();
    for (const piece of pieces) {
      const data = piece.split("\n").filter(line => line.startsWith("data: ")).map(line => line.slice(6));
      if (data.length === 0) continue;
      const document = JSON.parse(data.join("\n"));
      if (document.error !== undefined) throw new Refused(said(document.error));
      yield document;
    }
  }
}
