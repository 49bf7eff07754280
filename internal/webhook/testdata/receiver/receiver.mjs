// A receiver of webhooks as its users write it: it verifies each post with the libraries of Standard Webhooks and of Svix, and
// answers 204, or 400 with what they say. Its argument is the secret. It writes its port first, and then a line of JSON for
// each post.
import { createServer } from "node:http";
import { Webhook } from "standardwebhooks";
import { Webhook as Svix } from "svix";

const [secret] = process.argv.slice(2);

function verify(Library, body, headers) {
  try {
    return { event: new Library(secret).verify(body, headers) };
  } catch (e) {
    return { error: e.message };
  }
}

const server = createServer((request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => {
    const body = Buffer.concat(chunks).toString("utf8");
    const only = (prefix) => Object.fromEntries(Object.entries(request.headers).filter(([name]) => name.startsWith(prefix)));
    const standard = verify(Webhook, body, only("webhook-"));
    const svix = verify(Svix, body, only("svix-"));
    const error = standard.error || svix.error;
    console.log(JSON.stringify({ id: request.headers["webhook-id"], standard, svix }));
    response.writeHead(error ? 400 : 204).end(error);
  });
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
process.stdin.on("close", () => process.exit(0)).resume(); // the test has ended
