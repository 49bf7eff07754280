// Hands a mail in over HTTP, as Resend's SDKs do: node send.mjs http://127.0.0.1:8026 < secret
import { readFileSync } from "node:fs";

const reply = await fetch(`${process.argv[2]}/emails`, {
  method: "POST",
  headers: { "Content-Type": "application/json", Authorization: `Bearer ${readFileSync(0, "utf8").trim()}`, "Idempotency-Key": "order-1235" },
  body: JSON.stringify({ from: "Shop <shop@example.com>", to: ["bob@example.org"], subject: "Your order", text: "It is on its way." }),
});
const answer = await reply.json();
if (!reply.ok) throw new Error(`${reply.status} ${answer.name}: ${answer.message}`);
console.log(answer.id);
